"""The shard queues on RabbitMQ: quorum queues with a single active consumer, publisher confirms, a channel per shard.

A reader that dies, or closes the shard's channel, gives back all that it had in hand at once, and in order; the single
active consumer sees to it that nobody reads on before that. kombu blocks, so one thread owns each connection.
"""

import asyncio
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import stamina
import structlog
from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.exceptions import KombuError

from config.broker import CONNECT_TIMEOUT, TRANSPORT_OPTIONS
from tenants.core.backoff import delay
from tenants.core.batching import Batcher
from tenants.shards.commands import AnyCommand, encode, queue_name, shard_of
from tenants.shards.interface import (
    MAX_PUBLISHING,
    MAX_WAITING,
    PUBLISH_TIMEOUT,
    Delivery,
    QueueUnavailableError,
    decode_or_none,
)

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_ERRORS = (OSError, KombuError, AMQPError)
"""What a broker that is away, or goes away, makes kombu raise."""
_UNCONFIRMED = {**TRANSPORT_OPTIONS, "confirm_publish": False}
"""The publisher waits for many confirms at once, by itself."""
_PREFETCH = 1000
"""Commands of one shard in this process's hands at most; the broker keeps the rest."""
_MAX_BATCH = 500
_HEARTBEAT = 4
"""Seconds. A reader that is frozen, or cut off without a word, loses its shards at the broker after twice this."""
_DRAIN_SECONDS = 0.05
"""How late an acknowledgement or a new shard may be; nobody waits for it."""
_DROP_SECONDS = 3.0
_QUIET_SECONDS = 0.2
_ALIVE_SECONDS = 5.0
_MOMENT = 0.001
_NEW_QUEUE_SECONDS = 0.2
"""A quorum queue that was made this moment may refuse what comes, as if it were full."""
_MANY = 1_000_000


def _queue(shard: int) -> Queue:
    """Reached directly by its name, without an exchange of its own."""
    return Queue(
        queue_name(shard),
        durable=True,
        queue_arguments={
            "x-queue-type": "quorum",
            "x-single-active-consumer": True,
            "x-max-length": MAX_WAITING,
            "x-overflow": "reject-publish",
            # RabbitMQ 4 drops what came back twenty times by default, and each takeover counts
            "x-delivery-limit": _MANY,
        },
    )


class AmqpPublisher:
    """Publishes commands; see `CommandPublisher`. One thread publishes, which also keeps commands in their order."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._broker_url = broker_url
        self._shard_count = shard_count
        self._connection: Connection | None = None
        self._channel: _Channel | None = None
        self._declared: set[int] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="command-publisher")
        self._calls: Batcher[Sequence[AnyCommand], None] = Batcher(
            self._append, at_most=MAX_PUBLISHING, waiting=MAX_PUBLISHING
        )

    async def publish(self, *commands: AnyCommand) -> None:
        with _errors_named():
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._calls.do(commands)

    async def check(self) -> None:
        # declaring asks the broker
        with _errors_named():
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await asyncio.get_running_loop().run_in_executor(
                    self._thread, lambda: self._connected(lambda: self._ask(0))
                )

    async def close(self) -> None:
        await self._calls.close()
        self._thread.submit(self._disconnect)
        await asyncio.to_thread(self._thread.shutdown, wait=True)

    async def _append(self, calls: Sequence[Sequence[AnyCommand]]) -> list[Exception | None]:
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._publish(calls))

    # What follows runs in the thread.

    def _publish(self, calls: Sequence[Sequence[AnyCommand]]) -> list[Exception | None]:
        """Publish in order. Returns for each call whether the broker refused any of it."""
        declared = set(self._declared)
        refused = self._connected(lambda: self._publish_now(calls))
        if refused and self._declared != declared:
            time.sleep(_NEW_QUEUE_SECONDS)
            again = sorted(refused)
            refused_again = self._connected(lambda: self._publish_now([calls[index] for index in again]))
            refused = {again[index] for index in refused_again}
        return [MessageNacked() if index in refused else None for index in range(len(calls))]

    def _connected(self, work: Callable[[], Result]) -> Result:
        """Do the work, on a new connection if need be. Commands have ids, so one that is sent twice does no harm."""
        for attempt in stamina.retry_context(
            on=_ERRORS, attempts=3, timeout=PUBLISH_TIMEOUT, wait_initial=0.1, wait_max=0.5
        ):
            with attempt:
                try:
                    if self._channel is None:
                        self._connect()
                    return work()
                except _ERRORS:
                    self._disconnect()
                    raise
        raise AssertionError  # the last attempt raises what it met

    def _connect(self) -> None:
        self._connection = Connection(self._broker_url, transport_options=_UNCONFIRMED, connect_timeout=CONNECT_TIMEOUT)
        self._channel = _Channel(self._connection)

    def _publish_now(self, calls: Sequence[Sequence[AnyCommand]]) -> set[int]:
        """Publish, and wait until the broker has confirmed all. Returns which of the calls it refused."""
        channel = self._channel
        assert channel is not None  # noqa: S101 - see `_connected`
        call_of: dict[int, int] = {}
        for index, commands in enumerate(calls):
            for command in commands:
                shard = shard_of(command.instance_name, self._shard_count)
                self._declare(shard)
                call_of[channel.publish(queue_name(shard), encode(command))] = index
        return {call_of[number] for number in channel.confirmed()}

    def _declare(self, shard: int) -> None:
        if shard not in self._declared:
            self._ask(shard)

    def _ask(self, shard: int) -> None:
        assert self._channel is not None  # noqa: S101 - see `_connected`
        _queue(shard)(self._channel.channel).declare()
        self._declared.add(shard)

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        if connection is not None:
            # without a word: to say goodbye to a broker that is gone fails, and leaves the socket open
            with suppress(*_ERRORS):
                connection.collect()


class _Channel:
    """A channel whose commands are confirmed many at once; kombu's own way waits for each before it sends the next.

    What is published has a number, from 1 on; the broker says of one, or of all up to one, that it has them or refuses
    them (https://www.rabbitmq.com/docs/confirms).
    """

    def __init__(self, connection: Connection) -> None:
        self.channel = connection.channel()
        self._connection = connection
        self._producer = Producer(self.channel)
        self._last = 0
        self._open: set[int] = set()
        self._refused: set[int] = set()
        self.channel.events["basic_ack"].add(self._take_answered)
        self.channel.events["basic_nack"].add(self._nacked)
        self.channel.confirm_select()

    def publish(self, queue: str, body: bytes) -> int:
        """Send it, and do not wait. Returns its number."""
        self._producer.publish(
            body,
            exchange="",
            routing_key=queue,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode="persistent",
            retry=False,
        )
        self._last += 1
        self._open.add(self._last)
        return self._last

    def confirmed(self) -> set[int]:
        """Wait until all that was published is confirmed. Returns what was refused.

        Raises:
            TimeoutError: the broker did not say in time.
        """
        deadline = time.monotonic() + PUBLISH_TIMEOUT
        while self._open:
            self._connection.drain_events(timeout=max(deadline - time.monotonic(), _MOMENT))
        refused, self._refused = self._refused, set()
        return refused

    def _take_answered(self, number: int, multiple: bool) -> set[int]:
        answered = {other for other in self._open if other <= number} if multiple else {number}
        self._open -= answered
        return answered

    def _nacked(self, number: int, multiple: bool) -> None:
        self._refused |= self._take_answered(number, multiple)


@contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except MessageNacked as error:
        raise QueueUnavailableError("the broker: the queue of this shard takes no more") from error
    except TimeoutError as error:
        raise QueueUnavailableError(f"the broker did not answer within {PUBLISH_TIMEOUT} s") from error
    except _ERRORS as error:
        raise QueueUnavailableError(f"the broker: {type(error).__name__}") from error


class AmqpReader:
    """Reads the queues of the shards it was given; see `CommandReader`."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._broker_url = broker_url
        self._undeclared = set(range(shard_count))
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._wanted: set[int] = set()
        self._orders: deque[Callable[[], None]] = deque()
        """What the thread is to do next; bounded by the number of shards and of commands in hand."""
        self._channels: dict[int, Any] = {}
        self._connection: Connection | None = None
        self._stopping = threading.Event()
        self._heard_at = -_ALIVE_SECONDS
        self._epochs = itertools.count(1)
        self._epoch: dict[int, int] = {}
        """Of each shard: grows when it is opened anew, so that what an earlier channel gave is known to be void."""
        self._thread = threading.Thread(target=self._run, name="shard-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, shard: int) -> None:
        self._wanted.add(shard)
        self._orders.append(lambda: self._open(shard))

    async def drop(self, shards: Iterable[int]) -> None:
        dropped = set(shards)
        self._wanted -= dropped
        closed: Future[None] = Future()

        def close() -> None:
            for shard in dropped:
                self._close(shard)
            closed.set_result(None)

        self._orders.append(close)
        if self._connection is not None:  # without a connection the broker has them back already
            try:
                async with asyncio.timeout(_DROP_SECONDS):
                    await asyncio.wrap_future(closed)
            except TimeoutError:
                log.warning("the broker did not take the shards back in time", count=len(dropped))
        self._ready = deque(delivery for delivery in self._ready if delivery.shard not in dropped)

    async def next_batch(self) -> list[Delivery]:
        if not self._ready:
            self._arrived.clear()
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        batch = [self._ready.popleft() for _ in range(min(len(self._ready), _MAX_BATCH))]
        # void: the broker gives it out again on the channel that came after
        return [delivery for delivery in batch if delivery.tag[1] == self._epoch.get(delivery.shard)]

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        done = [delivery for delivery in deliveries if delivery.tag[1] == self._epoch.get(delivery.shard)]
        if done:
            self._orders.append(lambda: self._acknowledge(done))

    def alive(self) -> bool:
        return time.monotonic() - self._heard_at < _ALIVE_SECONDS

    async def close(self) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 10)

    # What follows runs in the thread.

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
                    self._connection = connection
                    failures = 0
                    self._read(connection)
            except Exception as error:  # noqa: BLE001 - transports raise all sorts; whatever it was, connect again
                failures += 1
                log.warning("shard queues not read", error=f"{type(error).__name__}: {error}"[:300])
                self._stopping.wait(delay(failures, first=0.3, longest=5))
            finally:
                self._connection = None
                self._channels.clear()

    def _read(self, connection: Connection) -> None:
        self._declare_all(connection)
        for shard in list(self._wanted):
            self._open(shard)
        while not self._stopping.is_set():
            while self._orders:
                self._orders.popleft()()
            with suppress(TimeoutError):
                connection.drain_events(timeout=_DRAIN_SECONDS)
            connection.heartbeat_check()
            self._heard_at = time.monotonic()

    def _declare_all(self, connection: Connection) -> None:
        """Long before the first command: a queue that RabbitMQ 3.10 makes just before it is killed never answers."""
        with connection.channel() as channel:
            for shard in sorted(self._undeclared):
                _queue(shard)(channel).declare()
                self._undeclared.discard(shard)

    def _open(self, shard: int) -> None:
        if shard in self._channels or shard not in self._wanted or self._connection is None:
            return
        channel = self._connection.channel()
        epoch = next(self._epochs)
        received = functools.partial(self._received, shard, epoch)
        consumer = Consumer(channel, [_queue(shard)], on_message=received, auto_declare=True)
        consumer.qos(prefetch_count=_PREFETCH)
        self._channels[shard] = channel
        self._epoch[shard] = epoch
        consumer.consume()

    def _close(self, shard: int) -> None:
        self._epoch.pop(shard, None)
        channel = self._channels.pop(shard, None)
        if channel is not None:
            channel.close()

    def _acknowledge(self, done: list[Delivery]) -> None:
        for delivery in done:
            message, epoch = delivery.tag
            if epoch == self._epoch.get(delivery.shard) and delivery.shard in self._channels:
                message.ack()

    def _received(self, shard: int, epoch: int, message: Message) -> None:
        command = decode_or_none(message.body, shard)
        if command is None:
            message.ack()
        else:
            self._loop.call_soon_threadsafe(self._hand_over, Delivery(shard, command, (message, epoch)))

    def _hand_over(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._arrived.set()
