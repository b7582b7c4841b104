"""Carries out commands: written to the stream, confirmed by ejabberd, and only then acknowledged to the broker.

A message is acknowledged only a moment after ejabberd has handled it, and after ejabberd has forced its log to disk:
until then it may be in ejabberd's memory alone, and a new stream may mean that ejabberd was killed. So on each new
stream the messages of the last moment are sent again. The bridge module drops what it has seen already (`<once/>`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import DBAPIError

from tenants.commands import SendMessage, SendToRoom
from tenants.shard_queues import CommandReader, Delivery
from xmpp_pool.announcer import Announcer
from xmpp_pool.gateway import Gateway, StreamLostError
from xmpp_pool.shards import Shards

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 2.0
"""Far longer than ejabberd needs to write a message to an operator's connection."""
_SETTLE_PAUSE = 0.5
_MAX_SETTLING = 20_000
"""Messages that wait to be acknowledged at most; beyond it nothing more is read."""
_RETRY_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class _Settling:
    delivery: Delivery
    sent_at: float


class CommandRunner:
    """Batch by batch, in order."""

    def __init__(
        self,
        reader: CommandReader,
        gateway: Gateway,
        announcer: Announcer,
        shards: Shards,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._gateway = gateway
        self._announcer = announcer
        self._shards = shards
        self._monotonic = monotonic
        self._settling: deque[_Settling] = deque()
        self._stream = 0
        """The stream on which everything that settles was sent."""

    async def run(self) -> None:
        """Carry out what comes; until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._carry_out_forever(), name="commands")
            loops.create_task(self._settle_forever(), name="settling")

    def drop(self, shards: set[int]) -> None:
        """These shards are others' now, and what is not acknowledged as well."""
        self._settling = deque(one for one in self._settling if one.delivery.shard not in shards)

    async def _carry_out_forever(self) -> None:
        while True:
            if len(self._settling) >= _MAX_SETTLING:
                await asyncio.sleep(_SETTLE_PAUSE)
                continue
            batch = await self._reader.next_batch()
            if batch or self._stream != self._gateway.stream_number:
                await self._carry_out(batch)

    async def _carry_out(self, batch: list[Delivery]) -> None:
        while True:
            await self._gateway.wait_established()
            if self._stream != self._gateway.stream_number:
                self._stream = self._gateway.stream_number
                batch = [*(one.delivery for one in self._settling), *batch]
                self._settling.clear()
            try:
                for delivery in batch:
                    if self._shards.serves_shard(delivery.shard):
                        await self._announcer.carry_out(delivery.command)
                await self._gateway.confirm()
                break
            except (StreamLostError, DBAPIError) as error:
                log.warning("commands will be carried out again", count=len(batch), error=type(error).__name__)
                await asyncio.sleep(_RETRY_PAUSE)
        await self._note_as_sent([one for one in batch if self._shards.serves_shard(one.shard)])

    async def _note_as_sent(self, batch: list[Delivery]) -> None:
        now = self._monotonic()
        done: list[Delivery] = []
        for delivery in batch:
            if isinstance(delivery.command, SendMessage | SendToRoom):
                self._settling.append(_Settling(delivery, now))
            else:
                done.append(delivery)
        await self._reader.acknowledge(done)

    async def _settle_forever(self) -> None:
        while True:
            await asyncio.sleep(_SETTLE_PAUSE)
            sent_before = self._monotonic() - SETTLE_SECONDS
            if not self._settling or self._settling[0].sent_at > sent_before:
                continue
            try:
                stream = self._gateway.stream_number
                await self._gateway.sync()
            except StreamLostError:
                continue
            if stream != self._stream or stream != self._gateway.stream_number:
                continue  # sent on an earlier stream, or sent again just now
            await self._reader.acknowledge(self._take_settled(sent_before))

    def _take_settled(self, sent_before: float) -> list[Delivery]:
        settled: list[Delivery] = []
        while self._settling and self._settling[0].sent_at <= sent_before:
            delivery = self._settling.popleft().delivery
            if self._shards.serves_shard(delivery.shard):
                settled.append(delivery)
        return settled
