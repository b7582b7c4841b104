"""The connection to ejabberd: an external component (XEP-0114) that speaks for all visitors.

slixmpp neither reconnects by itself nor tells when a stanza reached the server, and components have no stream
management. So the gateway owns the reconnect loop, and `confirm` proves with a ping round trip that the server has
handled everything that was sent before it: a stream is handled in order.

Each connection bears the name of its pool process at ejabberd's bridge module, so that another process can have it cut
(`fence`) before it takes over.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, cast
from xml.etree import ElementTree as ET

import structlog
from slixmpp import Iq, Presence
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream import StanzaBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath
from slixmpp.xmlstream.xmlstream import NotConnectedError

from config.settings import Settings
from tenants.core.backoff import delay
from tenants.core.errors import DomainError
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.stanzas import BRIDGE_NS, COMPONENT_NS, FORWARD_NS
from xmpp_pool.stream import Stream, StreamLostError

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT = 10.0
_CONFIRM_TIMEOUT = 15.0
_LONGEST_DELAY = 10.0
_PING = "{urn:xmpp:ping}ping"
_SHOW = f"{{{BRIDGE_NS}}}show"


class Reply(Protocol):
    """Answers the bridge module."""

    def __call__(self, condition: str | None, text: str = "") -> None:
        """Answer that the message is stored or, with an error condition (RFC 6120, 8.3.3), why it is not."""


_WRITE_AT_ONCE = 64 * 1024
"""Characters at most that are gathered for one write. Fewer are written after each turn of the event loop."""


class Gateway:
    """One component connection, kept up for ever.

    Callbacks, all called in the event loop:
        on_established: awaited each time a stream is up, before `wait_established` returns.
        on_presence: an operator's presence, as the bridge module reports it.
        on_message: a diverted message, and the function that answers it.
        on_signal: a chat state or a receipt.
        on_show_asked: an operator's connection (full JID) is to be shown a visitor (username) once more.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        *,
        on_established: Callable[[], Awaitable[None]],
        on_presence: Callable[[Presence], None],
        on_message: Callable[[ET.Element, Reply], None],
        on_signal: Callable[[ET.Element], None],
        on_show_asked: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._name = name
        self._on_established = on_established
        self._on_presence = on_presence
        self._on_message = on_message
        self._on_signal = on_signal
        self._on_show_asked = on_show_asked
        self._established = asyncio.Event()
        self._stream: Stream | None = None
        self._stream_number = 0
        self._unwritten: list[str] = []
        self._unwritten_length = 0

    @property
    def established(self) -> bool:
        """Whether the stream is up, and it is known which operators are online."""
        return self._established.is_set()

    @property
    def stream_number(self) -> int:
        """Grows with each new stream; on a new one, ejabberd may know nothing of what was sent on the one before."""
        return self._stream_number

    async def wait_established(self) -> None:
        """Wait until a stream is up."""
        await self._established.wait()

    async def run(self) -> None:
        """Connect, stay connected, and connect again, with growing jittered pauses; until cancelled."""
        failures = 0
        while True:
            stream = self._make_stream()
            try:
                await self._establish(stream)
                failures = 0
                log.info("component connected", component=self._settings.component_jid)
                await stream.lost.wait()
                log.warning("component connection lost")
            except (TimeoutError, OSError, StreamLostError, DomainError, *DATABASE_AWAY) as error:
                log.warning("component connection failed", error=f"{type(error).__name__}: {error}")
            finally:
                self._established.clear()
                self._stream = None
                self._unwritten.clear()
                self._unwritten_length = 0
                stream.cancel_connection_attempt()
                stream.abort()
            failures += 1
            await asyncio.sleep(delay(failures, first=0.3, longest=_LONGEST_DELAY))

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

    async def confirm(self) -> None:
        """Return when the server has handled everything sent so far on this stream (a ping round trip, XEP-0199).

        Raises:
            StreamLostError: the stream ended or did not answer.
        """
        stream = self._stream
        if stream is None:
            raise StreamLostError
        self._write()
        try:
            await self._ping_iq(stream, self._settings.xmpp_host, self._answer_to(), _CONFIRM_TIMEOUT)
        except IqError:
            return  # an error is an answer, too
        except (IqTimeout, NotConnectedError) as error:
            stream.abort()
            raise StreamLostError from error

    def _write(self) -> None:
        """Write what was gathered. IQs do not pass here: slixmpp writes them itself, and they need no order."""
        if not self._unwritten or self._stream is None or self._stream.transport is None:
            return
        cast(asyncio.WriteTransport, self._stream.transport).write("".join(self._unwritten).encode())
        self._unwritten.clear()
        self._unwritten_length = 0

    async def sync(self) -> None:
        """Return when ejabberd has forced to disk what it has handled so far, offline messages above all.

        Raises:
            StreamLostError: the stream ended, or ejabberd did not answer.
        """
        if self._stream is None:
            raise StreamLostError
        await self._ask_bridge(self._stream, "sync")

    async def fence(self, name: str) -> None:
        """Cut the connections of the pool process of that name; on return, nothing it has sent can be handled any more.

        Raises:
            StreamLostError: the stream ended, or ejabberd did not answer.
        """
        if self._stream is None:
            raise StreamLostError
        await self._ask_bridge(self._stream, "fence", name)

    async def _ask_bridge(self, stream: Stream, element: str, name: str | None = None) -> None:
        self._write()
        iq: Iq = stream.make_iq_set(ito=self._settings.xmpp_host, ifrom=self._settings.component_jid)
        iq.append(ET.Element(f"{{{BRIDGE_NS}}}{element}", {"name": name} if name else {}))
        try:
            await stream.ask(iq, _CONFIRM_TIMEOUT)
        except (IqError, IqTimeout, NotConnectedError) as error:
            if isinstance(error, IqError):
                log.error("the bridge module refuses; is it loaded?", asked=element)  # noqa: TRY400 - no traceback worth having
            stream.abort()
            raise StreamLostError from error

    async def ping(self, instance_name: str, jid: str, timeout: float) -> bool:  # noqa: ASYNC109 - the wait is slixmpp's own
        """Whether the client answered a ping in time; that it does not know pings is an answer, too.

        Raises:
            StreamLostError: there is no stream to ask on.
        """
        if self._stream is None:
            raise StreamLostError
        stream = self._stream
        try:
            await self._ping_iq(stream, jid, self._answer_to(instance_name), timeout)
        except IqError as error:
            # the server answers so when the client has just gone
            return str(error.condition) not in {"recipient-unavailable", "remote-server-not-found"}
        except IqTimeout:
            if self._stream is not stream:
                raise StreamLostError from None
            return False
        except NotConnectedError as error:
            raise StreamLostError from error
        return True

    def _answer_to(self, instance_name: str = "") -> str:
        """An address whose answers come to this connection: ejabberd would pick any of the component's."""
        local = f"{instance_name}@" if instance_name else ""
        return f"{local}{self._settings.component_jid}/{self._name}"

    @staticmethod
    async def _ping_iq(stream: Stream, to: str, sender: str, timeout: float) -> None:  # noqa: ASYNC109 - see `ping`
        iq: Iq = stream.make_iq_get(ito=to, ifrom=sender)
        iq.append(ET.Element(_PING))
        await stream.ask(iq, timeout)

    def _make_stream(self) -> Stream:
        stream = Stream(self._settings)
        stream.register_handler(Callback("bridge presence", MatchXPath(f"{{{COMPONENT_NS}}}presence"), self._presence))
        forwarded = MatchXPath(f"{{{COMPONENT_NS}}}iq/{{{FORWARD_NS}}}forwarded")
        stream.register_handler(Callback("bridge message", forwarded, self._message))
        signal = MatchXPath(f"{{{COMPONENT_NS}}}message/{{{FORWARD_NS}}}forwarded")
        stream.register_handler(Callback("bridge signal", signal, self._signal))
        show = MatchXPath(f"{{{COMPONENT_NS}}}message/{_SHOW}")
        stream.register_handler(Callback("bridge asks to show", show, self._show_asked))
        return stream

    async def _establish(self, stream: Stream) -> None:
        started = asyncio.Event()
        stream.add_event_handler("session_start", lambda _: started.set())
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            stream.connect()
            await _first_of(started, stream.lost)
        if stream.lost.is_set():
            raise StreamLostError("refused")
        await self._ask_bridge(stream, "pool", self._name)
        self._stream = stream
        self._stream_number += 1
        await self._on_established()
        if not stream.lost.is_set():
            self._established.set()

    def _presence(self, presence: StanzaBase) -> None:
        self._on_presence(cast(Presence, presence))

    def _signal(self, stanza: StanzaBase) -> None:
        # any client may write to the component; only the server itself speaks for the bridge module
        if str(stanza["from"]) == self._settings.xmpp_host:
            self._on_signal(stanza.xml)

    def _show_asked(self, stanza: StanzaBase) -> None:
        wanted = stanza.xml.find(_SHOW)
        if str(stanza["from"]) == self._settings.xmpp_host and wanted is not None:
            self._on_show_asked(wanted.get("operator", ""), wanted.get("visitor", ""))

    def _message(self, stanza: StanzaBase) -> None:
        iq = cast(Iq, stanza)

        def reply(condition: str | None, text: str = "") -> None:
            if self._stream is not iq.stream:
                return  # asked on a stream that is gone; the bridge module asks again
            answer: Iq = iq.reply(clear=True)
            if condition is not None:
                answer["type"] = "error"
                answer["error"]["condition"] = condition
                if text:
                    answer["error"]["text"] = text
            answer.send()

        # Any client may send an IQ to the component; only the server itself speaks for the bridge module.
        if str(iq["from"]) != self._settings.xmpp_host or iq["type"] != "set":
            log.warning("forwarded message from a stranger refused", sender=str(iq["from"]))
            reply("forbidden")
            return
        self._on_message(iq.xml, reply)

    def abort(self) -> None:
        """Drop the stream. After the reconnect that follows, ejabberd is asked anew who is online."""
        if self._stream is not None:
            self._stream.abort()


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()
