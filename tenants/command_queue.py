"""Publishes commands to the shard queues. A return means that the broker has the command."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from kombu import Connection, Producer, Queue

from config.broker import SHARD_TRANSPORT_OPTIONS
from tenants.commands import AnyCommand, encode, queue_name, shard_of
from tenants.errors import UnavailableError

_PUBLISH_TIMEOUT = 3.0
"""Seconds. LHC waits 5 for its whole request: better a clear failure than its time-out."""
_RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.3, "interval_max": 0.5}
_MAX_WAITING = 1000
"""Commands on their way to the broker at once, per process. Beyond it we say no instead of piling up."""


def shard_queue(shard: int) -> Queue:
    """The shard's durable queue; reached directly by its name, without an exchange of its own."""
    return Queue(queue_name(shard), durable=True)


class QueueUnavailableError(UnavailableError):
    """The broker did not confirm the command in time; it was not accepted."""


class CommandQueue:
    """Publishes from asyncio. kombu blocks, so one thread publishes, which also keeps commands in their order."""

    def __init__(self, broker_url: str, shard_count: int) -> None:
        self._connection = Connection(broker_url, transport_options=SHARD_TRANSPORT_OPTIONS)
        self._shard_count = shard_count
        self._producer: Producer | None = None
        self._declared: set[int] = set()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="command-queue")
        self._waiting = 0

    async def publish(self, *commands: AnyCommand) -> None:
        """Hand commands over, in order.

        Raises:
            QueueUnavailableError: the broker did not take them in time.
        """
        await self._in_thread(functools.partial(self._publish, commands))

    async def check(self) -> None:
        """Raise QueueUnavailableError when the broker cannot be reached."""
        await self._in_thread(self._check)

    def close(self) -> None:
        """Give up the connection; commands that were accepted are with the broker."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._connection.release()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        if self._waiting >= _MAX_WAITING:
            raise QueueUnavailableError(f"more than {_MAX_WAITING} commands wait for the broker")
        self._waiting += 1
        try:
            async with asyncio.timeout(_PUBLISH_TIMEOUT):
                await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise QueueUnavailableError(f"the broker did not answer within {_PUBLISH_TIMEOUT} s") from error
        except (*self._connection.connection_errors, *self._connection.channel_errors) as error:
            raise QueueUnavailableError(f"the broker: {type(error).__name__}") from error
        finally:
            self._waiting -= 1

    def _publish(self, commands: tuple[AnyCommand, ...]) -> None:
        if self._producer is None:
            self._producer = Producer(self._connection.channel())
        for command in commands:
            shard = shard_of(command.instance_name, self._shard_count)
            declare = [] if shard in self._declared else [shard_queue(shard)]
            self._producer.publish(
                encode(command),
                exchange="",
                routing_key=queue_name(shard),
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode="persistent",
                declare=declare,
                retry=True,
                retry_policy=_RETRY,
            )
            self._declared.add(shard)

    def _check(self) -> None:
        # declaring asks the broker, on every transport
        shard_queue(0)(self._connection.default_channel).declare()
