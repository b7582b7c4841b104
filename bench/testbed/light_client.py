"""A client that does as little as it can, so that it can be many, or fast, or ill-behaved."""

import asyncio
import re
from contextlib import suppress
from typing import Any, Self

from bench.testbed.login import scram
from bench.testbed.waiting import DEADLINE

_SM = "urn:xmpp:sm:3"


class LightClient:
    """One connection, logged in. What comes is read and forgotten, unless it is waited for.

    Args:
        managed: with stream management (XEP-0198), of which it acknowledges nothing by itself.
    """

    def __init__(
        self,
        username: str,
        host: str,
        password: str,
        address: tuple[str, int],
        resource: str = "light",
        *,
        managed: bool = False,
    ) -> None:
        self.jid = f"{username}@{host}/{resource}"
        self._username, self._host, self._password, self._resource = username, host, password, resource
        self._address = address
        self._managed = managed
        self._came = b""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        await self._open()
        await self._log_in()
        await self._open()
        await self._ask(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            f"<resource>{self._resource}</resource></bind></iq>",
            "<jid>",
        )
        if self._managed:
            await self._ask(f"<enable xmlns='{_SM}' resume='true'/>", "<enabled")
        await self._ask("<presence/>", "<presence")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self._writer.transport.abort()

    def write(self, to: str, body: str) -> None:
        """Write a message to a JID, or several at once if it is repeated."""
        self.send(f"<message type='chat' to='{to}'><body>{body}</body></message>".encode())

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def drain(self) -> None:
        """Wait until the server has taken most of what was sent."""
        await self._writer.drain()

    def stop_reading(self) -> None:
        """Read nothing any more, and say nothing either."""
        transport: Any = self._writer.transport
        transport.pause_reading()

    async def ended(self) -> None:
        """Read again, and wait until the server has ended the connection."""
        transport: Any = self._writer.transport
        transport.resume_reading()
        async with asyncio.timeout(DEADLINE):
            with suppress(ConnectionError):
                await self.read_for_ever()

    async def came(self, wanted: str | re.Pattern[str]) -> str:
        """Wait for something in what comes; what came before it is forgotten."""
        pattern = re.compile(re.escape(wanted) if isinstance(wanted, str) else wanted)
        async with asyncio.timeout(DEADLINE):
            while (found := pattern.search(self._came.decode(errors="replace"))) is None:
                more = await self._reader.read(65536)
                if not more:
                    raise ConnectionResetError("the connection has ended")
                self._came += more
        text = self._came.decode(errors="replace")
        self._came = text[found.end() :].encode()
        return found[0]

    async def read_for_ever(self) -> None:
        """Read and forget, until the connection ends."""
        while await self._reader.read(65536):
            pass

    async def _open(self) -> None:
        await self._ask(
            f"<stream:stream to='{self._host}' xmlns='jabber:client' "
            "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>",
            "</stream:features>",
        )

    async def _log_in(self) -> None:
        outcome = await scram(self._sasl, self._username, self._password)
        assert "<success" in outcome, outcome

    async def _sasl(self, xml: str) -> str:
        return await self._ask(xml, re.compile("<(success|challenge|failure)[^>]*>[^<]*(</|<[^>]*/>)"))

    async def _ask(self, xml: str, wanted: str | re.Pattern[str]) -> str:
        self.send(xml.encode())
        return await self.came(wanted)
