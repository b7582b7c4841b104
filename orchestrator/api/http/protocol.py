"""Bounds for the connections of the API, which uvicorn leaves to its clients' good will.

uvicorn takes headers of any length, waits for the rest of a request for ever, and for who does not read an answer too.
Here a connection *waits* while its client owes a whole request: for so many seconds, and so many of one address and
altogether may. Beyond that the one that has waited longest is closed; so who sends a request at once, as LHC does, is
served however many others wait.

Who is refused here is told by a bare answer and counted in `/metrics`. There is no log line for it: a hostile client
could fill the disk with them.
"""

import asyncio
import heapq
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from orchestrator.api.http.addresses import counted_as
from orchestrator.api.http.metrics import count_refusal

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_HEAD = 32 * 1024
"""Bytes of a request line and headers."""
MAX_HEADERS = 100
MAX_REQUEST = 2 * 1024 * 1024
"""Bytes of any request as it comes over the wire, whatever its resource takes and says itself."""
MAX_PIPELINED = 20
"""Requests of one connection that wait for the answer to the one before."""
_SLICE = 16 * 1024
"""Bytes that are parsed at once, so that a head without an end is found out early."""
_SWEEP_SECONDS = 1.0
_ADDRESSES = 1024
"""Of which we remember what they count as."""


class Connections:
    """All connections of this process, and by the address that they come from."""

    def __init__(
        self,
        *,
        seconds: float = 30,
        per_address: int = 1000,
        most: int = 4000,
        unbounded: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:
        self._seconds = seconds
        self._per_address = per_address
        self._most = most
        self._unbounded = unbounded
        self._all: set[BoundedProtocol] = set()
        self._of_address: dict[str, set[BoundedProtocol]] = {}
        self._is_swept = False
        self._address = lru_cache(_ADDRESSES)(self._find_address)

    def add(self, protocol: "BoundedProtocol") -> None:
        """A new one; when there are too many now, the ones that have waited longest are closed."""
        self._all.add(protocol)
        _bound(self._all, self._most)
        protocol.address = self._address(protocol.client[0]) if protocol.client else None
        if protocol.address is not None:
            own = self._of_address.setdefault(protocol.address, set())
            own.add(protocol)
            _bound(own, self._per_address)
        if not self._is_swept:
            self._is_swept = True
            protocol.loop.call_later(_SWEEP_SECONDS, self._sweep, protocol.loop)

    def remove(self, protocol: "BoundedProtocol") -> None:
        """It is gone."""
        self._all.discard(protocol)
        if protocol.address is not None:
            own = self._of_address[protocol.address]
            own.discard(protocol)
            if not own:
                del self._of_address[protocol.address]

    def _find_address(self, host: str) -> str | None:
        """What counts as one address; None: it speaks for others, and how many it has is not bounded."""
        try:
            address = ip_address(host)
        except ValueError:
            return host
        if any(address in network for network in self._unbounded):
            return None
        return counted_as(host)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End those that have waited for too long, for a request or for their answer to be read."""
        longest_ago = loop.time() - self._seconds
        for protocol in list(self._all):
            if protocol.waiting_since is not None and protocol.waiting_since < longest_ago:
                protocol.refuse(HTTPStatus.REQUEST_TIMEOUT)
            protocol.abort_if_unread(longest_ago)
        self._is_swept = bool(self._all)
        if self._is_swept:
            loop.call_later(_SWEEP_SECONDS, self._sweep, loop)


def _bound(protocols: "set[BoundedProtocol]", most: int) -> None:
    """Close those that have waited longest, when more than so many wait; some at once, as it takes a look at all."""
    if len(protocols) <= most:
        return
    waiting = [(one.waiting_since, id(one), one) for one in protocols if one.waiting_since is not None]
    if len(waiting) > most:
        for _, _, protocol in heapq.nsmallest(len(waiting) - most + most // 20, waiting):
            protocol.refuse(HTTPStatus.TOO_MANY_REQUESTS)


class _RefusedError(Exception):
    """A request that is not to be answered; raised in the parser, which hands it on as its own error."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status)
        self.status = status


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, bounded; and strict where a proxy before us may understand a request in another way."""

    everyone: ClassVar[Connections] = Connections()
    """Set anew, with the settings' bounds, before anything is served."""

    # beside uvicorn's own attributes, whose dictionary is at the size up to which instances share their keys
    __slots__ = ("_bytes", "_in_head", "_in_request", "_is_deaf", "_unread_since", "address", "waiting_since")

    # what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come, and is to say what for."""
        super().connection_made(cast("asyncio.Transport", transport))
        self.address: str | None = None
        """What is counted; None: nothing is."""
        self.waiting_since: float | None = self.loop.time()
        """When the client began to owe a whole request; None: it is our turn."""
        self._in_head = self._in_request = False
        self._bytes = 0
        """Of the request that is not whole yet."""
        self._is_deaf = False
        """Nothing more that the client sends is looked at."""
        self._unread_since: float | None = None
        """When what was answered began to lie unread, or the connection to close."""
        self.everyone.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self.everyone.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it in small pieces, and stop when it is enough."""
        self._unset_keepalive_if_required()
        if len(data) <= _SLICE and not self._is_deaf:
            self._parse(data)
            return
        for start in range(0, len(data), _SLICE):
            if self._is_deaf or self.transport.is_closing():
                return
            self._parse(data[start : start + _SLICE])

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read."""
        self._unread_since = None
        super().resume_writing()

    # what the parser tells

    def on_message_begin(self) -> None:
        """The first byte of a request has come."""
        super().on_message_begin()
        self._in_head = self._in_request = True
        self._bytes = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS)

    def on_headers_complete(self) -> None:
        """Refuse what is too much, or means one thing here and another to a proxy before us."""
        self._in_head = False
        size, hosts, codings = len(self.url), 0, []
        for name, value in self.headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                codings.append(value.lower())
        if size > MAX_HEAD or len(self.headers) > MAX_HEADERS:
            raise _RefusedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if hosts != 1 and (hosts or self.parser.get_http_version() != "1.0"):
            raise _RefusedError(HTTPStatus.BAD_REQUEST)
        if codings and (codings != [b"chunked"] or self.parser.get_http_version() == "1.0"):
            raise _RefusedError(HTTPStatus.NOT_IMPLEMENTED)
        super().on_headers_complete()
        # what follows the body (a trailer) is no header: the application may have read those already
        self.headers = []

    def on_message_complete(self) -> None:
        """The request is whole: now it is our turn."""
        self._in_request = False
        super().on_message_complete()
        if not self.cycle.response_complete:
            self.waiting_since = None

    def on_response_complete(self) -> None:
        """It is answered: the client's turn, unless the next request is there already."""
        super().on_response_complete()
        if self.cycle.response_complete or self.cycle.more_body:
            self.waiting_since = self.loop.time()

    # what follows

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # There is nothing to upgrade to. The request is answered as if it had not asked, and is the last one:
            # what follows it may be of another protocol.
            self._is_deaf = True
            self.cycle.keep_alive = False
            return
        except httptools.HttpParserError as error:
            cause = error.__context__ or error.__cause__
            self.refuse(cause.status if isinstance(cause, _RefusedError) else HTTPStatus.BAD_REQUEST)
            return
        if self._in_request:
            self._bytes += len(data)
            if self._in_head and self._bytes > MAX_HEAD + _SLICE:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif self._bytes > MAX_REQUEST:
                self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def refuse(self, status: HTTPStatus) -> None:
        """Close the connection; say why, unless that would stand in the middle of another answer."""
        self.waiting_since = None
        is_asked = self._in_request or status is HTTPStatus.BAD_REQUEST
        if is_asked:
            count_refusal(status)
        if is_asked and not self._is_answering():
            text = status.phrase.encode()
            head = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(text)
            self.transport.write(STATUS_LINE[status] + head + text)
        self._is_deaf = True
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        is_of_this_request = not self._in_head and not self.pipeline
        return cycle.response_started or not is_of_this_request

    def abort_if_unread(self, longest_ago: float) -> None:
        """End it when nothing of what was answered has been read for so long; closing alone waits for that."""
        if self._unread_since is None:
            self._unread_since = self.loop.time() if self.transport.is_closing() else None
        elif self._unread_since < longest_ago:
            count_refusal(HTTPStatus.REQUEST_TIMEOUT)
            self.transport.abort()
