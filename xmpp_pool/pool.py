"""The pool worker: wires the gateway, the shards and the loops that run on them."""

import asyncio
import gc
import math
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from slixmpp import Presence

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from tenants.conversations.live_view import LiveViewPublisher
from tenants.core.errors import InvalidInputError
from tenants.ejabberd import fitness
from tenants.ejabberd.errors import EjabberdUnavailableError
from tenants.process.leases import Taken, new_member_name
from tenants.process.services import Services, open_services
from tenants.shards.queues import open_reader
from tenants.status.traffic import Traffic
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.announcer import Announcer
from xmpp_pool.command_runner import CommandRunner
from xmpp_pool.fanout import Fanout
from xmpp_pool.gateway import Gateway
from xmpp_pool.inbox import Inbox
from xmpp_pool.lives import Lives
from xmpp_pool.operator_directory import OperatorDirectory
from xmpp_pool.operator_presence import OperatorWatch
from xmpp_pool.session_ends import SessionEnds
from xmpp_pool.sessions import SessionTable
from xmpp_pool.shards import Shards
from xmpp_pool.signal_inbox import Signals
from xmpp_pool.stream import StreamLostError

log = structlog.get_logger(__name__)

_EXPIRY_PAUSE = 0.5
_REFUSAL_PAUSE = 2.0
"""How late at most operators see visitors leave whose tenant lost a feature."""
_LIVES_PAUSE = 2.0
_SWITCH_PAUSE = 2.0
"""How late at most a tenant's live view is switched on or off here."""
_TRAFFIC_PAUSE = 5.0
_UNFIT_SECONDS = 5.0
"""If ejabberd is away for longer, others shall serve our shards. A connection that broke is back within a second."""
_NO_BROKER_SECONDS = 15.0


class Pool:
    """One pool process: a component connection to each node of ejabberd, and its share of the shards."""

    def __init__(self, services: Services, name: str) -> None:
        settings = services.settings
        self._services = services
        operators = OperatorDirectory()
        self._traffic = Traffic()
        self._live_view = LiveViewPublisher(services)
        self._inbox = Inbox(services, self._traffic, self._live_view)
        self._signals = Signals(services)
        self._gateway = Gateway(
            settings,
            name,
            on_established=self._on_established,
            on_presence=self._on_presence,
            on_message=self._inbox.receive,
            on_signal=self._signals.receive,
            on_show_asked=self._on_show_asked,
            on_node_down=self._on_node_down,
        )
        self._shards = Shards(services, name, fit=self._fit, restore=self._restore, drop=self._drop, flush=self._flush)
        self._reader = open_reader(settings.broker_url.get_secret_value(), settings.shard_count)
        sessions, self._fanout = SessionTable(), Fanout(self._gateway, self._shards.serves)
        self._lives = Lives(services)
        self._announcer = Announcer(
            services, self._gateway, operators, sessions, self._fanout, host_of=self._lives.host_of
        )
        self._session_ends = SessionEnds(
            services, self._announcer, operators, sessions, self._fanout, serves=self._shards.serves
        )
        self._watch = OperatorWatch(services, self._gateway, self._announcer, operators, self._shards)
        self._commands = CommandRunner(
            self._reader,
            self._gateway,
            self._announcer,
            self._session_ends,
            self._shards,
            lives=self._lives,
            traffic=self._traffic,
            live_view=self._live_view,
        )
        self._established_at = self._broker_at = -math.inf

    async def run(self) -> None:
        """Work until cancelled."""
        self._reader.start()
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._gateway.run(), name="gateway")
                loops.create_task(self._inbox.run(), name="inbox")
                loops.create_task(self._signals.run(), name="signals")
                loops.create_task(self._watch.run(), name="watch")
                loops.create_task(self._watch.ping_forever(), name="pings")
                loops.create_task(self._shards.run(), name="shards")
                loops.create_task(self._commands.run(), name="commands")
                loops.create_task(self._fanout.run(), name="bulk")
                loops.create_task(self._live_view.run(), name="live view")
                loops.create_task(self._every(_EXPIRY_PAUSE, self._session_ends.expire), name="expiry")
                loops.create_task(self._every(_REFUSAL_PAUSE, self._session_ends.close_refused), name="refusals")
                loops.create_task(self._every(_LIVES_PAUSE, self._lives.refresh), name="tenants' lives")
                loops.create_task(self._every(_SWITCH_PAUSE, self._live_view.look), name="live view's switches")
                loops.create_task(self._every(_TRAFFIC_PAUSE, self._write_traffic), name="traffic")
        finally:
            await self._reader.close()

    async def _on_established(self) -> None:
        with suppress(EjabberdUnavailableError):  # what cannot be asked now is no reason not to serve
            ejabberd, settings = self._services.ejabberd, self._services.settings
            found = await fitness.check_version(ejabberd, settings.ejabberd_untested)
            storage = await fitness.check_storage(ejabberd, settings.ejabberd_storage)
            log.info("ejabberd", found=found, storage=storage)
        await self._watch.resync()

    async def _write_traffic(self) -> None:
        await self._traffic.write(self._services)

    def _on_presence(self, presence: Presence, node: str) -> None:
        self._watch.report(presence, node)

    def _on_node_down(self, node: str) -> None:
        self._watch.node_down(node)

    def _on_show_asked(self, operator: str, visitor: str) -> None:
        # every pool process is asked; who does not serve the tenant does not know the visitor's session
        with suppress(StreamLostError, InvalidInputError):
            self._announcer.show_one(visitor, operator)

    def _fit(self) -> bool:
        """Whether this process can serve: it has, or had until a moment ago, both ejabberd and the broker."""
        now = time.monotonic()
        if self._gateway.established:
            self._established_at = now
        if self._reader.alive():
            self._broker_at = now
        return now - self._established_at < _UNFIT_SECONDS and now - self._broker_at < _NO_BROKER_SECONDS

    async def _restore(self, taken: list[Taken]) -> None:
        shards = {one.lease.shard for one in taken}
        await self._gateway.wait_established()
        for deserter in {one.deserted_by for one in taken if one.deserted_by}:
            await self._gateway.fence(deserter)
        sessions = await self._announcer.load(shards)
        count = len(sessions)
        self._announcer.take_up(sessions)
        self._shards.opened(shards)
        await self._watch.take_up(shards)
        for shard in shards:
            if self._shards.holds_shard(shard):
                self._reader.add(shard)
        log.info("shards served", count=len(shards), sessions=count)

    async def _drop(self, shards: set[int]) -> None:
        self._announcer.drop(shards)
        self._commands.drop(shards)
        await self._reader.drop(shards)

    async def _flush(self) -> None:
        try:
            await self._gateway.confirm()
        except StreamLostError:
            return  # what was sent on it is handled, or never will be

    async def _every(self, pause: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work again and again, while the stream is up."""
        while True:
            await asyncio.sleep(pause)
            await self._gateway.wait_established()
            try:
                await work()
            except (StreamLostError, *DATABASE_AWAY) as error:
                log.warning("to be done again", work=work.__qualname__, error=type(error).__name__)


async def run(settings: Settings) -> None:
    """Run a pool process until SIGTERM or SIGINT."""
    name = new_member_name()
    structlog.contextvars.bind_contextvars(pool=name)
    async with open_services(settings, celery_wake(make_celery(settings, "pool"))) as services:
        # what is there by now stays for good: to look through it for garbage would stop all else for 100 ms
        gc.freeze()
        work = asyncio.ensure_future(Pool(services, name).run())
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            log.info("stopped")
