"""An XMPP client that sends exactly what it is told: what an attacker writes, ordinary clients do not."""

import asyncio
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self
from xml.sax.saxutils import quoteattr

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.world.waiting import DEADLINE

_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_END = re.compile(r"</stream:stream>|<close\b|</stream:error>")
_FAILURE = re.compile(r"<failure\b.*?</failure>", re.DOTALL)
_ANSWER = re.compile(r"<(?:success|challenge)\b[^>]*?(?:/>|>([^<]*)</(?:success|challenge)>)")


class _Transport(Protocol):
    async def open(self, host: str) -> None: ...
    async def send(self, text: str) -> None: ...
    async def receive(self) -> str: ...
    async def close(self) -> None: ...


class _Tcp:
    """RFC 6120 without TLS."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def open(self, host: str) -> None:
        if not hasattr(self, "_writer"):
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        names = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
        await self.send(f"<?xml version='1.0'?><stream:stream to={quoteattr(host)} version='1.0' {names}>")

    async def send(self, text: str) -> None:
        self._writer.write(text.encode())
        await self._writer.drain()

    async def receive(self) -> str:
        return (await self._reader.read(65536)).decode()

    async def close(self) -> None:
        self._writer.close()


class _WebSocket:
    """RFC 7395, as browsers of visitors come."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._socket: ClientConnection | None = None

    async def open(self, host: str) -> None:
        if self._socket is None:
            self._socket = await connect(self._url, subprotocols=["xmpp"], additional_headers=self._headers)  # type: ignore[list-item] # a plain name
        await self.send(f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to={quoteattr(host)} version='1.0'/>")

    async def send(self, text: str) -> None:
        assert self._socket is not None
        await self._socket.send(text)

    async def receive(self) -> str:
        assert self._socket is not None
        try:
            return str(await self._socket.recv())
        except ConnectionClosed:
            return ""

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()


class RawClient:
    """One connection. `seen` is all that came since the last question."""

    def __init__(self, transport: _Transport, host: str) -> None:
        self._transport = transport
        self._host = host
        self.seen = ""
        self.closed = False

    @classmethod
    def tcp(cls, host: str, address: tuple[str, int]) -> Self:
        return cls(_Tcp(address), host)

    @classmethod
    def websocket(cls, host: str, url: str, **headers: str) -> Self:
        return cls(_WebSocket(url, {name.replace("_", "-"): value for name, value in headers.items()}), host)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def open(self) -> None:
        """Begin a stream, the first or the next."""
        await self._transport.open(self._host)
        await self.until(re.compile(r"</stream:features>|</features>"))

    async def send(self, text: str) -> None:
        self.seen = ""
        try:
            await self._transport.send(text)
        except (ConnectionError, ConnectionClosed):
            self.closed = True

    async def until(self, wanted: re.Pattern[str]) -> re.Match[str] | None:
        """Wait for what is wanted, or for the end of the stream (None)."""
        async with asyncio.timeout(DEADLINE):
            while not (found := wanted.search(self.seen)) and not self.closed:
                try:
                    more = await self._transport.receive()
                except ConnectionError:
                    more = ""
                self.seen += more
                self.closed = not more
        return found

    async def auth(self, mechanism: str, text: str) -> str:
        """One step of SASL; what the server says, as its inner text, or the element of a failure."""
        first = b64encode(text.encode()).decode()
        await self.send(f"<auth xmlns='{_SASL}' mechanism={quoteattr(mechanism)}>{first}</auth>")
        return await self._answer()

    async def respond(self, text: str) -> str:
        """A further step of SASL."""
        await self.send(f"<response xmlns='{_SASL}'>{b64encode(text.encode()).decode()}</response>")
        return await self._answer()

    async def _answer(self) -> str:
        found = await self.until(re.compile(f"{_FAILURE.pattern}|{_ANSWER.pattern}|{_END.pattern}", re.DOTALL))
        if found is None:
            return "closed"
        if found[1] is not None:
            return b64decode(found[1]).decode()
        return found[0]

    async def plain(self, username: str, password: str, authzid: str = "") -> str:
        """A login with PLAIN; `success` is in the answer, or `failure` with the error."""
        return await self.auth("PLAIN", f"{authzid}\0{username}\0{password}")

    async def challenge(self, username: str) -> tuple[str, str]:
        """The first half of SCRAM-SHA-1: what the client said, and what the server answered."""
        first = f"n={username},r={secrets.token_hex(8)}"
        return first, await self.auth("SCRAM-SHA-1", f"n,,{first}")

    async def scram(self, username: str, password: str) -> str:
        """A login with SCRAM-SHA-1; `v=` begins the answer of a success."""
        first, challenge = await self.challenge(username)
        parts = dict(part.split("=", 1) for part in challenge.split(",") if "=" in part)
        if not parts.keys() >= {"r", "s", "i"}:
            return challenge
        last = f"c=biws,r={parts['r']}"
        salted = hashlib.pbkdf2_hmac("sha1", password.encode(), b64decode(parts["s"]), int(parts["i"]))
        key = hmac.digest(salted, b"Client Key", "sha1")
        signature = hmac.digest(hashlib.sha1(key).digest(), f"{first},{challenge},{last}".encode(), "sha1")  # noqa: S324 - RFC 5802
        proof = bytes(one ^ other for one, other in zip(key, signature, strict=True))
        return await self.respond(f"{last},p={b64encode(proof).decode()}")

    async def bind(self) -> str:
        """A session of whoever is logged in; its full JID, or what was said instead."""
        await self.open()
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
        await self.send(f"<iq type='set' id='b' xmlns='jabber:client'>{bind}</iq>")
        found = await self.until(re.compile(r"<jid>([^<]+)</jid>|</iq>"))
        return (found[1] if found else None) or self.seen
