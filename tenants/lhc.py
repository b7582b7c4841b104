"""Callbacks to an LHC instance in the `lhc` format: byte for byte what its extension expects."""

import json
import string
import time
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from config.settings import Settings
from tenants.naming import STANDALONE_INSTANCE

_MESSAGE_PATH = "/xmppservice/processmessage"
_STATUS_PATH = "/xmppservice/operatorstatus"
_UNESCAPED = string.ascii_letters + string.digits + "_.-/:"
_LIMITS = httpx.Limits(max_connections=200, max_keepalive_connections=100, keepalive_expiry=15)
_CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one callback. `error` is None when LHC received it; `seconds` is the request's duration."""

    error: str | None
    seconds: float


def callback_base(settings: Settings, instance_name: str, callback_url: str | None) -> str:
    """Where the tenant's LHC is: the registry's URL, else made from the instance name, every dash of it a dot."""
    if callback_url:
        return callback_url.rstrip("/")
    port = f":{settings.callback_port}" if settings.callback_port else ""
    address = "" if instance_name == STANDALONE_INSTANCE else instance_name.replace("-", ".") + "."
    return f"{settings.callback_protocol}{address}{settings.callback_base_domain}{port}"


def message_body(*, body: str, sender: str, receiver: str, server: str) -> bytes:
    """The form of a chat message; every byte is percent-encoded except `A-Za-z0-9_.-/:`."""
    fields = {"body": body, "sender": sender, "receiver": receiver, "server": server, "type": "chat"}
    return "&".join(f"{name}={_percent(value)}" for name, value in fields.items()).encode()


def status_body(*, action: str, user: str, server: str | None = None) -> str:
    """The JSON of an operator's status: `connect` and `disconnect` with the server, `ping` with the full JID alone."""
    fields = {"action": action, "user": user}
    if server is not None:
        fields["server"] = server
    return json.dumps(fields, separators=(",", ":"))


class LhcClient:
    """Posts callbacks. Redirects are not followed; a connection is kept for the next callback of the same instance."""

    def __init__(self, settings: Settings) -> None:
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.callback_timeout, connect=_CONNECT_TIMEOUT),
            follow_redirects=False,
            transport=_LocalhostTransport(verify=settings.callback_verify_tls, limits=_LIMITS),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def post_message(self, base: str, body: bytes) -> Answer:
        """Post an operator's message."""
        return await self._post(base + _MESSAGE_PATH, body, "application/x-www-form-urlencoded")

    async def post_status(self, base: str, body: str) -> Answer:
        """Post an operator's status."""
        return await self._post(base + _STATUS_PATH, body.encode(), "application/json")

    async def _post(self, url: str, body: bytes, content_type: str) -> Answer:
        started = time.monotonic()
        try:
            response = await self._http.post(url, content=body, headers={"Content-Type": content_type})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Answer(f"{type(error).__name__}: {error}"[:500], time.monotonic() - started)
        # LHC answers 200 also when it ignored the callback: a 200 is "received", no more.
        error_text = None if response.is_success else f"HTTP {response.status_code}"
        return Answer(error_text, time.monotonic() - started)


class _LocalhostTransport(httpx.AsyncHTTPTransport):
    """Takes `*.localhost` to the loopback address, as RFC 6761 (6.3) lets applications do; few resolvers know it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host == "localhost" or host.endswith(".localhost"):
            request.extensions["sni_hostname"] = host
            request.url = request.url.copy_with(host="127.0.0.1")  # the Host header keeps the name
        return await super().handle_async_request(request)


def _percent(value: str) -> str:
    # `quote` always keeps `~` too, which LHC's old sender encoded
    return quote(value, safe=_UNESCAPED, errors="replace").replace("~", "%7E")
