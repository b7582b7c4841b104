"""Posting to tenants' servers: bounded in time, in the size of what is read, and in connections."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.outbound.addresses import AnyHost, RefusedAddressError
from tenants.outbound.callback_urls import shown
from tenants.outbound.status_lines import BrokenHeadError, Connector, Response

MAX_CONNECTIONS = 500
"""Requests under way at once, per process. Who calls must not have more: here they would only wait."""
_KEPT_SECONDS = 15.0
_CONNECT_TIMEOUT = 5.0
_MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read, so that its connection can be used again."""
_BEGINNING = 16 * 1024
"""Bytes of it that are looked at; none is kept."""
MAX_RETRY_AFTER = 3600.0
"""Seconds: no server can put us off for longer at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one callback. A status that was read counts, whatever became of the rest of the answer.

    Attributes:
        error: None when the tenant's server received it.
        seconds: the request's duration.
        http_status: None when no status could be read.
        retry_after: seconds that the server asked us to wait, within bounds (RFC 9110, 10.2.3).
        warning: what is strange about an answer that counts.
        takes_others: the server was asked, and takes what is not about this callback's conversation or operator.
        beginning: of the body of an answer that counts.
    """

    error: str | None
    seconds: float
    http_status: int | None = None
    retry_after: float | None = None
    warning: str | None = None
    takes_others: bool = False
    beginning: bytes = b""


def explained(answer: Answer, meanings: Mapping[int, str], leads_elsewhere: str) -> Answer:
    """The answer, whose error says what its status means; `leads_elsewhere` is what redirects mean."""
    status = answer.http_status or 0
    meaning = leads_elsewhere if 300 <= status < 400 else meanings.get(status)  # noqa: PLR2004 - RFC 9110, 15.4
    return replace(answer, error=f"{answer.error}: {meaning}") if meaning else answer


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


class Poster:
    """Posts. Redirects are not followed, cookies not kept; a connection is, for the next request to its server.

    Args:
        settings: `callback_timeout` and `callback_verify_tls`.
        clock: what a date in `Retry-After` is measured by.
        hosts: which may be reached.
    """

    def __init__(self, settings: Settings, clock: Clock, hosts: AnyHost) -> None:
        self._clock = clock
        self._timeout = settings.callback_timeout
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=settings.callback_timeout, sock_connect=_CONNECT_TIMEOUT),
            # what comes back is looked at as it is
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=Response,
            connector=Connector(
                ssl=_tls(verify=settings.callback_verify_tls),
                limit=MAX_CONNECTIONS,
                keepalive_timeout=_KEPT_SECONDS,
                # each connection goes where was looked just before, and to one address after another
                use_dns_cache=False,
                happy_eyeballs_delay=None,
                resolver=hosts,
                socket_factory=hosts.open_socket,
            ),
        )

    async def close(self) -> None:
        await self._http.close()

    async def reach(self, url: str) -> Answer:
        """Ask for it once, without any effect there. Whatever becomes of it is in the answer; nothing is raised."""
        return await self._request("GET", url, b"", {})

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST it once. Whatever becomes of it is in the answer; nothing is raised."""
        return await self._request("POST", url, body, headers)

    async def _request(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        started = time.monotonic()
        heard = _Heard()
        try:
            await self._exchange(heard, method, url, body, headers)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is what became of this callback, and is counted
            heard.broken_by = self._said_of(error, has_status=heard.status is not None)
        return self._answer(heard, time.monotonic() - started)

    async def _exchange(self, heard: "_Heard", method: str, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            async with self._http.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                heard.status, heard.retry_after = response.status, response.headers.get("Retry-After")
                await _read(response, heard)
        except BrokenHeadError as error:
            heard.status = error.status
            # what broke it says more
            raise (error.__cause__ or error) from None

    def _said_of(self, error: Exception, *, has_status: bool) -> str:
        """What went wrong. Nothing of an answer is repeated: a server may send back what people wrote."""
        match error:
            case aiohttp.ConnectionTimeoutError():
                return f"no connection within {_CONNECT_TIMEOUT:g} s"
            case TimeoutError():
                return f"no {'end of the ' if has_status else ''}answer within {self._timeout:g} s"
            case aiohttp.ServerDisconnectedError():
                return "the connection was closed before the head of an answer was complete"
            case aiohttp.ClientResponseError():
                return "the head of the answer breaks the rules of HTTP"
            case aiohttp.ClientPayloadError():
                return "the answer ended early, or breaks the rules of HTTP"
            case RefusedAddressError():
                return str(error)
        return shown(f"{type(error).__name__}: {error}")[:500]

    def _answer(self, heard: "_Heard", seconds: float) -> Answer:
        status = heard.status
        if status is None:
            return Answer(heard.broken_by or "no status", seconds)
        if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
            warning = f"received, but {heard.broken_by}" if heard.broken_by else None
            return Answer(None, seconds, status, warning=warning, beginning=heard.beginning)
        wait = None
        if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            wait = retry_after(heard.retry_after, self._clock())
        return Answer(f"HTTP {status}", seconds, status, wait)


@dataclass(slots=True)
class _Heard:
    """What was read of an answer, until it ended or broke."""

    status: int | None = None
    retry_after: str | None = None
    beginning: bytes = b""
    broken_by: str | None = None


async def _read(response: aiohttp.ClientResponse, heard: _Heard) -> None:
    """Read a small answer to its end, so that the connection can be used again. A big one is left unread."""
    read = 0
    async for chunk in response.content.iter_any():
        read += len(chunk)
        if len(heard.beginning) < _BEGINNING:
            heard.beginning += chunk[:_BEGINNING]
        if read > _MAX_ANSWER:
            response.close()
            return


def _tls(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
