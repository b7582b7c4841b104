"""Page views and messages of known visitors as LHC sends them: see `orchestrator.api.fast_path.hot`."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Scope

from orchestrator.api.fast_path.hot import Ready
from orchestrator.api.lhc.face import MAX_BODY, unavailable
from tenants.core.digests import same
from tenants.core.errors import DomainError
from tenants.core.naming import AccountName, local_part
from tenants.core.text import DEFAULT_NICK
from tenants.lifecycle import keys
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.store.database import DATABASE_AWAY
from tenants.visitors import messages, page_views
from tenants.visitors.page_view_request import DEFAULT_STATUS
from tenants.visitors.page_views import Recalled

__all__ = ["MAX_BODY", "send_message", "view_page"]

_JSON = (b"content-type", b"application/json")
_OK = Ready(HTTPStatus.OK, b"text/html; charset=utf-8", b"ok")
# all values are strings: any other body is looked at by the face
_decoder = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class _Call:
    """A call with the right key, of a visitor who is known."""

    known: Recalled
    fields: Mapping[str, str]


async def view_page(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer `/xmpp` of a known visitor."""
    call = _read(services, scope, body)
    if call is None:
        return None
    fields = call.fields
    viewed = page_views.view_known_page(
        services,
        call.known,
        password=fields["pass"],
        nick=fields.get("nick", DEFAULT_NICK),
        status=fields.get("status", DEFAULT_STATUS),
    )
    return await _answer(scope, viewed)


async def send_message(services: Services, scope: Scope, body: bytes) -> ASGIApp | None:
    """Answer `/xmpp-send-message` of a known visitor."""
    call = _read(services, scope, body)
    operator = _operator(services, call) if call is not None else None
    if call is None or operator is None:
        return None
    fields = call.fields
    written = messages.write_known(
        services,
        call.known,
        operator,
        body=fields["message"],
        password=fields["pass"],
        nick=fields.get("nick", DEFAULT_NICK),
        status=fields.get("status"),
    )
    return await _answer(scope, written)


async def _answer(scope: Scope, online_until: Awaitable[float | None]) -> ASGIApp | None:
    try:
        return None if await online_until is None else _OK
    except (QueueUnavailableError, *DATABASE_AWAY) as error:
        return unavailable(Request(scope), _endpoint(scope), error)


def _read(services: Services, scope: Scope, body: bytes) -> _Call | None:
    """The call, if its visitor is known, its key opens, and it says all that it must."""
    if _JSON not in scope["headers"]:
        return None
    try:
        fields = _decoder.decode(body)
        known = _recall(services, fields["jid"])
        is_whole = known is not None and "pass" in fields and _opens(services, scope, known, fields["secret_key"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, DomainError):
        return None
    return _Call(known, fields) if known is not None and is_whole else None


def _recall(services: Services, jid: str) -> Recalled | None:
    """The visitor of that address, if it is known, and its tenant lives there."""
    known = page_views.recall(services, jid.partition("@")[0])
    if known is not None:
        local_part(jid, known.tenant.xmpp_host)
    return known


def _opens(services: Services, scope: Scope, known: Recalled, key: str) -> bool:
    """Whether it is the hosting key at the root, or the tenant's own key on its path."""
    tenant, endpoint = known.tenant, _endpoint(scope)
    if scope["path"] == f"/{endpoint}":
        return same(key, services.settings.hosting_key.get_secret_value())
    is_its_path = scope["path"] == f"/t/{tenant.instance_name}/{endpoint}"
    return is_its_path and keys.key_opens(tenant, key, services.clock())


def _operator(services: Services, call: _Call) -> AccountName | None:
    """Whom the message is for, if there is a message."""
    if "message" not in call.fields or "operator_username" not in call.fields:
        return None
    try:
        local = local_part(call.fields["operator_username"], call.known.tenant.xmpp_host)
        return services.naming.parse_username(local)
    except DomainError:
        return None


def _endpoint(scope: Scope) -> str:
    return str(scope["path"].rpartition("/")[2])
