"""Posting to tenants' servers: bounded in time, in the size of what is read, and in connections."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import cast

import httpcore
import httpx

from config.settings import Settings
from tenants.clock import Clock
from tenants.connectors import RefusedAddressError

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
    """Posts. Redirects are not followed; a connection is kept for the next request to the same server.

    Args:
        settings: `callback_timeout` and `callback_verify_tls`.
        clock: what a date in `Retry-After` is measured by.
        connector: opens the connections.
    """

    def __init__(self, settings: Settings, clock: Clock, connector: httpcore.AsyncNetworkBackend) -> None:
        self._clock = clock
        self._timeout = settings.callback_timeout
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.callback_timeout, connect=_CONNECT_TIMEOUT),
            follow_redirects=False,
            transport=_Transport(connector, verify_tls=settings.callback_verify_tls),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST it once. Whatever becomes of it is in the answer; nothing is raised."""
        started = time.monotonic()
        try:
            # httpx bounds each read; a server that drips bytes needs a bound on the whole
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", url, content=body, headers=headers) as response,
            ):
                await _skip(response)
        except TimeoutError:
            return Answer(f"no answer within {self._timeout:g} s", time.monotonic() - started)
        except RefusedAddressError as error:
            return Answer(str(error), time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is what became of this callback, and is counted
            return Answer(f"{type(error).__name__}: {error}"[:500], time.monotonic() - started)
        seconds, status = time.monotonic() - started, response.status_code
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


class _Transport(httpx.AsyncBaseTransport):
    """As httpx's own, which lets nobody choose who opens the connections.

    The choice belongs there, and not into the URL: so connections are kept, and certificates checked, by name.
    """

    def __init__(self, connector: httpcore.AsyncNetworkBackend, *, verify_tls: bool) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(verify=verify_tls),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=connector,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=cast("AsyncIterable[bytes]", request.stream),
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Stream(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()
