"""A load of HTTP calls from a process of its own, by a client so light that the server is the limit.

It knows just enough of HTTP/1.1: a request is bytes made beforehand, an answer a head with a length and a body.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import uvloop

STAMP = "@" * 17
"""Stands in a body where the moment of its call belongs: seconds on the machine's monotonic clock."""
_LENGTH = b"content-length: "
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be sent: `count` POSTs of the bodies in turn, over so many connections.

    Attributes:
        rate: calls per second, each at its moment, whatever became of those before; None: each connection sends its
            next call when the last one is answered.
        seconds: no call is begun any more after so long.
        keep_alive: else a connection for each call, as PHP makes it.
    """

    port: int
    path: str
    bodies: list[str]
    count: int
    connections: int = 32
    rate: float | None = None
    keep_alive: bool = True
    seconds: float = 10.0


@dataclass(slots=True)
class Outcome:
    """What came back. Latencies in seconds, from the moment of the call; with a rate, from when it was due."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    """Calls that were not answered 200."""
    sent: int = 0


def send(load: Load) -> Outcome:
    """Send it; in a process of its own."""
    return uvloop.run(_Sender(load).run())


class _Sender:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = [_Request(load, body) for body in load.bodies]
        self._until = 0.0
        self._outcome = Outcome()
        self._last_answer = 0.0

    async def run(self) -> Outcome:
        started = time.monotonic()
        self._until = started + self._load.seconds
        if self._load.rate is None:
            await self._closed()
        else:
            await self._open(started, self._load.rate)
        self._outcome.seconds = self._last_answer - started
        return self._outcome

    def _numbers(self) -> Iterator[int]:
        while self._outcome.sent < self._load.count and time.monotonic() < self._until:
            self._outcome.sent += 1
            yield self._outcome.sent

    async def _closed(self) -> None:
        async def one_after_another() -> None:
            connection = _Connection()
            for number in numbers:
                await self._call(connection, number, time.monotonic())
            connection.close()

        numbers = self._numbers()
        await asyncio.gather(*(one_after_another() for _ in range(self._load.connections)))

    async def _open(self, started: float, rate: float) -> None:
        idle: asyncio.Queue[_Connection] = asyncio.Queue()
        for _ in range(self._load.connections):
            idle.put_nowait(_Connection())
        calls: set[asyncio.Task[None]] = set()

        async def call(number: int, at: float) -> None:
            connection = await idle.get()
            try:
                await self._call(connection, number, at)
            finally:
                idle.put_nowait(connection)

        for number in self._numbers():
            at = started + number / rate
            if (early := at - time.monotonic()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(call(number, at))
            calls.add(task)
            task.add_done_callback(calls.discard)
        if calls:
            await asyncio.wait(calls, timeout=_SETTLE_SECONDS)

    async def _call(self, connection: "_Connection", number: int, at: float) -> None:
        request = self._requests[number % len(self._requests)]
        try:
            good = await connection.ask(self._load.port, request.at(at))
        except OSError:
            good = False
        self._last_answer = time.monotonic()
        if good:
            self._outcome.latencies.append(self._last_answer - at)
        else:
            self._outcome.refused += 1
        if not (good and self._load.keep_alive):
            connection.close()


class _Request:
    """A request, and where the moment belongs in it."""

    def __init__(self, load: Load, body: str) -> None:
        connection = "" if load.keep_alive else "Connection: close\r\n"
        head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAccept: */*\r\n{connection}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._parts = (head + body).encode().split(STAMP.encode())

    def at(self, moment: float) -> bytes:
        if len(self._parts) == 1:
            return self._parts[0]
        return f"{moment:0{len(STAMP)}.6f}".encode().join(self._parts)


class _Connection(asyncio.Protocol):
    """One connection, opened when it is needed."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bool] | None = None
        self._received = b""

    async def ask(self, port: int, request: bytes) -> bool:
        """Whether the answer was 200.

        Raises:
            OSError: there was none.
        """
        loop = asyncio.get_running_loop()
        if self._transport is None:
            self._transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", port)
        self._answer = loop.create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.partition(_LENGTH)
        if len(body) >= int(length.partition(b"\r\n")[0]):
            self._received = b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())
