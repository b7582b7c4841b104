"""The pool worker: wires the gateway, the shard queues and the loops that run on them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
from slixmpp import Presence
from sqlalchemy.exc import DBAPIError

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from tenants import heartbeats
from tenants.commands import AnyCommand, SendMessage, shard_of
from tenants.services import Services, open_services
from xmpp_pool.announcer import Announcer
from xmpp_pool.consumer import ShardConsumer
from xmpp_pool.gateway import Gateway, StreamLostError
from xmpp_pool.inbox import Inbox
from xmpp_pool.operators import OperatorDirectory
from xmpp_pool.watch import OperatorWatch

log = structlog.get_logger(__name__)

_EXPIRY_PAUSE = 0.5
_HEARTBEAT_PAUSE = 3.0
_RETRY_PAUSE = 0.5
_REMEMBERED = 50_000
"""Message ids: some megabytes, and many times what the broker can have given out."""


class SentMessages:
    """The messages that were sent lately: the broker gives out again what we held for longer than it likes.

    Bounded; everything but messages may be carried out twice without anybody noticing.
    """

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._ids: dict[str, None] = {}
        self._limit = limit

    def __contains__(self, command: AnyCommand) -> bool:
        return isinstance(command, SendMessage) and command.message_id in self._ids

    def add(self, command: AnyCommand) -> None:
        """Remember the command, if it is a message; the oldest are forgotten."""
        if isinstance(command, SendMessage):
            self._ids[command.message_id] = None
            if len(self._ids) > self._limit:
                del self._ids[next(iter(self._ids))]


class Pool:
    """One pool process: all shards, one component connection."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        self._sent = SentMessages()
        operators = OperatorDirectory()
        self._inbox = Inbox(services)
        self._gateway = Gateway(
            settings,
            on_established=self._on_established,
            on_presence=self._on_presence,
            on_message=self._inbox.receive,
        )
        self._announcer = Announcer(services, self._gateway, operators)
        self._watch = OperatorWatch(services, self._gateway, self._announcer, operators)
        self._consumer = ShardConsumer(settings.broker_url.get_secret_value(), list(range(settings.shard_count)))

    async def run(self) -> None:
        """Work until cancelled."""
        await self._announcer.restore()
        log.info("sessions restored", count=self._announcer.session_count)
        self._consumer.start()
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._gateway.run(), name="gateway")
                loops.create_task(self._inbox.run(), name="inbox")
                loops.create_task(self._watch.run(), name="watch")
                loops.create_task(self._watch.ping_forever(), name="pings")
                loops.create_task(self._carry_out_commands(), name="commands")
                loops.create_task(self._every(_EXPIRY_PAUSE, self._announcer.expire), name="expiry")
                loops.create_task(self._every(_HEARTBEAT_PAUSE, self._beat), name="heartbeat")
        finally:
            await self._consumer.stop()

    async def _on_established(self) -> None:
        await self._watch.resync()

    def _on_presence(self, presence: Presence) -> None:
        self._watch.report(presence)

    async def _carry_out_commands(self) -> None:
        """Batch by batch: written to the stream, confirmed by the server, acknowledged to the broker; in order."""
        while True:
            batch = await self._consumer.next_batch()
            while True:
                await self._gateway.wait_established()
                try:
                    for delivery in batch:
                        if delivery.command not in self._sent:
                            await self._carry_out(delivery.command)
                    await self._gateway.confirm()
                    break
                except (StreamLostError, DBAPIError) as error:
                    log.warning("commands will be carried out again", count=len(batch), error=type(error).__name__)
                    await asyncio.sleep(_RETRY_PAUSE)
            for delivery in batch:
                self._sent.add(delivery.command)
            self._consumer.acknowledge(batch)

    async def _carry_out(self, command: AnyCommand) -> None:
        shard = shard_of(command.instance_name, self._services.settings.shard_count)
        with structlog.contextvars.bound_contextvars(instance_name=command.instance_name, shard=shard):
            await self._announcer.carry_out(command)

    async def _every(self, pause: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work again and again, while the stream is up."""
        while True:
            await asyncio.sleep(pause)
            await self._gateway.wait_established()
            try:
                await work()
            except (StreamLostError, DBAPIError) as error:
                log.warning("to be done again", work=work.__qualname__, error=type(error).__name__)

    async def _beat(self) -> None:
        if self._consumer.alive():
            await heartbeats.beat(self._services, heartbeats.POOL)


async def run(settings: Settings) -> None:
    """Run a pool process until SIGTERM or SIGINT."""
    async with open_services(settings, celery_wake(make_celery(settings, "pool"))) as services:
        work = asyncio.ensure_future(Pool(services).run())
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            log.info("stopped")
