"""Carries out commands: written to the stream, confirmed by ejabberd, and only then acknowledged to the broker.

Writing does not wait for the confirmation of what was written before: one ping round trip confirms all that was written
until it began, so the busier the pool is, the fewer there are for each command. What is on its way is bounded.

A message is acknowledged only a moment after ejabberd has handled it, and after ejabberd has forced its log to disk:
until then it may be in ejabberd's memory alone, and a new stream may mean that ejabberd was killed. So on each new
stream the messages of the last moment are sent again. The bridge module drops what it has seen already (`<once/>`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import structlog

from tenants.conversations.live_view import LiveViewPublisher, Way
from tenants.shards.commands import CloseTenant, SendMessage, SendToRoom
from tenants.shards.queues import CommandReader, Delivery
from tenants.status.traffic import Traffic
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.announcer import Announcer
from xmpp_pool.gateway import Gateway
from xmpp_pool.lives import Lives
from xmpp_pool.session_ends import SessionEnds
from xmpp_pool.shards import Shards
from xmpp_pool.stream import StreamLostError

log = structlog.get_logger(__name__)

SAFE_SECONDS = 2.0
"""Far longer than ejabberd needs to write a message to an operator's connection."""
_CONFIRMED_PAUSE = 0.5
_MAX_IN_HAND = 20_000
"""Commands that are not acknowledged, at most; beyond it nothing more is read."""
_AT_ONCE = 200
"""Commands that are carried out before others may go on, and ejabberd's pace is looked at."""
_RETRY_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class _Sent:
    """A command that was written to the stream; numbers grow."""

    delivery: Delivery
    number: int


@dataclass(frozen=True, slots=True)
class _Confirmed:
    delivery: Delivery
    sent_at: float


class CommandRunner:
    """In order, for each shard; except that a tenant is closed beside what others do."""

    def __init__(
        self,
        reader: CommandReader,
        gateway: Gateway,
        announcer: Announcer,
        session_ends: SessionEnds,
        shards: Shards,
        *,
        lives: Lives,
        traffic: Traffic,
        live_view: LiveViewPublisher,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._gateway = gateway
        self._announcer = announcer
        self._session_ends = session_ends
        self._shards = shards
        self._lives = lives
        self._traffic = traffic
        self._live_view = live_view
        self._monotonic = monotonic
        self._numbers = count(1)
        self._unconfirmed: deque[_Sent] = deque()
        self._confirmed: deque[_Confirmed] = deque()
        self._closing = 0
        """Tenants that are being closed."""
        self._stream = 0
        """The stream on which everything was sent that is not acknowledged."""
        self._written = asyncio.Event()

    async def run(self) -> None:
        """Carry out what comes; until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._carry_out_forever(loops), name="commands")
            loops.create_task(self._confirm_forever(), name="confirming")
            loops.create_task(self._acknowledge_forever(), name="acknowledging")

    def drop(self, shards: set[int]) -> None:
        """These shards are others' now, and what is not acknowledged as well."""
        self._unconfirmed = deque(one for one in self._unconfirmed if one.delivery.shard not in shards)
        self._confirmed = deque(one for one in self._confirmed if one.delivery.shard not in shards)

    async def _carry_out_forever(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            if len(self._unconfirmed) + len(self._confirmed) + self._closing >= _MAX_IN_HAND:
                await asyncio.sleep(_CONFIRMED_PAUSE)
                continue
            batch = deque(await self._reader.next_batch())
            while batch or self._stream != self._gateway.stream_number:
                try:
                    await self._carry_out(batch, tasks)
                except (StreamLostError, *DATABASE_AWAY) as error:
                    count = len(batch) + len(self._unconfirmed)
                    log.warning("commands will be carried out again", count=count, error=type(error).__name__)
                    await asyncio.sleep(_RETRY_PAUSE)

    async def _carry_out(self, batch: deque[Delivery], tasks: asyncio.TaskGroup) -> None:
        """Carry out commands, and take out of the batch what was."""
        await self._gateway.wait_established()
        if self._stream != self._gateway.stream_number:
            self._begin_stream(batch)
        while batch:
            await self._gateway.room()
            at_once = min(_AT_ONCE, len(batch))
            await self._lives.learn({batch[index].command.instance_name for index in range(at_once)})
            for _ in range(at_once):
                if self._shards.serves_shard(batch[0].shard):
                    await self._begin(batch[0], tasks)
                batch.popleft()
            self._written.set()
            await asyncio.sleep(0)

    def _begin_stream(self, batch: deque[Delivery]) -> None:
        """All that ejabberd may not have goes first, in its order."""
        self._stream = self._gateway.stream_number
        again = [one.delivery for one in self._confirmed] + [one.delivery for one in self._unconfirmed]
        self._confirmed.clear()
        self._unconfirmed.clear()
        batch.extendleft(reversed(again))

    async def _begin(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        command = delivery.command
        if not self._lives.concerns(command):
            log.info("a command for a tenant that is gone", instance_name=command.instance_name)
            await self._reader.acknowledge([delivery])
        elif isinstance(command, CloseTenant):
            # else who was shown before would be shown again after it, if the stream ended now
            await self._confirm()
            self._closing += 1
            tasks.create_task(self._close(delivery, command.instance_name))
        else:
            self._announcer.carry_out(command)
            self._unconfirmed.append(_Sent(delivery, next(self._numbers)))

    async def _close(self, delivery: Delivery, instance_name: str) -> None:
        try:
            while self._shards.serves_shard(delivery.shard):
                await self._gateway.wait_established()
                try:
                    closed = await self._session_ends.close(instance_name)
                except (StreamLostError, *DATABASE_AWAY) as error:
                    log.warning("tenant not closed yet", instance_name=instance_name, error=type(error).__name__)
                    await asyncio.sleep(_RETRY_PAUSE)
                    continue
                if closed:
                    await self._reader.acknowledge([delivery])
                return
        finally:
            self._closing -= 1

    async def _confirm_forever(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            try:
                await self._confirm()
            except StreamLostError:
                continue  # they are sent again, and that is seen here, too

    async def _confirm(self) -> None:
        """Return when ejabberd has handled what was written so far; what is done with that is acknowledged.

        Raises:
            StreamLostError: it is to be written again.
        """
        if not self._unconfirmed:
            return
        stream, last = self._stream, self._unconfirmed[-1].number
        if stream == self._gateway.stream_number:
            await self._gateway.confirm()
        if stream != self._stream or stream != self._gateway.stream_number:
            raise StreamLostError
        await self._reader.acknowledge(self._take_confirmed(last))

    def _take_confirmed(self, last: int) -> list[Delivery]:
        now = self._monotonic()
        done: list[Delivery] = []
        while self._unconfirmed and self._unconfirmed[0].number <= last:
            delivery = self._unconfirmed.popleft().delivery
            if not self._shards.serves_shard(delivery.shard):
                continue
            if isinstance(delivery.command, SendMessage | SendToRoom):
                self._traffic.to_operators += 1
                self._show(delivery.command)
                self._confirmed.append(_Confirmed(delivery, now))
            else:
                done.append(delivery)
        return done

    def _show(self, command: SendMessage | SendToRoom) -> None:
        # what is said in rooms is between operators
        if isinstance(command, SendMessage):
            self._live_view.show(
                command.instance_name,
                command.username,
                command.operator,
                command.body,
                Way.TO_OPERATOR,
            )

    async def _acknowledge_forever(self) -> None:
        while True:
            await asyncio.sleep(_CONFIRMED_PAUSE)
            sent_before = self._monotonic() - SAFE_SECONDS
            if not self._confirmed or self._confirmed[0].sent_at > sent_before:
                continue
            try:
                stream = self._gateway.stream_number
                await self._gateway.sync()
            except StreamLostError:
                continue
            if stream != self._stream or stream != self._gateway.stream_number:
                continue  # sent on an earlier stream, or sent again just now
            await self._reader.acknowledge(self._take_safe(sent_before))

    def _take_safe(self, sent_before: float) -> list[Delivery]:
        safe: list[Delivery] = []
        while self._confirmed and self._confirmed[0].sent_at <= sent_before:
            delivery = self._confirmed.popleft().delivery
            if self._shards.serves_shard(delivery.shard):
                safe.append(delivery)
        return safe
