"""Operators in a process of their own, who know which visitors they were shown: one of each of many tenants."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bench.lib.watching import Login, Stream, log_in
from bench.testbed.waiting import until

_PRESENCE = re.compile(rb"<presence [^>]*>")
_FROM, _LEAVES = re.compile(rb" from='(visitor[^'/]*)"), b"type='unavailable'"
_LOGIN_SECONDS = 120.0
_SHOWN_SECONDS = 300.0
_BUFFER = 1 << 24


class Crowd:
    """The operators, from outside."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def forget(self) -> None:
        """From now on, nobody was shown anybody."""
        self._pipe.send(0)
        self._pipe.recv()

    def shown(self, count: int) -> float:
        """When so many visitors were shown to their operators (monotonic clock)."""
        self._pipe.send(count)
        at: float = self._pipe.recv()
        return at


@contextmanager
def crowd(logins: Sequence[Login]) -> Iterator[Crowd]:
    """These operators are online meanwhile."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_stand, args=(theirs, logins), daemon=True)
    process.start()
    # else nobody would notice that the other end is gone
    theirs.close()
    try:
        if not ours.poll(_LOGIN_SECONDS) or ours.recv() != "online":
            raise ConnectionError("the operators could not log in")
        yield Crowd(ours)
    finally:
        with suppress(OSError):
            ours.send(None)
        process.join(10)


def login_seconds(login: Login, visitors: int, timeout: float) -> float:
    """Log in, and out again when so many visitors were shown. Returns how long that took from the first presence sent.

    Raises:
        TimeoutError: they were not in time.
    """
    return asyncio.run(_login_seconds(login, visitors, timeout))


async def _login_seconds(login: Login, visitors: int, timeout: float) -> float:  # noqa: ASYNC109 - of its own process
    shown = _Shown()
    reader, writer = await asyncio.open_connection("127.0.0.1", login.port, limit=_BUFFER)
    began = time.monotonic()
    rest = shown.note(await log_in(reader, writer, login))
    async with asyncio.timeout(timeout):
        stream = Stream(reader, writer)
        while len(shown.visitors) < visitors:
            rest = shown.note(rest + await stream.read())
    took = time.monotonic() - began
    writer.write(b"</stream:stream>")
    with suppress(ConnectionError):
        await reader.read()
    writer.close()
    return took


class _Shown:
    def __init__(self) -> None:
        self.visitors: set[bytes] = set()
        self.last_at = 0.0

    def note(self, data: bytes) -> bytes:
        """Note the visitors in it. Returns what is not complete yet."""
        for presence in _PRESENCE.findall(data):
            if _LEAVES not in presence and (visitor := _FROM.search(presence)):
                self.visitors.add(visitor[1])
                self.last_at = time.monotonic()
        return data[data.rfind(b"<") :] if data.rfind(b"<") > data.rfind(b">") else b""


def _stand(pipe: Connection, logins: Sequence[Login]) -> None:
    asyncio.run(_work(pipe, logins))


async def _work(pipe: Connection, logins: Sequence[Login]) -> None:
    shown = _Shown()
    readers = [await _come(login, shown) for login in logins]
    await asyncio.to_thread(pipe.send, "online")
    while (count := await asyncio.to_thread(pipe.recv)) is not None:
        if count == 0:
            shown.visitors.clear()
        await _until_shown(shown, count)
        pipe.send(shown.last_at)
    for reader in readers:
        reader.cancel()


async def _until_shown(shown: _Shown, count: int) -> None:
    await until(lambda: len(shown.visitors) >= count, f"{count} visitors are shown", _SHOWN_SECONDS)


async def _come(login: Login, shown: _Shown) -> asyncio.Task[None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", login.port, limit=_BUFFER)
    begun = shown.note(await log_in(reader, writer, login))

    async def read() -> None:
        stream, rest = Stream(reader, writer), begun
        while True:
            rest = shown.note(rest + await stream.read())

    return asyncio.create_task(read())
