"""The one call that LHC makes all the time, answered without a database: a known visitor's page view without news.

Whatever is not exactly that goes on to `orchestrator.api.lhc.face`, which judges it as a whole. So nothing is refused
here, and nothing is accepted that would have been refused there; `tenants.known` says within which time that holds.
"""

from collections.abc import Mapping

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.lhc.face import MAX_BODY
from tenants import admission, registry
from tenants.errors import QuotaExceededError
from tenants.secrets import matches, same
from tenants.services import Services
from tenants.visitors import DEFAULT_NICK, DEFAULT_STATUS

_ENDPOINT = "/xmpp"
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


class HotPath:
    """ASGI middleware, the outermost: routes alone would take longer than all of this."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_page_view(scope):
            await self._app(scope, receive, send)
            return
        message = await receive()
        if _is_whole(message) and _answered(scope["app"].state.services, scope["path"], message["body"]):
            for part in _OK:
                await send(part)
            return
        await self._app(scope, _again(message, receive), send)


def _is_page_view(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["path"].endswith(_ENDPOINT)
        and scope["method"] == "POST"
        and _JSON in scope["headers"]
    )


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


def _answered(services: Services, path: str, body: bytes) -> bool:
    """Whether this was a page view without news, which is noted then."""
    try:
        said = _decoder.decode(body)
        return _is_without_news(services, path, said)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, QuotaExceededError):
        return False


def _is_without_news(services: Services, path: str, said: Mapping[str, str]) -> bool:
    local, _, domain = said["jid"].partition("@")
    visitor = services.known.visitor(local)
    if visitor is None or domain != services.settings.xmpp_host:
        return False
    tenant = services.known.tenant(visitor.instance_name)
    if tenant is None or admission.refusal(tenant, visitor.kind):
        return False
    if path == _ENDPOINT:
        opened = same(said["secret_key"], services.settings.hosting_key.get_secret_value())
    else:
        opened = path == f"{_TENANT}{tenant.instance_name}{_ENDPOINT}" and registry.key_opens(
            tenant, said["secret_key"], services.clock()
        )
    if not (
        opened
        and said.get("nick", DEFAULT_NICK) == visitor.nick
        and said.get("status", DEFAULT_STATUS) == visitor.status
        and matches(visitor.username, said["pass"], visitor.password_digest)
    ):
        return False
    # last, because what is counted here is answered here
    services.calls.admit_known(tenant)
    services.known.renew(visitor, services.clock() + tenant.online_seconds)
    return True
