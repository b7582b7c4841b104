"""Commands from the shard queues, for asyncio.

kombu blocks, so it lives in a thread of its own: it alone touches the broker connection. A command is acknowledged
only when the loop says so; until then the broker keeps it for a successor.
"""

import asyncio
import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass

import msgspec
import structlog
from kombu import Connection, Consumer, Message

from config.broker import SHARD_TRANSPORT_OPTIONS
from tenants.backoff import delay
from tenants.command_queue import shard_queue
from tenants.commands import AnyCommand, decode

log = structlog.get_logger(__name__)

PREFETCH = 1000
"""Commands in this process's hands at most; the broker keeps the rest."""
_DRAIN_SECONDS = 0.05
"""How late an acknowledgement may be; nobody waits for it."""
_MAX_BATCH = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """A command and the broker's message that is to be acknowledged for it."""

    command: AnyCommand
    message: Message
    generation: int
    """Of the broker connection: an acknowledgement on a later one would mean another message."""


class ShardConsumer:
    """Consumes the given shards' queues until stopped, reconnecting by itself."""

    def __init__(self, broker_url: str, shards: list[int]) -> None:
        self._broker_url = broker_url
        self._queues = [shard_queue(shard) for shard in shards]
        self._loop = asyncio.get_running_loop()
        self._ready: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._done: deque[Delivery] = deque()
        self._stopping = threading.Event()
        self._generation = itertools.count(1)
        self._current = 0
        self._consuming_at = 0.0
        self._thread = threading.Thread(target=self._run, name="shard-consumer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Stop consuming and settle what was acknowledged; the rest goes back to the broker."""
        self._stopping.set()
        await asyncio.to_thread(self._thread.join, 10)

    def alive(self) -> bool:
        """Whether the broker was heard of within the last seconds."""
        return time.monotonic() - self._consuming_at < 5  # noqa: PLR2004 - a hundred drains

    async def next_batch(self) -> list[Delivery]:
        """Wait for commands and take what is there, in order."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        count = min(len(self._ready), _MAX_BATCH)
        return [self._ready.popleft() for _ in range(count)]

    def acknowledge(self, batch: list[Delivery]) -> None:
        """The commands were carried out: the broker may forget them."""
        self._done.extend(batch)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with Connection(self._broker_url, transport_options=SHARD_TRANSPORT_OPTIONS) as connection:
                    connection.ensure_connection(max_retries=1, timeout=5)
                    failures = 0
                    self._consume(connection)
            except Exception as error:  # noqa: BLE001 - transports raise all sorts; whatever it was, connect again
                failures += 1
                log.warning("broker connection lost", error=f"{type(error).__name__}: {error}"[:300])
                self._stopping.wait(delay(failures, first=0.3, longest=10))

    def _consume(self, connection: Connection) -> None:
        self._current = next(self._generation)
        channel = connection.channel()
        consumer = Consumer(channel, self._queues, on_message=self._received, auto_declare=True)
        consumer.qos(prefetch_count=PREFETCH)
        with consumer:
            while not self._stopping.is_set():
                self._settle()
                try:
                    connection.drain_events(timeout=_DRAIN_SECONDS)
                except TimeoutError:
                    connection.heartbeat_check()
                self._consuming_at = time.monotonic()
            self._settle()

    def _received(self, message: Message) -> None:
        try:
            command = decode(message.body)
        except msgspec.DecodeError as error:
            # it can never be carried out, by nobody
            log.error("command is not readable, dropped", error=str(error))  # noqa: TRY400 - no traceback worth having
            message.ack()
            return
        delivery = Delivery(command, message, self._current)
        self._loop.call_soon_threadsafe(self._hand_over, delivery)

    def _hand_over(self, delivery: Delivery) -> None:
        self._ready.append(delivery)
        self._arrived.set()

    def _settle(self) -> None:
        while self._done:
            delivery = self._done.popleft()
            if delivery.generation == self._current:
                delivery.message.ack()
