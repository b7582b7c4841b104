"""A visitor's browser that is logged in to ejabberd itself, over WebSocket (RFC 7395), as the page of LHC does it."""

import asyncio
import ssl
from contextlib import suppress
from typing import Self
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from bench.testbed.login import SASL, scram
from bench.testbed.waiting import DEADLINE, until

_CLIENT = "{jabber:client}"
_FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
_NICK = "http://jabber.org/protocol/nick"


class Browser:
    """One connection; keeps the stanzas that it was sent."""

    def __init__(
        self,
        url: str,
        username: str,
        host: str,
        password: str,
        resource: str = "browser",
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.jid = f"{username}@{host}/{resource}"
        self.stanzas: list[ET.Element] = []
        self._url, self._tls = url, tls
        self._username, self._host, self._password, self._resource = username, host, password, resource
        self._pings = 0
        self._connection: ClientConnection
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._connection = await connect(self._url, subprotocols=[Subprotocol("xmpp")], close_timeout=1, ssl=self._tls)
        self._reading = asyncio.create_task(self._read())
        await self._open()
        # what the script of LHC's page speaks (Strophe.js 1.2.2): SCRAM-SHA-1 before PLAIN
        outcome = await scram(self._ask, self._username, self._password)
        assert "<success" in outcome, outcome
        await self._open()
        await self._send(
            "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            f"<resource>{self._resource}</resource></bind></iq>"
        )
        await self._next(f"{_CLIENT}iq")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.leave()

    async def present(self, nick: str, status: str) -> None:
        """Say that the visitor is on a page."""
        await self._send(
            f"<presence xmlns='jabber:client'><status>{escape(status)}</status>"
            f"<nick xmlns='{_NICK}'>{escape(nick)}</nick></presence>"
        )

    async def write(self, to: str, body: str) -> None:
        """Write to a username of our host."""
        await self._send(
            f"<message xmlns='jabber:client' type='chat' to={quoteattr(f'{to}@{self._host}')}>"
            f"<body>{escape(body)}</body></message>"
        )

    async def send_raw(self, xml: str) -> None:
        """Send a stanza, whatever it is."""
        name, rest = xml[1:].split(" ", 1)
        await self._send(f"<{name} xmlns='jabber:client' {rest}")

    async def taken(self) -> None:
        """Wait until the server has taken all that was written: a stream is handled in order, so a ping shows it."""
        self._pings += 1
        wanted = f"taken-{self._pings}"
        await self.send_raw(f"<iq id='{wanted}' type='get' to='{self._host}'><ping xmlns='urn:xmpp:ping'/></iq>")
        await until(lambda: any(one.get("id") == wanted for one in self.stanzas), "the server has taken all")

    async def reads(self, body: str) -> None:
        """Wait for a message with that body."""
        await until(lambda: body in self.bodies(), f"the browser reads {body!r}")

    @property
    def is_closed(self) -> bool:
        """Whether the server has ended the connection."""
        return self._reading.done()

    def bodies(self) -> list[str]:
        """The messages so far."""
        found = (one.findtext(f"{_CLIENT}body") for one in self.stanzas if one.tag == f"{_CLIENT}message")
        return [body for body in found if body is not None]

    def errors(self) -> list[str]:
        """The conditions of the errors so far."""
        failed = (one.find(f"{_CLIENT}error") for one in self.stanzas if one.get("type") == "error")
        return [error[0].tag.rpartition("}")[2] for error in failed if error is not None]

    async def leave(self) -> None:
        """Close the page."""
        with suppress(ConnectionClosed):
            await self._send(f"<close xmlns='{_FRAMING}'/>")
        await self._connection.close()
        await self._reading

    def cut(self) -> None:
        """Drop the TCP connection without a word."""
        self._connection.transport.abort()

    async def _open(self) -> None:
        before = len(self.stanzas)
        await self._send(f"<open xmlns='{_FRAMING}' to='{self._host}' version='1.0'/>")
        await self._next("{http://etherx.jabber.org/streams}features", before)

    async def _next(self, tag: str, after: int = 0) -> None:
        await until(
            lambda: any(one.tag == tag for one in self.stanzas[after:]),
            f"{tag} comes; came {[one.tag for one in self.stanzas]}",
            DEADLINE,
        )

    async def _ask(self, xml: str) -> str:
        """What the server answers to a message of SASL."""
        before = len(self.stanzas)
        await self._send(xml)
        await until(lambda: len(self.stanzas) > before, "SASL goes on")
        return ET.tostring(self.stanzas[before], encoding="unicode", default_namespace=SASL)

    async def _send(self, xml: str) -> None:
        await self._connection.send(xml)

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self._connection:
                self.stanzas.append(ET.fromstring(text))
