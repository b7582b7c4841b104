"""The shards of this process: taken by lease, shared evenly with the other pool processes, and given up when due.

A shard is *held* while its lease is ours, and *served* once its sessions are restored. All code that acts for a tenant
asks `serves` at the last moment before. The answer depends on a clock that goes on while the process is frozen: one
that wakes up after its term does nothing for shards that others may have taken. What it was in the middle of is ended
at ejabberd: a process that takes a deserted shard first has the deserter's connection cut (`Gateway.fence`).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable

import structlog

from tenants.core.backoff import delay
from tenants.process import leases
from tenants.process.leases import Lease, Taken
from tenants.process.services import Services
from tenants.shards.commands import shard_of
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.stream import StreamLostError

log = structlog.get_logger(__name__)

_PAUSE = 1.0
"""Seconds between two renewals."""
_MARGIN = 1.0
"""Seconds by which we stop acting before the lease ends."""


class Shards:
    """Takes shards, and lets them go.

    Callbacks, all awaited in the event loop:
        fit: whether this process can serve at all.
        restore: makes the given shards ready to be served. Raises StreamLostError or DATABASE_AWAY to be called again.
        drop: they are no longer served: forget all about them.
        flush: returns when everything that was sent is handled; called before shards are given to others in good order.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        *,
        fit: Callable[[], bool],
        restore: Callable[[list[Taken]], Awaitable[None]],
        drop: Callable[[set[int]], Awaitable[None]],
        flush: Callable[[], Awaitable[None]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._name = name
        self._fit = fit
        self._restore = restore
        self._drop = drop
        self._flush = flush
        self._monotonic = monotonic
        self._held: dict[int, Lease] = {}
        self._served: set[int] = set()
        self._valid_until = 0.0
        self._taken: asyncio.Queue[list[Taken]] = asyncio.Queue()
        """To be restored; bounded by the number of shards."""

    def serves(self, instance_name: str) -> bool:
        """Whether this process may act for the tenant, now."""
        return self.serves_shard(self._shard_of(instance_name))

    def serves_shard(self, shard: int) -> bool:
        """Whether this process may act for the shard, now."""
        return shard in self._served and self._monotonic() < self._valid_until

    def holds_shard(self, shard: int) -> bool:
        """Whether the shard's lease is ours, as far as we know."""
        return shard in self._held

    def lease_of(self, instance_name: str) -> Lease | None:
        """The lease under which we act for the tenant, for what is to be fenced in the database."""
        return self._held.get(self._shard_of(instance_name))

    def opened(self, shards: Iterable[int]) -> None:
        """From now on these shards are served, unless they were lost meanwhile."""
        self._served.update(shard for shard in shards if shard in self._held)

    async def run(self) -> None:
        """Hold a fair share of the shards; until cancelled, and then let them go for others to take at once."""
        await self._retrying(lambda: leases.prepare(self._services))
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._keep_fair_share(), name="leases")
                loops.create_task(self._restore_taken(), name="restore")
        finally:
            await self._leave()

    async def _keep_fair_share(self) -> None:
        while True:
            try:
                await self._tick()
            except DATABASE_AWAY as error:
                log.warning("leases not renewed", error=type(error).__name__)
            await asyncio.sleep(_PAUSE)

    async def _tick(self) -> None:
        if self._held and self._monotonic() >= self._valid_until:
            log.warning("leases ran out", shards=len(self._held))
            await self._lose(self._held.keys())
        if not self._fit():
            if self._held:
                log.warning("not fit to serve, shards released", shards=len(self._held))
                await self._give_up(list(self._held), leaving=True)
            return
        started, was_valid_until = self._monotonic(), self._valid_until
        renewal = await leases.renew(self._services, self._name, self._held.values())
        if self._held and self._monotonic() >= was_valid_until:
            log.warning("leases renewed too late", shards=len(self._held))
            # commands were skipped meanwhile: begin anew with what is not acknowledged
            await self._give_up(list(self._held))
        self._valid_until = started + leases.TERM - _MARGIN
        lost = self._held.keys() - renewal.kept
        if lost:
            log.warning("shards lost to others", shards=sorted(lost))
            await self._lose(lost)
        fair_share = -(-self._services.settings.shard_count // renewal.members)
        if len(self._held) > fair_share:
            await self._give_up(sorted(self._held)[fair_share:])
        elif len(self._held) < fair_share:
            await self._take(fair_share - len(self._held))

    async def _take(self, at_most: int) -> None:
        taken = await leases.take(self._services, self._name, at_most)
        if not taken:
            return
        self._held.update({one.lease.shard: one.lease for one in taken})
        deserters = sorted({one.deserted_by for one in taken if one.deserted_by})
        log.info("shards taken", count=len(taken), held=len(self._held), deserted_by=deserters)
        self._taken.put_nowait(taken)

    async def _restore_taken(self) -> None:
        while True:
            taken = await self._taken.get()
            failures = 0
            while taken := [one for one in taken if self._held.get(one.lease.shard) == one.lease]:
                try:
                    await self._restore(taken)
                    break
                except (StreamLostError, *DATABASE_AWAY) as error:
                    failures += 1
                    log.warning("shards not restored yet", count=len(taken), error=type(error).__name__)
                    await asyncio.sleep(delay(failures, first=0.2, longest=2))

    async def _give_up(self, shards: Collection[int], *, leaving: bool = False) -> None:
        """Let shards go in good order."""
        log.info("shards given up", count=len(shards))
        await self._lose(shards)
        await self._flush()
        await leases.release(self._services, self._name, shards, leaving=leaving)

    async def _lose(self, shards: Collection[int]) -> None:
        lost = set(shards)
        for shard in lost:
            del self._held[shard]
        self._served -= lost
        await self._drop(lost)

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(leases.TERM):
                await self._give_up(list(self._held), leaving=True)
        except (*DATABASE_AWAY, TimeoutError) as error:
            log.warning("leases not given back, they will run out", error=type(error).__name__)

    async def _retrying(self, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                return await work()
            except DATABASE_AWAY as error:
                failures += 1
                log.warning("the database does not answer yet", error=type(error).__name__)
                await asyncio.sleep(delay(failures, first=0.2, longest=5))

    def _shard_of(self, instance_name: str) -> int:
        return shard_of(instance_name, self._services.settings.shard_count)
