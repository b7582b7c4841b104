"""Reads commands from RabbitMQ: a thread owns the connection, the event loop owns what was read.

A reader that dies, or closes the shard's channel, gives back all that it had in hand at once, and in order; the single
active consumer sees to it that nobody reads on before that.

The two sides share no state. They tell each other what happens, through one queue in each direction:

    event loop (`AmqpReader`) -- orders: read, give back, acknowledge ------------> thread (`_Consumer`)
    event loop (`AmqpReader`) <-- news: connected, opened, delivered, given back -- thread (`_Consumer`)

The thread takes orders between two reads from the socket. The event loop takes news in the order in which the thread
told them (`call_soon_threadsafe`).
"""

import asyncio
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import structlog
from kombu import Connection, Consumer, Message

from config.broker import CONNECT_TIMEOUT, TRANSPORT_OPTIONS
from tenants.core.backoff import delay
from tenants.shards.amqp import queue_of
from tenants.shards.interface import Delivery, decode_or_none

log = structlog.get_logger(__name__)

_PREFETCH = 1000
"""Commands of one shard in this process's hands at most; the broker keeps the rest."""
_MAX_BATCH = 500
_HEARTBEAT = 4
"""Seconds. A reader that is frozen, or cut off without a word, loses its shards at the broker after twice this."""
_DRAIN_SECONDS = 0.05
"""How late an order may be carried out; nobody waits for an acknowledgement or a new shard."""
_DROP_SECONDS = 3.0
_QUIET_SECONDS = 0.2
_ALIVE_SECONDS = 5.0
_JOIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Read:
    """Order: read this shard's queue from now on."""

    shard: int


@dataclass(frozen=True, slots=True)
class _GiveBack:
    """Order: read these shards' queues no longer, and say so in news that bear the same `done`."""

    shards: frozenset[int]
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Acknowledge:
    """Order: tell the broker that it may forget these."""

    deliveries: list[Delivery]


@dataclass(frozen=True, slots=True)
class _Connected:
    """News: there is a connection now, or there is none any more."""

    is_connected: bool


@dataclass(frozen=True, slots=True)
class _Opened:
    """News: from now on the shard's commands come from the channel of this number."""

    shard: int
    channel_number: int


@dataclass(frozen=True, slots=True)
class _GivenBack:
    """News: the broker has back what was not acknowledged."""

    done: asyncio.Future[None]


_Order = _Read | _GiveBack | _Acknowledge
_News = _Connected | _Opened | _GivenBack | Delivery


class AmqpReader:
    """Reads the queues of the shards it was given; see `CommandReader`. All but `_tell` runs in the event loop."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._wanted: set[int] = set()
        self._channel_numbers: dict[int, int] = {}
        """Of each shard. What an earlier channel has delivered is void."""
        self._is_connected = False
        self._orders: SimpleQueue[_Order] = SimpleQueue()
        """Bounded by the number of shards and of commands in hand."""
        self._loop = asyncio.get_running_loop()
        self._consumer = _Consumer(broker_url, shard_count, self._orders, self._tell)

    def start(self) -> None:
        self._consumer.start()

    def add(self, shard: int) -> None:
        self._wanted.add(shard)
        self._orders.put(_Read(shard))

    async def drop(self, shards: Iterable[int]) -> None:
        dropped = frozenset(shards)
        self._wanted -= dropped
        for shard in dropped:
            self._channel_numbers.pop(shard, None)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._orders.put(_GiveBack(dropped, done))
        if not self._is_connected:
            return  # the broker has them back already
        try:
            async with asyncio.timeout(_DROP_SECONDS):
                await done
        except TimeoutError:
            log.warning("the broker did not take the shards back in time", count=len(dropped))

    async def next_batch(self) -> list[Delivery]:
        if not self._ready:
            self._arrived.clear()
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        batch = [self._ready.popleft() for _ in range(min(len(self._ready), _MAX_BATCH))]
        return [delivery for delivery in batch if self._is_valid(delivery)]

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        done = [delivery for delivery in deliveries if self._is_valid(delivery)]
        if done:
            self._orders.put(_Acknowledge(done))

    def alive(self) -> bool:
        return time.monotonic() - self._consumer.heard_at < _ALIVE_SECONDS

    async def close(self) -> None:
        await asyncio.to_thread(self._consumer.stop)

    def _tell(self, news: _News) -> None:
        """Hand news over to the event loop. This one function is called in the thread."""
        self._loop.call_soon_threadsafe(self._note, news)

    def _note(self, news: _News) -> None:
        match news:
            case Delivery():
                self._ready.append(news)
                self._arrived.set()
            case _Opened() if news.shard in self._wanted:
                self._channel_numbers[news.shard] = news.channel_number
            case _Connected():
                self._is_connected = news.is_connected
            case _GivenBack() if not news.done.done():
                news.done.set_result(None)

    def _is_valid(self, delivery: Delivery) -> bool:
        """Whether it is still in our hands. If not, the broker gives it out again: to a later channel, or to others."""
        _, channel_number = delivery.tag
        return bool(channel_number == self._channel_numbers.get(delivery.shard))


@dataclass(frozen=True, slots=True)
class _Channel:
    """The channel of one shard. Numbers are never used twice."""

    number: int
    channel: Any


class _Consumer:
    """The connection to the broker. Everything here but `start` and `stop` runs in the thread.

    Attributes:
        heard_at: when the broker was heard of last (`time.monotonic`). The event loop reads it as it is.
    """

    def __init__(
        self, broker_url: str, shard_count: int, orders: SimpleQueue[_Order], tell: Callable[[_News], object]
    ) -> None:
        self.heard_at = -_ALIVE_SECONDS
        self._broker_url = broker_url
        self._orders = orders
        self._tell = tell
        self._undeclared = set(range(shard_count))
        self._shards: set[int] = set()
        """To be read, also on the next connection."""
        self._channels: dict[int, _Channel] = {}
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shard-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wait for it."""
        self._stopping.set()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with Connection(
                    self._broker_url,
                    transport_options=TRANSPORT_OPTIONS,
                    heartbeat=_HEARTBEAT,
                    connect_timeout=CONNECT_TIMEOUT,
                ) as connection:
                    connection.ensure_connection(max_retries=1, timeout=CONNECT_TIMEOUT)
                    self._tell(_Connected(True))
                    failures = 0
                    self._read(connection)
            except Exception as error:  # noqa: BLE001 - transports raise all sorts; whatever it was, connect again
                failures += 1
                log.warning("shard queues not read", error=f"{type(error).__name__}: {error}"[:300])
                self._stopping.wait(delay(failures, first=0.3, longest=5))
            finally:
                self._channels.clear()
                self._tell(_Connected(False))

    def _read(self, connection: Connection) -> None:
        self._declare_all(connection)
        self._obey(connection)
        for shard in sorted(self._shards):
            self._open(connection, shard)
        while not self._stopping.is_set():
            self._obey(connection)
            with suppress(TimeoutError):
                connection.drain_events(timeout=_DRAIN_SECONDS)
            connection.heartbeat_check()
            self.heard_at = time.monotonic()

    def _declare_all(self, connection: Connection) -> None:
        """Long before the first command: a queue that RabbitMQ 3.10 makes just before it is killed never answers."""
        with connection.channel() as channel:
            for shard in sorted(self._undeclared):
                queue_of(shard)(channel).declare()
                self._undeclared.discard(shard)

    def _obey(self, connection: Connection) -> None:
        """Carry out the orders that wait."""
        while True:
            try:
                order = self._orders.get_nowait()
            except Empty:
                return
            match order:
                case _Read():
                    self._shards.add(order.shard)
                    self._open(connection, order.shard)
                case _GiveBack():
                    for shard in order.shards:
                        self._close(shard)
                    self._tell(_GivenBack(order.done))
                case _Acknowledge():
                    self._acknowledge(order.deliveries)

    def _open(self, connection: Connection, shard: int) -> None:
        if shard in self._channels:
            return
        opened = self._channels[shard] = _Channel(next(self._numbers), connection.channel())
        received = functools.partial(self._received, shard, opened.number)
        consumer = Consumer(opened.channel, [queue_of(shard)], on_message=received, auto_declare=True)
        consumer.qos(prefetch_count=_PREFETCH)
        self._tell(_Opened(shard, opened.number))
        consumer.consume()

    def _close(self, shard: int) -> None:
        self._shards.discard(shard)
        opened = self._channels.pop(shard, None)
        if opened is not None:
            opened.channel.close()

    def _acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            message, channel_number = delivery.tag
            opened = self._channels.get(delivery.shard)
            if opened is not None and opened.number == channel_number:
                message.ack()

    def _received(self, shard: int, channel_number: int, message: Message) -> None:
        command = decode_or_none(message.body, shard)
        if command is None:
            message.ack()
        else:
            self._tell(Delivery(shard, command, (message, channel_number)))
