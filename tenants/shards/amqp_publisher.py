"""Publishes commands on RabbitMQ: from the event loop, through one thread, which keeps them in their order.

The event loop gathers what many callers publish at the same time (`AmqpPublisher`), and hands it over to the thread's
executor as one job. The thread alone touches the connection (`_Broker`, `_Channel`).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import stamina
from amqp.exceptions import MessageNacked
from kombu import Connection, Producer

from config.broker import CONNECT_TIMEOUT, TRANSPORT_OPTIONS
from tenants.core.batching import Batcher
from tenants.shards.amqp import ERRORS, queue_of
from tenants.shards.commands import AnyCommand, encode, queue_name, shard_of
from tenants.shards.interface import MAX_PUBLISHING, PUBLISH_TIMEOUT, QueueUnavailableError

Result = TypeVar("Result")

_UNCONFIRMED = {**TRANSPORT_OPTIONS, "confirm_publish": False}
"""`_Channel` waits for many confirms at once, by itself."""
_MOMENT = 0.001
_NEW_QUEUE_SECONDS = 0.2
"""A quorum queue that was made this moment may refuse what comes, as if it were full."""


class AmqpPublisher:
    """Publishes commands; see `CommandPublisher`. Everything here runs in the event loop."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._broker = _Broker(broker_url, shard_count)
        """Used in the thread alone."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="command-publisher")
        self._calls: Batcher[Sequence[AnyCommand], None] = Batcher(
            self._publish, at_most=MAX_PUBLISHING, waiting=MAX_PUBLISHING
        )

    async def publish(self, *commands: AnyCommand) -> None:
        with _errors_named():
            async with asyncio.timeout(PUBLISH_TIMEOUT):
                await self._calls.do(commands)

    async def check(self) -> None:
        with _errors_named():
            await self._in_thread(self._broker.check)

    async def close(self) -> None:
        await self._calls.close()
        self._thread.submit(self._broker.disconnect)
        await asyncio.to_thread(self._thread.shutdown, wait=True)

    async def _publish(self, calls: Sequence[Sequence[AnyCommand]]) -> list[Exception | None]:
        return await self._in_thread(lambda: self._broker.publish(calls))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        async with asyncio.timeout(PUBLISH_TIMEOUT):
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except MessageNacked as error:
        raise QueueUnavailableError("the broker: the queue of this shard takes no more") from error
    except TimeoutError as error:
        raise QueueUnavailableError(f"the broker did not answer within {PUBLISH_TIMEOUT} s") from error
    except ERRORS as error:
        raise QueueUnavailableError(f"the broker: {type(error).__name__}") from error


class _Broker:
    """The connection, made when it is needed, and made anew when it is lost. Everything here runs in the thread."""

    def __init__(self, url: str, shard_count: int) -> None:
        self._url = url
        self._shard_count = shard_count
        self._connection: Connection | None = None
        self._channel: _Channel | None = None
        self._retrying = stamina.RetryingCaller(attempts=3, timeout=PUBLISH_TIMEOUT, wait_initial=0.1, wait_max=0.5).on(
            ERRORS
        )

    def publish(self, calls: Sequence[Sequence[AnyCommand]]) -> list[Exception | None]:
        """Publish in order. Returns for each call whether the broker refused any of it."""
        declared = self._declared()
        refused = self._connected(lambda channel: self._publish_on(channel, calls))
        if refused and self._declared() != declared:
            time.sleep(_NEW_QUEUE_SECONDS)
            again = sorted(refused)
            refused_again = self._connected(
                lambda channel: self._publish_on(channel, [calls[index] for index in again])
            )
            refused = {again[index] for index in refused_again}
        return [MessageNacked() if index in refused else None for index in range(len(calls))]

    def check(self) -> None:
        """Ask the broker for something; to declare a queue that is there changes nothing."""
        self._connected(lambda channel: channel.declare(0))

    def disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            # without a word: to say goodbye to a broker that is gone fails, and leaves the socket open
            with suppress(*ERRORS):
                connection.collect()

    def _publish_on(self, channel: "_Channel", calls: Sequence[Sequence[AnyCommand]]) -> set[int]:
        """Publish, and wait until the broker has confirmed all. Returns which of the calls it refused."""
        call_of: dict[int, int] = {}
        for index, commands in enumerate(calls):
            for command in commands:
                shard = shard_of(command.instance_name, self._shard_count)
                if shard not in channel.declared:
                    channel.declare(shard)
                call_of[channel.publish(queue_name(shard), encode(command))] = index
        return {call_of[number] for number in channel.confirmed()}

    def _declared(self) -> set[int]:
        return set(self._channel.declared) if self._channel else set()

    def _connected(self, work: Callable[["_Channel"], Result]) -> Result:
        """Do the work, on a new connection if need be. Commands have ids, so one that is sent twice does no harm."""

        def attempt() -> Result:
            try:
                return work(self._channel or self._connect())
            except ERRORS:
                self.disconnect()
                raise

        return self._retrying(attempt)

    def _connect(self) -> "_Channel":
        self._connection = Connection(self._url, transport_options=_UNCONFIRMED, connect_timeout=CONNECT_TIMEOUT)
        self._channel = _Channel(self._connection)
        return self._channel


class _Channel:
    """A channel whose commands are confirmed many at once; kombu's own way waits for each before it sends the next.

    What is published has a number, from 1 on. The broker says of one number, or of all up to one, that it has them on
    disk or refuses them (https://www.rabbitmq.com/docs/confirms).

    Attributes:
        declared: the shards whose queues are known to be there.
    """

    def __init__(self, connection: Connection) -> None:
        self.declared: set[int] = set()
        self._connection = connection
        self._channel = connection.channel()
        self._producer = Producer(self._channel)
        self._last = 0
        self._unconfirmed: set[int] = set()
        self._refused: set[int] = set()
        self._channel.events["basic_ack"].add(self._answered)
        self._channel.events["basic_nack"].add(self._nacked)
        self._channel.confirm_select()

    def declare(self, shard: int) -> None:
        """Have the broker make the shard's queue, if it is not there."""
        queue_of(shard)(self._channel).declare()
        self.declared.add(shard)

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
        self._unconfirmed.add(self._last)
        return self._last

    def confirmed(self) -> set[int]:
        """Wait until all that was published is confirmed. Returns what was refused.

        Raises:
            TimeoutError: the broker did not say in time.
        """
        deadline = time.monotonic() + PUBLISH_TIMEOUT
        while self._unconfirmed:
            self._connection.drain_events(timeout=max(deadline - time.monotonic(), _MOMENT))
        refused, self._refused = self._refused, set()
        return refused

    def _answered(self, number: int, multiple: bool) -> set[int]:
        answered = {other for other in self._unconfirmed if other <= number} if multiple else {number}
        self._unconfirmed -= answered
        return answered

    def _nacked(self, number: int, multiple: bool) -> None:
        self._refused |= self._answered(number, multiple)
