"""Carries out commands: written to the stream, confirmed by ejabberd, and only then acknowledged to the broker.

What becomes of each command is in `xmpp_pool.commands_in_hand`. Here are the loops that move commands on: one writes,
one has ejabberd confirm, and one makes sure that confirmed messages are safe on ejabberd's disk.

Writing does not wait for the confirmation of what was written before: one ping round trip confirms all that was written
until it began, so the busier the pool is, the fewer pings there are for each command. What is in hand is bounded.

What is written twice does no harm: the bridge module drops messages that it has seen already (`<once/>`).
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from tenants.conversations.live_view import LiveViewPublisher, Way
from tenants.shards.commands import AnyCommand, CloseTenant, SendMessage
from tenants.shards.queues import CommandReader, Delivery
from tenants.status.traffic import Traffic
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.announcer import Announcer
from xmpp_pool.commands_in_hand import CommandsInHand
from xmpp_pool.gateway import Gateway
from xmpp_pool.lives import Lives
from xmpp_pool.session_ends import SessionEnds
from xmpp_pool.shards import Shards
from xmpp_pool.stream import StreamLostError

log = structlog.get_logger(__name__)

_SAFE_SECONDS = 2.0
"""Far longer than ejabberd needs to write a message to an operator's connection."""
_SAFE_PAUSE = 0.5
_MAX_IN_HAND = 20_000
"""Commands in hand, at most; beyond it nothing more is read."""
_AT_ONCE = 200
"""Commands that are carried out before others may go on, and ejabberd's pace is looked at."""
_RETRY_PAUSE = 0.5


class CommandRunner:
    """Carries out each shard's commands in order; but the closing of a tenant goes on beside the commands after it."""

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
        self._hand = CommandsInHand(shards.serves_shard)
        self._written = asyncio.Event()

    async def run(self) -> None:
        """Carry out what comes; until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._carry_out_forever(loops), name="commands")
            loops.create_task(self._confirm_forever(), name="confirming")
            loops.create_task(self._acknowledge_forever(), name="acknowledging")

    def drop(self, shards: set[int]) -> None:
        """Forget the commands of these shards: other processes serve them now, and read what is not acknowledged."""
        self._hand.drop(shards)

    async def _carry_out_forever(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            if len(self._hand) >= _MAX_IN_HAND:
                await asyncio.sleep(_SAFE_PAUSE)
                continue
            self._hand.take(await self._reader.next_batch())
            while self._hand.taken or self._hand.stream != self._gateway.stream_number:
                try:
                    await self._carry_out_taken(tasks)
                except (StreamLostError, *DATABASE_AWAY) as error:
                    count = self._hand.unconfirmed
                    log.warning("commands will be carried out again", count=count, error=type(error).__name__)
                    await asyncio.sleep(_RETRY_PAUSE)

    async def _carry_out_taken(self, tasks: asyncio.TaskGroup) -> None:
        """Carry out all commands that were taken, on the present stream."""
        await self._gateway.wait_established()
        if self._hand.stream != self._gateway.stream_number:
            self._hand.begin_stream(self._gateway.stream_number)
        while self._hand.taken:
            await self._gateway.room()
            deliveries = self._hand.next_taken(_AT_ONCE)
            await self._lives.learn({delivery.command.instance_name for delivery in deliveries})
            for delivery in deliveries:
                await self._carry_out(delivery, tasks)
            self._written.set()
            await asyncio.sleep(0)

    async def _carry_out(self, delivery: Delivery, tasks: asyncio.TaskGroup) -> None:
        """Carry out the first command that was taken. It stays taken if this raises."""
        command = delivery.command
        if not self._shards.serves_shard(delivery.shard):
            self._hand.leave()
        elif not self._lives.concerns(command):
            log.info("a command for a tenant that is gone", instance_name=command.instance_name)
            await self._reader.acknowledge([delivery])
            self._hand.leave()
        elif isinstance(command, CloseTenant):
            # else visitors who were shown before would be shown again after it, if the stream ended now
            await self._confirm()
            self._hand.close()
            tasks.create_task(self._close(delivery, command.instance_name))
        else:
            self._announcer.carry_out(command)
            self._hand.write()

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
            self._hand.closed()

    async def _confirm_forever(self) -> None:
        while True:
            await self._written.wait()
            self._written.clear()
            try:
                await self._confirm()
            except StreamLostError:
                continue  # they are sent again, and that is seen here, too

    async def _confirm(self) -> None:
        """Return when ejabberd has handled what was written so far. What needs nothing more is acknowledged.

        Raises:
            StreamLostError: it is to be written again.
        """
        stream, last = self._hand.stream, self._hand.last_written
        if last is None:
            return
        if stream == self._gateway.stream_number:
            await self._gateway.confirm()
        if not self._is_present(stream):
            raise StreamLostError
        confirmed = self._hand.confirm(last, self._monotonic())
        for delivery in confirmed.messages:
            self._traffic.to_operators += 1
            self._show(delivery.command)
        await self._reader.acknowledge(confirmed.others)

    async def _acknowledge_forever(self) -> None:
        while True:
            await asyncio.sleep(_SAFE_PAUSE)
            until = self._monotonic() - _SAFE_SECONDS
            if not self._hand.has_confirmed(until):
                continue
            try:
                stream = self._gateway.stream_number
                await self._gateway.sync()
            except StreamLostError:
                continue
            if self._is_present(stream):  # else they were written on an earlier stream, or again just now
                await self._reader.acknowledge(self._hand.take_safe(until))

    def _is_present(self, stream: int) -> bool:
        """Whether what is in hand was written on that stream, and no other one has begun."""
        return stream == self._hand.stream == self._gateway.stream_number

    def _show(self, command: AnyCommand) -> None:
        # what is said in rooms is between operators
        if isinstance(command, SendMessage):
            self._live_view.show(
                command.instance_name,
                command.username,
                command.operator,
                command.body,
                Way.TO_OPERATOR,
            )
