"""What the domain needs from outside, opened once per process and passed in."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from config.settings import Settings
from tenants.core.batching import Batcher, BatchFigures
from tenants.core.clock import Clock
from tenants.core.naming import Naming
from tenants.ejabberd.client import Ejabberd
from tenants.outbound.lhc import LhcClient
from tenants.outbound.webhooks import WebhookClient
from tenants.process.backlog import Backlog
from tenants.process.cache import Cache
from tenants.process.delivery_waker import PAUSE, DeliveryWaker, Wake
from tenants.process.rate_limits import CallLimiter
from tenants.shards.queues import CommandPublisher, open_publisher
from tenants.store.claims import ClaimRenewer
from tenants.store.database import Database

Item = TypeVar("Item")
Result = TypeVar("Result")

_AT_ONCE = 500
"""Items in one batch, at most."""
_WAITING = 2000
"""Items that may wait for a batch of one kind; further ones are refused."""


@dataclass(frozen=True, slots=True)
class Services:
    """The servers behind the domain. Closed by `open_services`."""

    settings: Settings
    database: Database
    claim_renewer: ClaimRenewer
    ejabberd: Ejabberd
    commands: CommandPublisher
    lhc: LhcClient
    webhooks: WebhookClient
    calls: CallLimiter
    backlog: Backlog
    cache: Cache
    naming: Naming
    wake: Wake
    delivery: DeliveryWaker
    clock: Clock
    _batchers: dict[str, Batcher[Any, Any]] = field(default_factory=dict)

    @property
    def batches(self) -> dict[str, BatchFigures]:
        """How busy each kind of batch is in this process, by its name."""
        return {name: batcher.figures for name, batcher in self._batchers.items()}

    async def finish_batches(self) -> None:
        """Wait until all is done that was asked for."""
        for batcher in self._batchers.values():
            await batcher.close()


@dataclass(frozen=True, slots=True)
class Batched(Generic[Item, Result]):
    """Work that is done at once for all who ask for it at the same time: see `Batcher`.

    Attributes:
        name: what /metrics calls it; no two have the same.
        work: gives a result for each item, in their order; an exception among them is raised for its caller alone.
    """

    name: str
    work: Callable[[Services, Sequence[Item]], Awaitable[Sequence[Result | Exception]]]

    async def do(self, services: Services, item: Item) -> Result:
        """Have the work done for the item, in the next batch.

        Raises:
            UnavailableError: too many wait for that work.
            Exception: what the work raised, or gave as this item's result.
        """
        batchers = services._batchers  # noqa: SLF001 - the two are one: what is kept is the process', what is done is ours
        batcher = batchers.get(self.name)
        if batcher is None:
            batcher = batchers[self.name] = Batcher(partial(self.work, services), at_most=_AT_ONCE, waiting=_WAITING)
        result: Result = await batcher.do(item)
        return result


@asynccontextmanager
async def open_services(
    settings: Settings, wake: Wake, clock: Clock = time.time, wake_pause: float = PAUSE
) -> AsyncIterator[Services]:
    """Open everything once; closed in the end, whatever happens. `wake_pause`: see `DeliveryWaker`."""
    database = Database(settings.database_url.get_secret_value())
    api_url, *other_urls = settings.api_urls
    secret = settings.ejabberd_api_secret.get_secret_value()
    ejabberd = Ejabberd(api_url, settings.xmpp_host, secret, other_urls=other_urls)
    commands = open_publisher(settings.broker_url.get_secret_value(), settings.shard_count)
    lhc = LhcClient(settings, clock)
    webhooks = WebhookClient(settings, clock)
    claim_renewer = ClaimRenewer(database, clock)
    services = Services(
        settings=settings,
        database=database,
        claim_renewer=claim_renewer,
        ejabberd=ejabberd,
        commands=commands,
        lhc=lhc,
        webhooks=webhooks,
        calls=CallLimiter(database, clock, settings.calls_per_second),
        backlog=Backlog(database, clock),
        cache=Cache(clock),
        naming=Naming(hosting=settings.hosting),
        wake=wake,
        delivery=DeliveryWaker(wake, wake_pause),
        clock=clock,
    )
    try:
        yield services
    finally:
        await services.finish_batches()
        await services.delivery.close()
        await commands.close()
        await claim_renewer.close()
        await webhooks.close()
        await lhc.close()
        await ejabberd.close()
        await database.close()
