"""Requests that never end: neither memory nor time of others goes into them."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.beside import beside
from tests.world.ports import free_port
from tests.world.raw import raw

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"\r\n"
PER_ADDRESS = 20
PROXY, FLOODER, NEIGHBOUR = "127.0.0.9", "127.0.0.3", "127.0.0.4"
MB = 1024 * 1024


@dataclass
class Api:
    """An API process of its own, with small bounds."""

    port: int
    pid: int

    def memory(self) -> float:
        """What it holds, in MB."""
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(kilobytes) / 1024

    async def serves(self, source: str = NEIGHBOUR) -> None:
        """Somebody else is answered."""
        async with raw(self.port, source=source) as connection:
            await connection.send(WHOLE)
            assert (await connection.answer())[0] == 200


@pytest.fixture(scope="module")
async def api(system: System) -> AsyncIterator[Api]:
    port = free_port()
    bounds = {
        "ORCHESTRATOR_REQUEST_SECONDS": "2",
        "ORCHESTRATOR_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "ORCHESTRATOR_TRUSTED_PROXIES": f"{PROXY}/32",
    }
    async with beside(system, "api", port, "/healthz", bounds) as process:
        yield Api(port, process.pid)


POST = b"POST /xmpp HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
DRIPS = {
    "head": (HEAD, b"X-More: of it\r\n"),
    "nothing but empty lines": (b"", b"\r\n"),
    "body": (POST + b"Content-Length: 9999\r\n\r\n", b"x"),
    "chunks": (CHUNKED, b"1\r\nx\r\n"),
    "the second request": (WHOLE + HEAD, b"X-More: of it\r\n"),
    "idle": (WHOLE, b""),
    "silence": (b"", b""),
}


async def test_who_drips_is_not_waited_for(api: Api) -> None:
    async with asyncio.timeout(20):
        said = await asyncio.gather(*(drip(api, begin, more) for begin, more in DRIPS.values()))
    told = {name: answer.count(b"HTTP/1.1 408") for name, answer in zip(DRIPS, said, strict=True)}
    half = {"head", "body", "chunks", "the second request"}
    assert told == {name: name in half for name in DRIPS}
    assert {name for name, answer in zip(DRIPS, said, strict=True) if b" 200 OK" in answer} == {
        "the second request",
        "idle",
    }
    await api.serves()


async def drip(api: Api, begin: bytes, more: bytes) -> bytes:
    """What is said until the connection is closed, to who sends a little from time to time."""
    async with raw(api.port) as connection:
        await connection.send(begin)
        listening = asyncio.create_task(connection.rest())
        while not listening.done():
            await connection.send(more)
            await asyncio.wait([listening], timeout=0.05)
        return listening.result()


@pytest.mark.parametrize(
    ("begin", "more", "status"),
    [
        pytest.param(HEAD + b"X-Long: ", b"x" * 65_536, 431, id="one-header"),
        pytest.param(HEAD, b"X-Many: of them\r\n" * 4096, 431, id="many-headers"),
        pytest.param(b"GET /", b"x" * 65_536, 431, id="address"),
        pytest.param(CHUNKED + b"0\r\nX-Trailer: ", b"x" * 65_536, 413, id="trailer"),
        pytest.param(CHUNKED + b"1;", b"x" * 65_536, 413, id="chunk-extension"),
    ],
)
async def test_150_MB_are_not_read(api: Api, begin: bytes, more: bytes, status: int) -> None:  # noqa: N802 - megabytes
    before = api.memory()
    async with raw(api.port) as connection:
        taken = 0
        await connection.send(begin)
        while taken < 150 * MB and await connection.send(more):
            taken += len(more)
        assert taken < 30 * MB  # of which most lies in the sockets' buffers
        said = await connection.rest()
        # its end may have come before what it said, as more was sent than it read
        assert said.startswith(b"HTTP/1.1 %d" % status) or not said
    assert api.memory() - before < 20
    await api.serves()


@pytest.mark.parametrize(
    "path", ["/xmpp", "/rpc", "/console/login", "/t/nobody/xmpp-send-message", "/v1/tenants/bulk/suspend"]
)
async def test_a_body_without_an_end_is_not_read(api: Api, path: str) -> None:
    before = api.memory()
    chunk = b"10000\r\n" + b"[" * 65_536 + b"\r\n"
    async with raw(api.port) as connection:
        kind = b"x-www-form-urlencoded" if path.startswith("/console") else b"json"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        await connection.send(head.encode() + b"Content-Type: application/" + kind + b"\r\n\r\n")
        taken = 0
        while taken < 150 * MB and await connection.send(chunk):
            taken += len(chunk)
        assert taken < 30 * MB
    assert api.memory() - before < 20
    await api.serves()


async def test_an_address_may_have_only_so_many_half_requests(api: Api) -> None:
    async with AsyncExitStack() as stack:
        half = [await stack.enter_async_context(raw(api.port, source=FLOODER)) for _ in range(4 * PER_ADDRESS)]
        for connection in half:
            await connection.send(HEAD)

        async def still_open() -> int:
            return sum([await connection.is_open() for connection in half])

        async def is_bounded() -> bool:
            await asyncio.gather(*(connection.send(b"X: y\r\n") for connection in half))
            return 0 < await still_open() <= PER_ADDRESS

        # looked at before the time for a request is over
        await until_async(is_bounded, "the oldest are closed", 2)
        await api.serves(NEIGHBOUR)
        await api.serves(FLOODER)  # who sends a whole request is served: others of that address wait longer
        async with raw(api.port) as connection:
            await connection.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await connection.answer())[0] == 401


async def test_a_proxy_may_have_as_many_as_it_likes(api: Api) -> None:
    async with AsyncExitStack() as stack:
        half = [await stack.enter_async_context(raw(api.port, source=PROXY)) for _ in range(4 * PER_ADDRESS)]
        for connection in half:
            await connection.send(HEAD)
        await api.serves()
        answers = [await connection.answer() for connection in half if await connection.send(b"\r\n")]
        assert [status for status, _ in answers] == [200] * len(half)


async def test_requests_that_are_sent_ahead_are_bounded(api: Api) -> None:
    before = api.memory()
    async with asyncio.timeout(20), raw(api.port) as connection:
        await connection.send(WHOLE * 20_000)
        said = await connection.rest()
        assert said.count(b"HTTP/1.1") < 1000
    assert api.memory() - before < 20
    # as many as a client may send
    async with raw(api.port) as connection:
        await connection.send(WHOLE * 10)
        assert [(await connection.answer())[0] for _ in range(10)] == [200] * 10


async def test_who_does_not_read_the_answer_is_not_waited_for(api: Api) -> None:
    async with raw(api.port, receive_buffer=4096) as connection:
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        await connection.send(request * 20)

        async def is_ended() -> bool:
            return not await connection.send(b"\r\n")

        await until_async(is_ended, "the connection is ended", 20)
    await api.serves()


async def test_what_was_refused_is_counted(api: Api, system: System) -> None:
    bearer = {"Authorization": f"Bearer {system.endpoints['panel_token']}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api.port}", headers=bearer) as http:
        seen = (await http.get("/metrics")).text
    refused = dict(re.findall(r'lhc_connections_refused_total\{status="(\d+)"\} (\d+)', seen))
    assert {"408", "413", "429", "431"} <= set(refused)
