"""Callbacks to an LHC instance in the `lhc` format: byte for byte what its extension expects."""

import asyncio
import json
import string
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import quote

import httpx

from config.settings import Settings
from tenants.clock import Clock
from tenants.naming import STANDALONE_INSTANCE

_MESSAGE_PATH = "/xmppservice/processmessage"
_STATUS_PATH = "/xmppservice/operatorstatus"
_UNESCAPED = string.ascii_letters + string.digits + "_.-/:"
MAX_CONNECTIONS = 500
"""Requests under way at once, per process. Who calls must not have more: here they would only wait."""
_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=100, keepalive_expiry=15)
_CONNECT_TIMEOUT = 5.0
_MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read, so that its connection can be used again; nothing of it is kept."""
MAX_RETRY_AFTER = 3600.0
"""Seconds: no LHC can put us off for longer at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one callback.

    Attributes:
        error: None when LHC received it.
        seconds: the request's duration.
        http_status: None when no answer came.
        retry_after: seconds that LHC asked us to wait, within bounds (RFC 9110, 10.2.3).
    """

    error: str | None
    seconds: float
    http_status: int | None = None
    retry_after: float | None = None


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


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a `Retry-After` header, which holds seconds or a date; None when it says nothing sensible."""
    if value is None:
        return None
    try:
        seconds = float(int(value)) if value.isdecimal() else _date(value) - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _date(value: str) -> float:
    date = parsedate_to_datetime(value)
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


class LhcClient:
    """Posts callbacks. Redirects are not followed; a connection is kept for the next callback of the same instance."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._timeout = settings.callback_timeout
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
        headers = {"Content-Type": content_type}
        try:
            # httpx bounds each read; a server that drips bytes needs a bound on the whole
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", url, content=body, headers=headers) as response,
            ):
                await _skip(response)
        except TimeoutError:
            return Answer(f"no answer within {self._timeout:g} s", time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is what became of this callback, and is counted
            return Answer(f"{type(error).__name__}: {error}"[:500], time.monotonic() - started)
        seconds, status = time.monotonic() - started, response.status_code
        # LHC answers 200 also when it ignored the callback: a 200 is "received", no more.
        if response.is_success:
            return Answer(None, seconds, status)
        wait = None
        if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            wait = retry_after(response.headers.get("Retry-After"), self._clock())
        return Answer(f"HTTP {status}", seconds, status, wait)


async def _skip(response: httpx.Response) -> None:
    """Read a small answer to its end, so that the connection can be used again. A big one is left unread."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > _MAX_ANSWER:
            return


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
