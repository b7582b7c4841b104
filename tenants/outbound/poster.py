"""Posting to tenants' servers: bounded in time, in the size of what is read, and in connections."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.outbound.addresses import AnyHost, RefusedAddressError
from tenants.outbound.callback_urls import shown

MAX_CONNECTIONS = 500
"""Requests under way at once, per process. Who calls must not have more: here they would only wait."""
_KEPT_SECONDS = 15.0
_CONNECT_TIMEOUT = 5.0
_MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read, so that its connection can be used again; nothing of it is kept."""
MAX_RETRY_AFTER = 3600.0
"""Seconds: no server can put us off for longer at a time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one callback.

    Attributes:
        error: None when the tenant's server received it.
        seconds: the request's duration.
        http_status: None when no answer came.
        retry_after: seconds that the server asked us to wait, within bounds (RFC 9110, 10.2.3).
    """

    error: str | None
    seconds: float
    http_status: int | None = None
    retry_after: float | None = None


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
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(
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
        try:
            async with self._http.request(method, url, data=body, headers=headers, allow_redirects=False) as response:
                await _skip(response)
        except aiohttp.ConnectionTimeoutError:
            return Answer(f"no connection within {_CONNECT_TIMEOUT:g} s", time.monotonic() - started)
        except TimeoutError:
            return Answer(f"no answer within {self._timeout:g} s", time.monotonic() - started)
        except RefusedAddressError as error:
            return Answer(str(error), time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is what became of this callback, and is counted
            return Answer(shown(f"{type(error).__name__}: {error}")[:500], time.monotonic() - started)
        seconds, status = time.monotonic() - started, response.status
        if 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
            return Answer(None, seconds, status)
        wait = None
        if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            wait = retry_after(response.headers.get("Retry-After"), self._clock())
        return Answer(f"HTTP {status}", seconds, status, wait)


async def _skip(response: aiohttp.ClientResponse) -> None:
    """Read a small answer to its end, so that the connection can be used again. A big one is left unread."""
    read = 0
    async for chunk in response.content.iter_any():
        read += len(chunk)
        if read > _MAX_ANSWER:
            response.close()
            return


def _tls(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
