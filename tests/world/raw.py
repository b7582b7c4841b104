"""HTTP as bytes, for what no client would send."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Raw:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> bool:
        """Whether it could be sent: the other end has not closed the connection."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            return False
        return True

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await self._reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
        return int(head.split()[1]), body

    async def rest(self) -> bytes:
        """All that comes until the other end closes the connection."""
        received = b""
        try:
            while data := await self._reader.read(65_536):
                received += data
        except OSError:
            pass
        return received

    async def is_open(self) -> bool:
        """Whether the other end has neither closed it nor said anything."""
        try:
            async with asyncio.timeout(0.01):
                await self._reader.read(1)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def raw(
    port: int, *, source: str = "127.0.0.1", receive_buffer: int | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Raw]:
    """A connection to that port of the loopback address, from an address of it."""
    own = socket.socket()
    if receive_buffer is not None:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    own.setblocking(False)
    own.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", port))
    # a limit below which the stream's own buffer is not read ahead
    reader, writer = await asyncio.open_connection(
        sock=own, limit=receive_buffer or 65_536, ssl=tls, server_hostname="localhost" if tls else None
    )
    connection = Raw(reader, writer)
    try:
        yield connection
    finally:
        connection.close()
