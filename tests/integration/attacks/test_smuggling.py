"""Requests that mean one thing to a proxy and another to the API: refused, and nothing behind them is read."""

import pytest

from bench.testbed.system import System
from tests.world.raw import raw

BEHIND = b"GET /readyz HTTP/1.1\r\nHost: smuggled\r\n\r\n"
POST = b"POST /xmpp HTTP/1.1\r\nHost: x\r\n"
AMBIGUOUS = {
    "length and chunks": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nX",
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "two lengths in one": POST + b"Content-Length: 0, 44\r\n\r\n",
    "a signed length": POST + b"Content-Length: +0\r\n\r\n",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": POST + b"Content-Length: 0x0\r\n\r\n",
    "a length without end": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "identity, chunked": POST + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two encodings": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two encodings, the other way": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "an encoding that nobody knows": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an encoding with a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a quoted encoding": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks in HTTP/1.0": b"POST /xmpp HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 44\r\n\r\n",
    "a folded header": POST + b"X-Fold: a\r\n Content-Length: 44\r\n\r\n",
    "a folded first header": b"POST /xmpp HTTP/1.1\r\n Host: x\r\n\r\n",
    "a zero byte in a value": POST + b"X-Zero: a\0b\r\n\r\n",
    "a zero byte in a name": POST + b"X-Zero\0: a\r\n\r\n",
    "a bare line feed": b"POST /xmpp HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "a bare line feed in a header": POST + b"X-Feed: a\nContent-Length: 44\r\n\r\n",
    "a bare carriage return": POST + b"X-Return: a\rContent-Length: 44\r\n\r\n",
    "a chunk that is no number": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk with a sign": POST + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n",
    "a chunk in C": POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk without end": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk with a bare line feed": POST + b"Transfer-Encoding: chunked\r\n\r\n1\nx\n0\n\n",
    "a chunk that is longer than it says": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    "no host": b"POST /xmpp HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": POST + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "another version": b"POST /xmpp HTTP/3.7\r\nHost: x\r\n\r\n",
    "no version": b"POST /xmpp\r\n\r\n",
    "a method that nobody knows": b"SMUGGLE /xmpp HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100f4010000f00303"),
}


async def all_said(system: System, sent: bytes) -> bytes:
    async with raw(int(system.endpoints["api"].rpartition(":")[2])) as connection:
        await connection.send(sent)
        return await connection.rest()


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused(system: System, name: str) -> None:
    said = await all_said(system, AMBIGUOUS[name] + BEHIND)
    assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), said[:200]
    assert said.count(b"HTTP/1.1") == 1
    assert b"parts" not in said


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"TLS/1.0", b"nonsense"])
@pytest.mark.parametrize("path", [b"/", b"/v1/tenants", b"/console/", b"/ws"])
async def test_nobody_is_upgraded(system: System, protocol: bytes, path: bytes) -> None:
    """There is nothing to upgrade to; who asks is answered as if it had not, and nothing behind it is read."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: " + protocol
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    said = await all_said(system, b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b\r\n\r\n" % (path, upgrade, key) + BEHIND)
    assert said.count(b"HTTP/1.1") == 1
    assert not said.startswith(b"HTTP/1.1 101")
    assert b"upgrade" not in said.partition(b"\r\n\r\n")[0].lower()


async def test_a_trailer_is_no_header(system: System) -> None:
    """Else it would be one that a proxy never saw."""
    token = system.endpoints["panel_token"].encode()
    chunked = (
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n"
    )
    path = b"POST /v1/tenants/bulk/suspend HTTP/1.1\r\nHost: x\r\n"
    said = await all_said(system, path + chunked + b"Authorization: Bearer %b\r\n\r\n" % token)
    assert said.startswith(b"HTTP/1.1 4")
    assert b"HTTP/1.1 422" not in said


async def test_what_is_meant_well_arrives(system: System) -> None:
    """Also what is unusual: chunks, with an extension; HTTP/1.0 without a host; an address with a host in it."""
    for whole in (
        POST + b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n",
        b"POST /xmpp HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"POST http://x/xmpp HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"POST /xmpp HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    ):
        said = await all_said(system, whole)
        status = said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").split()[1]
        assert status in {b"200", b"401", b"403", b"422"}, said
