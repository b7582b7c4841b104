"""What LHC calls all the time, without a database query for each: page views and messages of visitors who are known.

A page view without news is noted in memory; one with news is stored and published at once with those of others; a
message is published. Whatever is not exactly that goes on to `orchestrator.api.lhc.face`, which judges it as a whole.
So nothing is refused here, and nothing is accepted that would have been refused there; `tenants.known` says within
which time that holds.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from orchestrator.api.lhc.face import MAX_BODY, unavailable
from tenants import admission, registry, visitors
from tenants.errors import DomainError
from tenants.known import KnownVisitor
from tenants.models import Tenant
from tenants.naming import AccountKind, AccountName, local_part
from tenants.secrets import matches, same
from tenants.services import Services
from tenants.shard_queues import QueueUnavailableError
from tenants.visitors import DEFAULT_NICK, DEFAULT_STATUS

_TENANT = "/t/"
_JSON = (b"content-type", b"application/json")
_OK: tuple[Message, Message] = (
    {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"2"), (b"content-type", b"text/html; charset=utf-8")],
    },
    {"type": "http.response.body", "body": b"ok"},
)
# all values are strings: whatever else there may be is looked at by the face
_decoder = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True)
class _Said:
    """What a known visitor's call says, which may come in."""

    tenant: Tenant
    visitor: KnownVisitor
    fields: Mapping[str, str]


class HotPath:
    """ASGI application around the other one, whose middleware and routes alone would take longer than all of this."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = _endpoint(scope)
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        services: Services = self._app.state.services
        said = _known(services, scope["path"], endpoint, message["body"]) if _is_whole(message) else None
        if said is not None:
            try:
                await _HANDLERS[endpoint](services, said)
            except (QueueUnavailableError, DBAPIError, PoolTimeoutError) as error:
                await unavailable(Request(scope), endpoint, error)(scope, receive, send)
                return
            except DomainError:
                # it was not quite as it was known: nothing has changed yet
                services.known.forget_visitor(said.visitor.username)
            else:
                for part in _OK:
                    await send(part)
                return
        await self._app(scope, _again(message, receive), send)


async def _view_page(services: Services, said: _Said) -> None:
    nick, status = said.fields.get("nick", DEFAULT_NICK), said.fields.get("status", DEFAULT_STATUS)
    await visitors.show_known(services, said.tenant, said.visitor, nick, status)


async def _send_message(services: Services, said: _Said) -> None:
    nick, status = said.fields.get("nick", DEFAULT_NICK), said.fields.get("status")
    await visitors.show_known(services, said.tenant, said.visitor, nick, status)
    await visitors.send_known(services, said.visitor, _operator(services, said.fields), said.fields["message"])


_HANDLERS: dict[str, Callable[[Services, _Said], Awaitable[None]]] = {
    "xmpp": _view_page,
    "xmpp-send-message": _send_message,
}


def _endpoint(scope: Scope) -> str | None:
    """Which of our calls it is."""
    if scope["type"] != "http":
        return None
    endpoint: str = scope["path"].rpartition("/")[2]
    return endpoint if endpoint in _HANDLERS and scope["method"] == "POST" and _JSON in scope["headers"] else None


def _is_whole(message: Message) -> bool:
    return (
        message["type"] == "http.request"
        and not message.get("more_body", False)
        and len(message.get("body", b"")) <= MAX_BODY
    )


def _again(message: Message, receive: Receive) -> Receive:
    """Receives this message once more, then what follows."""
    first: list[Message] = [message]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _known(services: Services, path: str, endpoint: str, body: bytes) -> _Said | None:
    """What the call says, if it is of a known visitor and may come in; then it is counted."""
    try:
        fields = _decoder.decode(body)
        return _admitted(services, path, endpoint, fields)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, DomainError):
        return None


def _admitted(services: Services, path: str, endpoint: str, fields: Mapping[str, str]) -> _Said | None:
    visitor = services.known.visitor(local_part(fields["jid"], services.settings.xmpp_host))
    if visitor is None:
        return None
    tenant = services.known.tenants.get(visitor.instance_name)
    if tenant is None or admission.refusal(tenant, visitor.kind):
        return None
    if path == f"/{endpoint}":
        opened = same(fields["secret_key"], services.settings.hosting_key.get_secret_value())
    else:
        opened = path == f"{_TENANT}{tenant.instance_name}/{endpoint}" and registry.key_opens(
            tenant, fields["secret_key"], services.clock()
        )
    if not opened or not matches(visitor.username, fields["pass"], visitor.password_digest):
        return None
    if endpoint == "xmpp-send-message" and not _is_to_operator(services, tenant, fields):
        return None
    # last, because what is counted here is answered here
    services.calls.admit_known(tenant)
    return _Said(tenant, visitor, fields)


def _is_to_operator(services: Services, tenant: Tenant, fields: Mapping[str, str]) -> bool:
    """Whether it is a message to an operator of the tenant."""
    operator = _operator(services, fields)
    return "message" in fields and (operator.kind, operator.instance) == (AccountKind.OPERATOR, tenant.instance_name)


def _operator(services: Services, fields: Mapping[str, str]) -> AccountName:
    return services.naming.parse_username(local_part(fields["operator_username"], services.settings.xmpp_host))
