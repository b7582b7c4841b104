"""A web server that answers as real ones do on bad days: byte for byte, and then it closes, resets or hangs."""

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

Then = Literal["keep", "close", "reset", "hang"]


@dataclass(frozen=True, slots=True)
class Odd:
    """An answer, what comes behind it, and the status that it has (None: nobody can read one)."""

    raw: bytes
    then: Then = "keep"
    status: int | None = 200


_OK = b"HTTP/1.1 200 OK\r\n"
_TWO = b"Content-Length: 2\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_PAGE = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Hello</body></html>"
ANSWERS = {
    "control": Odd(_OK + _TWO + b"\r\nok"),
    "page": Odd(_OK + b"Content-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(_PAGE) + _PAGE),
    "truncated": Odd(_OK + b"Content-Length: 100\r\n\r\nshort", "close"),
    "chunk-unfinished": Odd(_OK + _CHUNKED + b"\r\n2\r\nok\r\n", "close"),
    "chunk-garbage": Odd(_OK + _CHUNKED + b"\r\nok", "close"),
    "big-header": Odd(_OK + b"Content-Security-Policy: " + b"https://cdn.example " * 500 + b"\r\n" + _TWO + b"\r\nok"),
    "many-headers": Odd(_OK + b"".join(b"X-H%d: x\r\n" % n for n in range(300)) + _TWO + b"\r\nok"),
    "length-and-chunks": Odd(_OK + _TWO + _CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"),
    "two-lengths": Odd(_OK + _TWO + _TWO + b"\r\nok"),
    "two-other-lengths": Odd(_OK + _TWO + b"Content-Length: 3\r\n\r\nok"),
    "length-no-number": Odd(_OK + b"Content-Length: two\r\n\r\nok"),
    "more-than-its-length": Odd(_OK + _TWO + b"\r\nok and more"),
    "two-answers": Odd(2 * (_OK + _TWO + b"\r\nok")),
    "no-reason": Odd(b"HTTP/1.1 200\r\n" + _TWO + b"\r\nok"),
    "latin-1-reason": Odd(b"HTTP/1.1 200 Tr\xe8s bien\r\n" + _TWO + b"\r\nok"),
    "bad-header-name": Odd(_OK + b"X Powered By: PHP\r\n" + _TWO + b"\r\nok"),
    "no-colon": Odd(_OK + b"Powered\r\n" + _TWO + b"\r\nok"),
    "zero-in-header": Odd(_OK + b"X-Site: a\0b\r\n" + _TWO + b"\r\nok"),
    "latin-1-header": Odd(_OK + b"X-Site: M\xfcller\r\n" + _TWO + b"\r\nok"),
    "folded-header": Odd(_OK + b"X-Site: one\r\n two\r\n" + _TWO + b"\r\nok"),
    "line-feeds-only": Odd(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    "http-1.0": Odd(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nok", "close"),
    "http-2": Odd(b"HTTP/2 200\r\n" + _TWO + b"\r\nok"),
    "says-gzip": Odd(_OK + b"Content-Encoding: gzip\r\n" + _TWO + b"\r\nok"),
    "interim": Odd(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + _OK + _TWO + b"\r\nok"
    ),
    "interim-bad-header": Odd(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + _OK + b"X Y: Z\r\n" + _TWO + b"\r\nok"
    ),
    "204-with-body": Odd(b"HTTP/1.1 204 No Content\r\n" + _TWO + b"\r\nok", status=204),
    "php-warning": Odd(_OK + b"Content-Type: text/html\r\n\r\n<br />\n<b>Warning</b>: Undefined key", "close"),
    "php-error": Odd(_OK + b"Content-Type: text/html\r\n\r\n<br />\n<b>Fatal error</b>: Uncaught Error", "close"),
    "reset-after-head": Odd(_OK + _TWO + b"\r\n", "reset"),
    "hangs-after-head": Odd(_OK + _TWO + b"\r\n", "hang"),
    "head-unfinished": Odd(_OK + _TWO, "close"),
    "head-reset": Odd(_OK + _TWO, "reset"),
    "head-hangs": Odd(_OK + _TWO, "hang"),
    "302": Odd(b"HTTP/1.1 302 Found\r\nLocation: https://chat.example/\r\nContent-Length: 0\r\n\r\n", status=302),
    "302-truncated": Odd(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9\r\n\r\n", "close", 302),
    "410": Odd(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", status=410),
    "404": Odd(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", status=404),
    "500-bad-header": Odd(b"HTTP/1.1 500 Oh\r\nX Y: Z\r\n\r\n", "close", 500),
    "503-truncated": Odd(b"HTTP/1.1 503 Busy\r\nRetry-After: 50\r\nContent-Length: 9\r\n\r\n", "close", 503),
    "nothing": Odd(b"", "close", None),
    "half-a-status": Odd(b"HTTP/1.1 20", "close", None),
    "only-interim": Odd(b"HTTP/1.1 100 Continue\r\n\r\n", "close", None),
    "another-protocol": Odd(b"220 mail.example ESMTP\r\n", "close", None),
}


@dataclass
class OddServer:
    """Each request says in the first part of its path, or as its message, which of `ANSWERS` it gets."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    """How often each was asked for."""
    paths: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after another."""
        then: Then = "keep"
        try:
            while then == "keep":
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)
                body = (await reader.readexactly(int(length[1]) if length else 0)).decode()
                path = head.split(" ")[1]
                said = re.match(r"body=([^&]*)", body)
                kind = (
                    unquote(said[1]) if said and unquote(said[1]) in ANSWERS else path.split("/")[1].partition("?")[0]
                )
                self.asked[kind] += 1
                self.paths.append(path)
                odd = ANSWERS.get(kind, ANSWERS["control"])
                writer.write(odd.raw)
                await writer.drain()
                then = odd.then
            if then == "hang":
                await reader.read()
            if then == "reset":
                # else what was just sent may be lost with the connection
                await asyncio.sleep(0.05)
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def odd_server() -> AsyncIterator[OddServer]:
    """Such a server, at an address of its own."""
    found = OddServer("")
    server = await asyncio.start_server(found.serve, "127.0.0.1")
    async with server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found
