"""The connections to ejabberd: an external component (XEP-0114) that speaks for all visitors.

There is a link to each node of ejabberd's cluster, which may have one. Each node speaks of its own matters over its own
link: who is logged in there, what they write. What this process says to anybody it writes to one of them, the *lead*,
for order needs one stream. When the lead is lost another link leads, after the former one was cut at ejabberd.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, cast
from xml.etree import ElementTree as ET

import structlog
from slixmpp import Iq, Presence
from slixmpp.xmlstream import StanzaBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from config.settings import Settings
from tenants.core.backoff import delay
from tenants.core.errors import DomainError
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.dead_nodes import DeadNodes
from xmpp_pool.link import Address, Link
from xmpp_pool.node_addresses import node_addresses
from xmpp_pool.stanzas import BRIDGE_NS, COMPONENT_NS, FORWARD_NS
from xmpp_pool.stream import Stream, StreamLostError

log = structlog.get_logger(__name__)

_LONGEST_DELAY = 10.0
_PROBE_TIMEOUT = 3.0
_SHOW, _SHOWN = f"{{{BRIDGE_NS}}}show", f"{{{BRIDGE_NS}}}shown"
_DOWN = f"{{{BRIDGE_NS}}}down"
_GONE = frozenset({"recipient-unavailable", "remote-server-not-found"})
_OF_CLIENT_OR_SERVER = "service-unavailable"

_ERROR_TYPES = {"bad-request": "modify", "forbidden": "auth", "not-acceptable": "modify", "resource-constraint": "wait"}
"""What an operator's client is told that it can do (RFC 6120, 8.3.3); of other conditions: nothing."""


class Reply(Protocol):
    """Answers the bridge module."""

    def __call__(self, condition: str | None, text: str = "", *, shown: str = "") -> None:
        """Answer that the message is stored or, with an error condition (RFC 6120, 8.3.3), why it is not.

        `shown`: what a browser of the visitor shows of a message that is stored.
        """


_WRITE_AT_ONCE = 64 * 1024
"""Characters at most that are gathered for one write. Fewer are written after each turn of the event loop."""


class Gateway:
    """The component's links, kept up for ever.

    Callbacks, all called in the event loop:
        on_established: awaited each time a link leads, or another comes up; the first time before `wait_established`
            returns.
        on_presence: an operator's presence, as the bridge module of that node reports it.
        on_message: a diverted message, and the function that answers it. As a signal, it comes `from` the host that
            it is of.
        on_signal: a chat state or a receipt.
        on_show_asked: an operator's connection (full JID) is to be shown a visitor (username) once more.
        on_node_down: a node has died, and with it all connections that it had.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        on_established: Callable[[], Awaitable[None]],
        on_presence: Callable[[Presence, str], None],
        on_message: Callable[[ET.Element, Reply], None],
        on_signal: Callable[[ET.Element], None],
        on_show_asked: Callable[[str, str], None],
        on_node_down: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._name = name
        self._on_established = on_established
        self._on_presence = on_presence
        self._on_message = on_message
        self._on_signal = on_signal
        self._on_show_asked = on_show_asked
        self._on_node_down = on_node_down
        self._established = asyncio.Event()
        self._changed = asyncio.Event()
        self._links: dict[Address, Link] = {}
        self._lead: Link | None = None
        self._stream: Stream | None = None
        """The lead's."""
        self._known: set[Stream] = set()
        """The streams since whose beginning ejabberd was asked who is online."""
        self._stream_number = 0
        self._dead = DeadNodes()
        self._probes: set[asyncio.Task[None]] = set()
        self._unwritten: list[str] = []
        self._unwritten_length = 0

    @property
    def established(self) -> bool:
        """Whether a stream is up, and it is known which operators are online."""
        return self._established.is_set()

    @property
    def stream_number(self) -> int:
        """Grows with each new lead, and when a node dies: of what was sent before, ejabberd may have lost some."""
        return self._stream_number

    def is_down(self, node: str) -> bool:
        """Whether the node has died, and is not back yet."""
        return node in self._dead

    async def wait_established(self) -> None:
        """Wait until a stream is up."""
        await self._established.wait()

    async def run(self) -> None:
        """Connect to all nodes, and stay connected; until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_lead(), name="lead")
            tasks.create_task(self._find_nodes(tasks), name="nodes")

    async def _find_nodes(self, tasks: asyncio.TaskGroup) -> None:
        """A link to each address; one that is no node's any more is given up when its stream has ended."""
        running: dict[Address, asyncio.Task[None]] = {}
        async for addresses in node_addresses(self._settings.component_addresses):
            for address in addresses - running.keys():
                link = Link(
                    self._settings,
                    address,
                    self._name,
                    hear=self._hear,
                    changed=self._link_changed,
                    is_taken=self._is_taken,
                )
                self._links[address] = link
                running[address] = tasks.create_task(link.run(), name="link")
            for address in running.keys() - addresses:
                if self._links[address].stream is None:
                    running.pop(address).cancel()
                    del self._links[address]

    def _is_taken(self, link: Link, node: str) -> bool:
        return any(other.node == node for other in self._up() if other is not link)

    def _up(self) -> list[Link]:
        return [link for link in self._links.values() if link.stream is not None]

    def _link_changed(self, link: Link) -> None:
        if link is self._lead and link.stream is not self._stream:
            self._established.clear()
            self._stream = None
            self._unwritten.clear()
            self._unwritten_length = 0
        if link.stream is not None and link.stream not in self._known:
            self._dead.is_back(link.node)
        self._changed.set()

    async def _keep_lead(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._take_stock()
            except (StreamLostError, DomainError, *DATABASE_AWAY) as error:
                failures += 1
                log.warning("not established yet", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(delay(failures, first=0.3, longest=_LONGEST_DELAY))
                self._changed.set()
            else:
                failures = 0

    async def _take_stock(self) -> None:
        """Have a link lead, and know who is online at each node."""
        up = self._up()
        self._judge_nodes({link.node for link in up})
        if not up:
            return
        if self._stream is None:
            await self._lead_by(up[0])
        streams = {link.stream for link in up if link.stream is not None}
        if not self.established or streams - self._known:
            await self._on_established()
            self._known = streams
        if self._stream is not None:
            self._established.set()

    async def _lead_by(self, link: Link) -> None:
        """Write to that link from now on, when nothing that was sent to the former one can be handled any more."""
        former = self._lead.node if self._lead is not None else ""
        if former not in {"", link.node}:
            await link.ask("fence", name=self._name, node=former)
        self._lead, self._stream = link, link.stream
        self._stream_number += 1

    def _judge_nodes(self, linked: set[str]) -> None:
        judged = self._dead.judge(linked, self._lead.node if self._lead is not None else "")
        if judged.again:
            self._stream_number += 1
        for node in judged.died:
            log.warning("a node of ejabberd is down", node=node)
            self._on_node_down(node)

    def send(self, xml: str) -> None:
        """Write a stanza to the stream, after those before it. Stanzas of one turn of the event loop go in one piece.

        Raises:
            StreamLostError: there is no stream.
        """
        if self._stream is None or self._stream.transport is None:
            raise StreamLostError
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write)
        self._unwritten.append(xml)
        self._unwritten_length += len(xml)
        if self._unwritten_length >= _WRITE_AT_ONCE:
            self._write()

    async def room(self) -> None:
        """Wait until the server has taken enough of what was sent. Callers ask between two pieces of work.

        Raises:
            StreamLostError: the stream ended.
        """
        stream = self._stream
        if stream is None:
            raise StreamLostError
        await stream.room.wait()
        if stream is not self._stream or stream.transport is None:
            raise StreamLostError

    def _write(self) -> None:
        """Write what was gathered. IQs do not pass here: slixmpp writes them itself, and they need no order."""
        if not self._unwritten or self._stream is None or self._stream.transport is None:
            return
        cast(asyncio.WriteTransport, self._stream.transport).write("".join(self._unwritten).encode())
        self._unwritten.clear()
        self._unwritten_length = 0

    async def confirm(self) -> None:
        """Return when the server has handled everything sent so far on this stream (a ping round trip, XEP-0199).

        Raises:
            StreamLostError: the stream ended or did not answer.
        """
        await self._written().confirm()

    async def sync(self) -> None:
        """Return when each node has what was handled so far, and has forced it to disk, offline messages above all.

        Raises:
            StreamLostError: the stream ended, or a node did not answer.
        """
        await self._written().ask("sync")

    async def fence(self, name: str) -> None:
        """Cut the connections of the pool process of that name; on return, nothing it has sent can be handled any more.

        Raises:
            StreamLostError: the stream ended, or a node did not answer.
        """
        await self._written().ask("fence", name=name)

    def _written(self) -> Link:
        """The lead, when all is written to it."""
        if self._lead is None or self._stream is None:
            raise StreamLostError
        self._write()
        return self._lead

    async def ping(self, instance_name: str, jid: str, node: str, timeout: float) -> bool | None:  # noqa: ASYNC109 - see `Link`
        """Whether the client, at that node, answered a ping in time; that it does not know pings is an answer, too.

        Returns:
            None: the client or the server has said so, which says the same of a client that is gone.

        Raises:
            StreamLostError: there is no stream to ask on.
        """
        link = next((link for link in self._up() if link.node == node), None)
        if link is None:
            raise StreamLostError
        try:
            condition = await link.ping(instance_name, jid, timeout)
        except TimeoutError:
            return False
        return None if condition == _OF_CLIENT_OR_SERVER else condition not in _GONE

    def _hear(self, link: Link, stream: Stream) -> None:
        """Register what is done with what a node says on a new stream."""
        forwarded = f"{{{FORWARD_NS}}}forwarded"
        for name, path, handle in (
            ("presence", "presence", self._presence),
            ("message", f"iq/{forwarded}", self._message),
            ("signal", f"message/{forwarded}", self._signal),
            ("show", f"message/{_SHOW}", self._show_asked),
            ("down", f"message/{_DOWN}", self._told_of_down),
        ):

            def heard(stanza: StanzaBase, handle: Callable[[Link, StanzaBase], None] = handle) -> None:
                handle(link, stanza)

            matcher = MatchXPath(f"{{{COMPONENT_NS}}}{path}")
            stream.register_handler(Callback(f"bridge {name}", matcher, heard))

    @staticmethod
    def _is_of_server(stanza: StanzaBase) -> bool:
        """Any client may write to the component; only a host itself speaks for the bridge module.

        Which one, `from` says: whoever reads what is said of a tenant compares it with the tenant's host.
        """
        return bool(stanza["from"].domain) and str(stanza["from"]) == stanza["from"].domain

    def _presence(self, link: Link, presence: StanzaBase) -> None:
        self._on_presence(cast(Presence, presence), link.node)

    def _signal(self, _link: Link, stanza: StanzaBase) -> None:
        if self._is_of_server(stanza):
            self._on_signal(stanza.xml)

    def _show_asked(self, _link: Link, stanza: StanzaBase) -> None:
        wanted = stanza.xml.find(_SHOW)
        if self._is_of_server(stanza) and wanted is not None:
            self._on_show_asked(wanted.get("operator", ""), wanted.get("visitor", ""))

    def _told_of_down(self, link: Link, stanza: StanzaBase) -> None:
        told = stanza.xml.find(_DOWN)
        if str(stanza["from"]) != self._settings.xmpp_host or told is None:
            return
        node = told.get("node", "")
        self._dead.tell(link.node, node)
        for its in self._up():
            if its.node == node:  # a machine that has lost its power says no farewell
                probe = asyncio.ensure_future(self._probe(its))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
        self._changed.set()

    @staticmethod
    async def _probe(link: Link) -> None:
        try:
            await link.confirm(_PROBE_TIMEOUT)
        except StreamLostError:
            return  # it has noticed
        log.warning("a node is said to be down, and answers", node=link.node)

    def _message(self, link: Link, stanza: StanzaBase) -> None:
        iq = cast(Iq, stanza)

        def reply(condition: str | None, text: str = "", *, shown: str = "") -> None:
            if link.stream is not iq.stream:
                return  # asked on a stream that is gone; the bridge module asks again
            answer: Iq = iq.reply(clear=True)
            if condition is not None:
                answer["type"] = "error"
                answer["error"]["condition"] = condition
                answer["error"]["type"] = _ERROR_TYPES.get(condition, "cancel")
                if text:
                    answer["error"]["text"] = text
            elif shown:
                element = ET.Element(_SHOWN)
                element.text = shown
                answer.append(element)
            answer.send()

        # Any client may send an IQ to the component; only the server itself speaks for the bridge module.
        if not self._is_of_server(iq) or iq["type"] != "set":
            log.warning("forwarded message from a stranger refused", sender=str(iq["from"]))
            reply("forbidden")
            return
        self._on_message(iq.xml, reply)

    def abort(self) -> None:
        """Drop the lead's stream. After the next one has begun, ejabberd is asked anew who is online."""
        if self._lead is not None:
            self._lead.abort()
