"""The pool's side of the bridge, as a bare component (XEP-0114) without a pool behind it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast
from xml.etree import ElementTree as ET

from slixmpp import ComponentXMPP, Iq, Presence
from slixmpp.xmlstream import StanzaBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from bench.testbed.chat_server import ChatServer
from bench.testbed.waiting import DEADLINE, until
from orchestrator.launcher.local import LISTEN_IP
from xmpp_pool.stanzas import (
    CLIENT_NS,
    COMPONENT_NS,
    FORWARD_NS,
    ForwardedPresence,
    Signal,
    read_forwarded,
    read_signal,
)

BRIDGE_NS = "urn:lhc:bridge:0"
STORED = "stored"
"""The answer that takes a message. Other answers are error conditions, or None for no answer."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A message that the bridge handed over; or a coming or going in a room, whose `type` is `joined` or `left`.

    `for_browser`: the bridge asks what the visitor's browser shows of it.
    """

    id: str
    visitor: str
    operator: str
    body: str
    type: str
    error: str
    for_browser: bool = False


class Component:
    """One connection of the component; keeps what it was told, and answers as it is told to.

    Args:
        answer: called with each message; returns the answer.
        seconds: how long each answer takes.
    """

    def __init__(
        self, server: ChatServer, answer: Callable[[Handed], str | None] = lambda _: STORED, *, seconds: float = 0
    ) -> None:
        self.handed: list[Handed] = []
        self.stored: list[Handed] = []
        self.presences: list[tuple[str, str]] = []
        self.signals: list[tuple[str, str, Signal]] = []
        """Each with whom it came from and the address it came to."""
        self._answer = answer
        self._seconds = seconds
        self.ended = asyncio.Event()
        self._unfit = False
        self._server = server
        self.jid = f"lhc.{server.host}"
        self._stream = stream = ComponentXMPP(self.jid, server.secret, LISTEN_IP, server.ports["component"])
        stream.enable_direct_tls = False
        stream.remove_handler("Presence")
        self._started = asyncio.Event()
        stream.add_event_handler("session_start", lambda _: self._started.set())
        stream.add_event_handler("disconnected", self._ended)
        stream.register_handler(Callback("presence", MatchXPath(f"{{{COMPONENT_NS}}}presence"), self._presence))
        forwarded = MatchXPath(f"{{{COMPONENT_NS}}}iq/{{{FORWARD_NS}}}forwarded")
        stream.register_handler(Callback("message", forwarded, self._message))
        signal = MatchXPath(f"{{{COMPONENT_NS}}}message/{{{FORWARD_NS}}}forwarded")
        stream.register_handler(Callback("signal", signal, self._signal))

    async def __aenter__(self) -> Self:
        self._stream.connect()
        await until(self._started.is_set, "the component is connected", 60)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        """End the connection when the answers have reached the server; at once when it cannot or the test failed."""
        if kind is None and not self._unfit:
            await self.ask("sync")
        self.cut()

    def cut(self) -> None:
        """Drop the TCP connection without a word."""
        self._unfit = True
        self._stream.abort()

    def hang(self) -> None:
        """Read nothing any more, as a process that is stopped."""
        self._unfit = True
        transport: Any = self._stream.transport
        transport.pause_reading()

    def send(self, xml: str) -> None:
        """Write a stanza."""
        self._stream.send_raw(xml)

    def say(self, visitor: str, operator: str, body: str, once: str | None = None) -> None:
        """Write as a visitor to an operator; with an id, as a message that may be sent twice."""
        marker = f"<once xmlns='{BRIDGE_NS}' id='{once}'/>" if once else ""
        host = self._server.host
        self.send(
            f"<message type='chat' id='{body}' from='{visitor}@{host}/lhc' to='{operator}@{host}'>"
            f"<body>{body}</body>{marker}</message>"
        )

    async def ping(self, to: str, name: str) -> None:
        """Ping an address as the process of that name, and wait for the answer."""
        iq: Iq = self._stream.make_iq_get(ito=to, ifrom=f"{self.jid}/{name}")
        iq.append(ET.Element("{urn:xmpp:ping}ping"))
        await iq.send(timeout=DEADLINE)

    async def ask(self, request: str, name: str | None = None) -> None:
        """Send one of the bridge's own IQs.

        Raises:
            slixmpp.exceptions.IqError: the bridge refuses.
        """
        iq: Iq = self._stream.make_iq_set(ito=self._server.host, ifrom=self.jid)
        iq.append(ET.Element(f"{{{BRIDGE_NS}}}{request}", {"name": name} if name else {}))
        await iq.send(timeout=DEADLINE)

    def bodies(self, visitor: str) -> list[str]:
        """The messages to the visitor that were stored, in order; a repeat counts once."""
        return list(dict.fromkeys(handed.body for handed in self.stored if handed.visitor == visitor))

    def _ended(self, _reason: object) -> None:
        self._unfit = True
        self.ended.set()

    def _presence(self, stanza: StanzaBase) -> None:
        presence = cast(Presence, stanza)
        self.presences.append((presence["from"].local, presence["type"]))

    def _signal(self, stanza: StanzaBase) -> None:
        self.signals.append((str(stanza["from"]), str(stanza["to"]), read_signal(stanza.xml)))

    def _message(self, stanza: StanzaBase) -> None:
        iq = cast(Iq, stanza)
        handed = _read(iq.xml, self.jid)
        self.handed.append(handed)
        answer = self._answer(handed)
        if answer is not None:
            asyncio.get_running_loop().call_later(self._seconds, self._reply, iq, handed, answer)

    def _reply(self, iq: Iq, handed: Handed, answer: str) -> None:
        reply: Iq = iq.reply(clear=True)
        if answer == STORED:
            self.stored.append(handed)
            if handed.for_browser:
                shown = ET.Element(f"{{{BRIDGE_NS}}}shown")
                shown.text = f"shown: {handed.body}"
                reply.append(shown)
        else:
            reply["type"] = "error"
            reply["error"]["condition"] = answer
        reply.send()


def _read(iq: ET.Element, component_jid: str) -> Handed:
    forwarded = read_forwarded(iq, component_jid)
    if isinstance(forwarded, ForwardedPresence):
        kind, body = "joined" if forwarded.available else "left", ""
        return Handed(forwarded.stanza_id, _local(forwarded.receiver), _local(forwarded.sender), body, kind, "")
    message = iq.find(f"{{{FORWARD_NS}}}forwarded/{{{CLIENT_NS}}}message")
    assert message is not None
    error = message.find(f"{{{CLIENT_NS}}}error")
    return Handed(
        forwarded.stanza_id,
        _local(forwarded.receiver),
        _local(forwarded.sender),
        forwarded.body,
        message.get("type", "normal"),
        "" if error is None else error[0].tag.rpartition("}")[2],
        forwarded.for_browser,
    )


def _local(jid: str) -> str:
    return jid.partition("@")[0]
