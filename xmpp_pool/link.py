"""One connection of the component (XEP-0114), to one node of ejabberd, kept up.

slixmpp neither reconnects by itself nor tells when a stanza reached the server, and components have no stream
management. So the link owns the reconnect loop, and a ping round trip proves that the node has handled everything that
was sent before it: a stream is handled in order.

Each connection bears the name of its pool process at ejabberd's bridge module, so that another process can have it cut
before it takes over; and what this process asks of somebody at that node is answered on this connection.
"""

import asyncio
from collections.abc import Callable
from xml.etree import ElementTree as ET

import structlog
from slixmpp import Iq
from slixmpp.exceptions import IqError, IqTimeout
from slixmpp.xmlstream.xmlstream import NotConnectedError

from config.settings import Settings
from tenants.core.backoff import delay
from xmpp_pool.stanzas import BRIDGE_NS
from xmpp_pool.stream import Stream, StreamLostError

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT = 10.0
_ANSWER_TIMEOUT = 15.0
_LONGEST_DELAY = 10.0
_SAME_NODE_PAUSE = 30.0
_PING = "{urn:xmpp:ping}ping"
_POOL = f"{{{BRIDGE_NS}}}pool"
_NOT_NOW = "internal-server-error"
"""What the bridge module answers when another node has not done its part."""

Address = tuple[str, int]


class _SameNodeError(Exception):
    """Another link leads to the same node."""


class Link:
    """One connection to one address.

    Args:
        settings: the settings.
        address: host and port of the node's listener for components.
        name: of the pool process.
        hear: registers handlers at a new stream.
        changed: called when the link has come up or gone down.
        is_taken: whether another link leads to that node.

    Attributes:
        stream: the stream that is up; None while there is none.
        node: the name of the node that the latest stream led to; empty before the first one.
    """

    def __init__(
        self,
        settings: Settings,
        address: Address,
        name: str,
        *,
        hear: Callable[["Link", Stream], None],
        changed: Callable[["Link"], None],
        is_taken: Callable[["Link", str], bool],
    ) -> None:
        self.stream: Stream | None = None
        self.node = ""
        self._settings = settings
        self._address = address
        self._name = name
        self._hear = hear
        self._changed = changed
        self._is_taken = is_taken

    async def run(self) -> None:
        """Connect, stay connected, and connect again, with growing jittered pauses; until cancelled."""
        failures = 0
        while True:
            stream = Stream(self._settings, *self._address)
            self._hear(self, stream)
            pause = 0.0
            try:
                await self._establish(stream)
                failures = 0
                log.info("component connected", component=self._settings.component_jid, node=self.node)
                self._changed(self)
                await stream.lost.wait()
                log.warning("component connection lost", node=self.node)
            except _SameNodeError:
                log.info("two addresses of one node", address=self._address)
                pause = _SAME_NODE_PAUSE
            except (TimeoutError, OSError, StreamLostError) as error:
                log.warning("component connection failed", error=f"{type(error).__name__}: {error}")
            finally:
                self.stream = None
                self._changed(self)
                stream.cancel_connection_attempt()
                stream.abort()
            failures += 1
            await asyncio.sleep(pause or delay(failures, first=0.3, longest=_LONGEST_DELAY))

    async def _establish(self, stream: Stream) -> None:
        started = asyncio.Event()
        stream.add_event_handler("session_start", lambda _: started.set())
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            stream.connect()
            await _first_of(started, stream.lost)
        if stream.lost.is_set():
            raise StreamLostError("refused")
        answer = await self._ask(stream, "pool", name=self._name)
        named = answer.xml.find(_POOL)
        node = (named.get("node") if named is not None else None) or "{}:{}".format(*self._address)
        if self._is_taken(self, node):
            raise _SameNodeError
        if stream.lost.is_set():
            raise StreamLostError
        self.node, self.stream = node, stream

    async def ask(self, element: str, **attributes: str) -> None:
        """Ask the bridge module for something, and return when it is done.

        Raises:
            StreamLostError: the stream ended, or it is not done.
        """
        if self.stream is None:
            raise StreamLostError
        await self._ask(self.stream, element, **attributes)

    async def _ask(self, stream: Stream, element: str, **attributes: str) -> Iq:
        iq: Iq = stream.make_iq_set(ito=self._settings.xmpp_host, ifrom=self._settings.component_jid)
        iq.append(ET.Element(f"{{{BRIDGE_NS}}}{element}", attributes))
        try:
            return await stream.ask(iq, _ANSWER_TIMEOUT)
        except IqError as error:
            if str(error.condition) == _NOT_NOW:
                log.warning("not done yet", asked=element, node=self.node)
            else:
                log.error("the bridge module refuses; is it loaded?", asked=element)  # noqa: TRY400 - no traceback worth having
                stream.abort()
            raise StreamLostError from error
        except (IqTimeout, NotConnectedError) as error:
            stream.abort()
            raise StreamLostError from error

    async def confirm(self, timeout: float = _ANSWER_TIMEOUT) -> None:  # noqa: ASYNC109 - the wait is slixmpp's own
        """Return when the node has handled everything sent so far (a ping round trip, XEP-0199).

        Raises:
            StreamLostError: the stream ended or did not answer.
        """
        stream = self.stream
        if stream is None:
            raise StreamLostError
        try:
            await self._ping_iq(stream, self._settings.xmpp_host, self._answer_to(), timeout)
        except IqError:
            return  # an error is an answer, too
        except (IqTimeout, NotConnectedError) as error:
            stream.abort()
            raise StreamLostError from error

    async def ping(self, instance_name: str, jid: str, timeout: float) -> str:  # noqa: ASYNC109 - as above
        """Ping a client of this node. Returns the condition of the error that came back; empty: it has answered.

        Raises:
            StreamLostError: there is no stream to ask on.
            TimeoutError: there was no answer in time.
        """
        stream = self.stream
        if stream is None:
            raise StreamLostError
        try:
            await self._ping_iq(stream, jid, self._answer_to(instance_name), timeout)
        except IqError as error:
            return str(error.condition)
        except IqTimeout:
            if self.stream is not stream:
                raise StreamLostError from None
            raise TimeoutError from None
        except NotConnectedError as error:
            raise StreamLostError from error
        return ""

    def _answer_to(self, instance_name: str = "") -> str:
        """An address whose answers come to this connection: ejabberd would pick any of the component's."""
        local = f"{instance_name}@" if instance_name else ""
        return f"{local}{self._settings.component_jid}/{self._name}"

    @staticmethod
    async def _ping_iq(stream: Stream, to: str, sender: str, timeout: float) -> None:  # noqa: ASYNC109 - see `ping`
        iq: Iq = stream.make_iq_get(ito=to, ifrom=sender)
        iq.append(ET.Element(_PING))
        await stream.ask(iq, timeout)

    def abort(self) -> None:
        """Drop the stream; a new one comes."""
        if self.stream is not None:
            self.stream.abort()


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()
