"""A bare component stream (XEP-0114) that writes as much as the server takes: the limit of every gateway."""

import asyncio
import hashlib
from types import TracebackType
from typing import Self

_TIMEOUT = 30.0


class Component:
    """One connection of a component, at a server on the loopback address."""

    def __init__(self, jid: str, secret: str, port: int, host: str) -> None:
        self._jid = jid
        self._secret = secret
        self._port = port
        self._host = host
        self._pings = 0

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(_TIMEOUT):
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
            self.write(
                f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' "
                f"to='{self._jid}'>"
            )
            head = (await self._reader.readuntil(b">") + await self._reader.readuntil(b">")).decode()
            stream_id = head.partition(" id='")[2].partition("'")[0]
            digest = hashlib.sha1((stream_id + self._secret).encode(), usedforsecurity=False).hexdigest()
            self.write(f"<handshake>{digest}</handshake>")
            await self._reader.readuntil(b"<handshake/>")
            # else ejabberd gives the answers to any of the component's connections
            self.write(
                f"<iq type='set' id='name' to='{self._host}' from='{self._jid}'>"
                "<pool xmlns='urn:lhc:bridge:0' name='bare'/></iq>"
            )
            await self._reader.readuntil(b"name")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, xml: str) -> None:
        """Write a stanza."""
        self._writer.write(xml.encode())

    async def taken(self) -> None:
        """Wait until the server has handled all that was written: a stream is handled in order, so a ping shows it."""
        self._pings += 1
        name = f"bare-{self._pings}"
        self.write(
            f"<iq type='get' id='{name}' to='{self._host}' from='{self._jid}/bare'><ping xmlns='urn:xmpp:ping'/></iq>"
        )
        async with asyncio.timeout(_TIMEOUT):
            await self._writer.drain()
            await self._reader.readuntil(name.encode())
