"""Logging in by hand, byte by byte: over each kind of listener of clients, and saying what no client would say."""

import asyncio
import hashlib
import hmac
import re
import ssl
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

_SECONDS = 10.0
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_BIND = "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
_OUTCOME = re.compile(r"<(success|challenge|failure|stream:error)\b(?:[^>]*/>|.*?</\1>)", re.DOTALL)
_ENDED = "the connection has ended"


@dataclass(frozen=True, slots=True)
class Door:
    """Where clients come in: `tcp`, `starttls`, `tls` or `ws`, and its URL or port of this machine."""

    kind: str
    address: str

    @classmethod
    def all_of(cls, endpoints: dict[str, Any]) -> "list[Door]":
        """Each that a system has."""
        websocket = str(endpoints["websocket"])
        return [
            cls("tcp", str(endpoints["c2s_port"])),
            cls("starttls", str(endpoints["c2s_port"])),
            cls("tls", str(endpoints["c2s_tls_port"])),
            cls("ws", websocket),
            cls("ws", websocket.removesuffix("/ws") + "/websocket"),
        ]


async def scram(
    say: Callable[[str], Awaitable[str]],
    user: str,
    password: str,
    wanted: str = "",
    *,
    flag: str = "n",
) -> str:
    """Log in by SCRAM-SHA-1 (RFC 5802, 3 and 7), as a client does it.

    Args:
        say: sends an element, and gives what comes back.
        user: whose password it is.
        password: it.
        wanted: another account to be.
        flag: of channel binding.

    Returns:
        the server's last answer.
    """
    header = f"{flag},{f'a={wanted}' if wanted else ''},"
    bare = f"n={user},r={token_hex(8)}"
    answer = await say(element("auth", header + bare, " mechanism='SCRAM-SHA-1'"))
    if "<challenge" not in answer:
        return answer
    challenge = b64decode(answer.partition(">")[2].partition("<")[0]).decode()
    asked = dict(part.split("=", 1) for part in challenge.split(","))
    without = f"c={b64encode(header.encode()).decode()},r={asked['r']}"
    salted = hashlib.pbkdf2_hmac("sha1", password.encode(), b64decode(asked["s"]), int(asked["i"]))
    key = hmac.digest(salted, b"Client Key", "sha1")
    stored = hashlib.sha1(key, usedforsecurity=False).digest()
    signature = hmac.digest(stored, f"{bare},{challenge},{without}".encode(), "sha1")
    proof = b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
    return await say(element("response", f"{without},p={proof}"))


def element(name: str, payload: str, attributes: str = "") -> str:
    """An element of SASL with that payload."""
    return f"<{name} xmlns='{SASL}'{attributes}>{b64encode(payload.encode()).decode()}</{name}>"


class Login:
    """One connection that is about to log in; `forwarded_for`: as a web server hands it on from that address.

    Attributes:
        offered: the mechanisms that the server offers.
    """

    def __init__(self, door: Door, host: str, *, forwarded_for: str | None = None) -> None:
        self.offered: list[str] = []
        self._door, self._host = door, host
        self._headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
        self._came = ""
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._websocket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        if self._door.kind == "ws":
            self._websocket = await connect(
                self._door.address,
                subprotocols=[Subprotocol("xmpp")],
                additional_headers=self._headers,
                close_timeout=1,
            )
        else:
            tls = _unverified() if self._door.kind == "tls" else None
            name = self._host if tls else None
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", int(self._door.address), ssl=tls, server_hostname=name
            )
        features = await self._open()
        if self._door.kind == "starttls":
            await self._say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            await self._until(re.compile("<proceed[^>]*>"))
            await self._writer.start_tls(_unverified(), server_hostname=self._host)
            features = await self._open()
        self.offered = re.findall(r"<mechanism>([^<]*)</mechanism>", features)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._websocket is not None:
            self._websocket.transport.abort()  # the server takes a second for a good end
        else:
            self._writer.transport.abort()

    async def auth(self, mechanism: str, payload: str) -> str:
        """The outcome of a first message: `success`, `challenge`, or the condition of the failure."""
        return _condition(await self.ask(element("auth", payload, f" mechanism='{mechanism}'")))

    async def scram(self, user: str, password: str, wanted: str = "", *, flag: str = "n") -> str:
        """The outcome of the whole of SCRAM-SHA-1, with another account's name if one is given.

        The flag says of channel binding that the client has none (`n`), or would do it if it were offered (`y`).
        """
        return _condition(await scram(self.ask, user, password, wanted, flag=flag))

    @property
    def tls(self) -> str | None:
        """The version of TLS; None without."""
        secured = None if self._websocket else self._writer.get_extra_info("ssl_object")
        return secured.version() if secured else None

    async def bound(self) -> str:
        """Open a session after a success; returns its JID."""
        await self._open()
        await self._say(_BIND)
        return (await self._until(re.compile("<jid>([^<]*)</jid>")))[1]

    async def ended(self) -> bool:
        """Whether the server closes the connection and says nothing more of weight."""
        try:
            await self._until(re.compile("<success|<jid>"))
        except ConnectionResetError:
            return True
        return False

    async def ask(self, xml: str) -> str:
        """Send an element of SASL; returns the one that answers it."""
        await self._say(xml)
        return (await self._until(_OUTCOME))[0]

    async def _open(self) -> str:
        head = f"to='{self._host}' version='1.0'"
        if self._websocket is not None:
            await self._say(f"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' {head}/>")
        else:
            await self._say(
                f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' {head}>"
            )
        return (await self._until(re.compile("<stream:features.*?</stream:features>", re.DOTALL)))[0]

    async def _say(self, xml: str) -> None:
        if self._websocket is not None:
            await self._websocket.send(xml)
        else:
            self._writer.write(xml.encode())

    async def _until(self, wanted: re.Pattern[str]) -> re.Match[str]:
        async with asyncio.timeout(_SECONDS):
            while (found := wanted.search(self._came)) is None:
                self._came += await self._more()
        self._came = self._came[found.end() :]
        return found

    async def _more(self) -> str:
        if self._websocket is None:
            text = (await self._reader.read(65536)).decode()
            if not text:
                raise ConnectionResetError(_ENDED)
            return text
        try:
            return str(await self._websocket.recv())
        except ConnectionClosed:
            raise ConnectionResetError(_ENDED) from None


def _condition(outcome: str) -> str:
    kind = outcome[1:].partition(" ")[0].partition(">")[0]
    found = re.search(r"<failure[^>]*><([\w-]+)", outcome)
    return found[1] if found else kind


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the CAs, which take long to load
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
