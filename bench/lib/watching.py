"""An operator in a process of its own who reads as fast as bytes can be searched, and takes the time.

What is sent to it bears the moment of its call in the text (`http_load.STAMP`), by the one monotonic clock that all
processes of a machine have.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from bench.lib.http_load import STAMP
from bench.testbed.login import scram

_MARKED = re.compile(rb"&lt;at ([0-9.]{%d})&gt;" % len(STAMP))
_ASKED = re.compile(rb"<iq [^>]*type='get'[^>]*>")
_ID, _FROM = re.compile(rb" id='([^']*)'"), re.compile(rb" from='([^']*)'")
_ANSWERED = re.compile(rb"</(?:challenge|success|failure)>")
_LOGIN_SECONDS = 30.0
_READ = 1 << 16

MARK = f"<at {STAMP}>"
"""What a text is to hold; it arrives escaped."""


@dataclass(frozen=True, slots=True)
class Login:
    """An operator's account and its server."""

    username: str
    host: str
    password: str
    port: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What arrived: latencies in seconds, and the last arrival on the monotonic clock."""

    latencies: list[float]
    first_call: float
    last_arrival: float


class Watcher:
    """The operator who watches, from outside."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def expect(self, count: int, quiet_seconds: float = 5.0) -> None:
        """Begin to take the time of so many; to be given up when nothing comes for so long."""
        self._pipe.send((count, quiet_seconds))
        if self._pipe.recv() != "begun":
            raise ConnectionError("the operator who watches does not answer")

    def seen(self) -> Seen:
        """What arrived, when all did or nothing more comes."""
        seen: Seen = self._pipe.recv()
        return seen


@contextmanager
def watching(login: Login) -> Iterator[Watcher]:
    """An operator who is online meanwhile."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_watch, args=(theirs, login), daemon=True)
    process.start()
    # else nobody would notice that the other end is gone
    theirs.close()
    try:
        if not ours.poll(_LOGIN_SECONDS) or ours.recv() != "online":
            raise ConnectionError(f"{login.username} could not log in")
        yield Watcher(ours)
    finally:
        with suppress(OSError):
            ours.send(None)
        process.join(10)


def _watch(pipe: Connection, login: Login) -> None:
    asyncio.run(_work(pipe, login))


async def _work(pipe: Connection, login: Login) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", login.port, limit=1 << 24)
    await log_in(reader, writer, login)
    await asyncio.to_thread(pipe.send, "online")
    stream = Stream(reader, writer)
    while (order := await _order(pipe, stream)) is not None:
        pipe.send("begun")
        pipe.send(await _take_times(stream, *order))
    writer.close()


class Stream:
    """Reads, and answers what it is asked: an operator who does not is taken for gone, and kicked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        data = await self._reader.read(_READ)
        if not data:
            raise ConnectionResetError("the operator's connection was closed")
        for asked in _ASKED.findall(data):
            if (id_ := _ID.search(asked)) and (sender := _FROM.search(asked)):
                self._writer.write(b"<iq type='result' id='%s' to='%s'/>" % (id_[1], sender[1]))
        return data


async def _order(pipe: Connection, stream: Stream) -> tuple[int, float] | None:
    """The next order; what comes meanwhile is of no concern."""
    asked = asyncio.create_task(asyncio.to_thread(pipe.recv))
    while not asked.done():
        reading = asyncio.create_task(stream.read())
        await asyncio.wait((asked, reading), return_when=asyncio.FIRST_COMPLETED)
        reading.cancel()
        await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()
    order: tuple[int, float] | None = asked.result()
    return order


async def _take_times(stream: Stream, count: int, quiet_seconds: float) -> Seen:
    latencies: list[float] = []
    first_call, last_arrival = float("inf"), 0.0
    rest = b""
    while len(latencies) < count:
        try:
            async with asyncio.timeout(quiet_seconds):
                data = await stream.read()
        except TimeoutError:
            break
        now = time.monotonic()
        data = rest + data
        end = 0
        for found in _MARKED.finditer(data):
            at = float(found[1])
            latencies.append(now - at)
            first_call, last_arrival, end = min(first_call, at), now, found.end()
        rest = data[end:][-len(MARK) * 2 :]
    return Seen(latencies, first_call, last_arrival)


async def log_in(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, login: Login) -> bytes:
    """Log in and become available. Returns what came in answer to that so far."""
    head = (
        f"<stream:stream to='{login.host}' version='1.0' xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    steps = (
        (head, b"</stream:features>"),
        ("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>"),
        ("<presence/><iq type='get' id='here'><ping xmlns='urn:xmpp:ping'/></iq>", b"id='here'"),
    )
    came = b""

    async def say(sent: str) -> str:
        writer.write(sent.encode())
        answer = b""
        while _ANSWERED.search(answer) is None:
            if not (more := await reader.read(_READ)):
                raise ConnectionResetError(f"the login of {login.username} was ended")
            answer += more
        return answer.decode()

    async with asyncio.timeout(_LOGIN_SECONDS):
        writer.write(head.encode())
        await reader.readuntil(b"</stream:features>")
        outcome = await scram(say, login.username, login.password)
        if "<success" not in outcome:
            raise PermissionError(outcome)
        for sent, awaited in steps:
            writer.write(sent.encode())
            came = await reader.readuntil(awaited)
    return came
