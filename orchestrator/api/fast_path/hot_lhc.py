"""Page views and messages of known visitors as LHC sends them: see `orchestrator.api.fast_path.hot`."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from orchestrator.api.fast_path.ready import Ready
from orchestrator.api.lhc.face import MAX_BODY, unavailable
from tenants.core.digests import matches, same
from tenants.core.errors import DomainError
from tenants.core.naming import AccountKind, AccountName, local_part
from tenants.core.text import DEFAULT_NICK
from tenants.lifecycle import admission, keys
from tenants.process.cache import KnownVisitor
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import Tenant
from tenants.visitors import presence
from tenants.visitors.presence import DEFAULT_STATUS

__all__ = ["MAX_BODY", "send_message", "view_page"]

_TENANT = "/t/"
_MESSAGE = "xmpp-send-message"
_JSON = (b"content-type", b"application/json")
_OK = Ready(HTTPStatus.OK, b"text/html; charset=utf-8", b"ok")
# all values are strings: whatever else there may be is looked at by the face
_decoder = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class _Said:
    """What a known visitor's call says, which may come in."""

    tenant: Tenant
    visitor: KnownVisitor
    fields: Mapping[str, str]


async def view_page(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer `/xmpp` of a known visitor."""
    return await _answer(services, scope, body, _view_page)


async def send_message(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer `/xmpp-send-message` of a known visitor."""
    return await _answer(services, scope, body, _send_message)


async def _answer(
    services: Services, scope: Scope, body: bytes, handle: Callable[[Services, _Said], Awaitable[None]]
) -> ASGIApp | None:
    endpoint = scope["path"].rpartition("/")[2]
    said = _known(services, scope["path"], endpoint, body) if _JSON in scope["headers"] else None
    if said is None:
        return None
    try:
        await handle(services, said)
    except (QueueUnavailableError, *DATABASE_AWAY) as error:
        return unavailable(Request(scope), endpoint, error)
    except DomainError:
        # it was not quite as it was known: nothing has changed yet
        services.cache.forget_visitor(said.visitor.username)
        return None
    return _OK


async def _view_page(services: Services, said: _Said) -> None:
    nick, status = said.fields.get("nick", DEFAULT_NICK), said.fields.get("status", DEFAULT_STATUS)
    await presence.show_known(services, said.tenant, said.visitor, nick, status)


async def _send_message(services: Services, said: _Said) -> None:
    nick, status = said.fields.get("nick", DEFAULT_NICK), said.fields.get("status")
    await presence.show_known(services, said.tenant, said.visitor, nick, status)
    await presence.send_known(
        services, said.tenant, said.visitor, _operator(services, said.fields), said.fields["message"]
    )


def _known(services: Services, path: str, endpoint: str, body: bytes) -> _Said | None:
    """What the call says, if it is of a known visitor and may come in; then it is counted."""
    try:
        fields = _decoder.decode(body)
        return _admitted(services, path, endpoint, fields)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, DomainError):
        return None


def _admitted(services: Services, path: str, endpoint: str, fields: Mapping[str, str]) -> _Said | None:
    username = local_part(fields["jid"], services.settings.xmpp_host)
    tenant = services.cache.tenants.get(services.naming.parse_username(username).instance)
    visitor = services.cache.visitor(username, tenant.incarnation) if tenant is not None else None
    if tenant is None or visitor is None or admission.refusal(tenant, visitor.kind):
        return None
    if path == f"/{endpoint}":
        opened = same(fields["secret_key"], services.settings.hosting_key.get_secret_value())
    else:
        opened = path == f"{_TENANT}{tenant.instance_name}/{endpoint}" and keys.key_opens(
            tenant, fields["secret_key"], services.clock()
        )
    if not opened or not matches(visitor.username, fields["pass"], visitor.password_digest):
        return None
    if endpoint == _MESSAGE and not _is_to_operator(services, tenant, fields):
        return None
    # last, because what is counted here is answered here
    services.calls.admit_known(tenant, CallKind.OTHER if endpoint == _MESSAGE else CallKind.PAGE_VIEW)
    return _Said(tenant, visitor, fields)


def _is_to_operator(services: Services, tenant: Tenant, fields: Mapping[str, str]) -> bool:
    """Whether it is a message to an operator of the tenant."""
    operator = _operator(services, fields)
    return "message" in fields and (operator.kind, operator.instance) == (AccountKind.OPERATOR, tenant.instance_name)


def _operator(services: Services, fields: Mapping[str, str]) -> AccountName:
    return services.naming.parse_username(local_part(fields["operator_username"], services.settings.xmpp_host))
