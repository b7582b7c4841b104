"""Runners: coroutines that deliver callbacks, few per tenant and bounded in all, so that no tenant delays another."""

import asyncio
from collections import Counter

import structlog

from tenants.delivery.claim_work import claim_next
from tenants.delivery.worker import deliver
from tenants.outbound.poster import MAX_CONNECTIONS
from tenants.process.services import Services

log = structlog.get_logger(__name__)

PER_TENANT = 4
"""Callbacks of one tenant under way at once, per process."""
IN_ALL = MAX_CONNECTIONS
"""Callbacks under way at once, per process: none of them ever waits for a connection."""


class Runners:
    """The runners of one process. `start` and `stop` are called in its event loop."""

    def __init__(self, services: Services, *, per_tenant: int = PER_TENANT, in_all: int = IN_ALL) -> None:
        self._services = services
        self._per_tenant = per_tenant
        self._in_all = in_all
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Counter[str] = Counter()
        self._look_again: set[str] = set()
        """Tenants woken while all their runners were busy: one of these could be just about to end."""
        self._waiting: dict[str, None] = {}
        """Tenants woken while the process was full, in order: each stands here once."""
        self._stopping = False

    def start(self, *instance_names: str) -> None:
        """Start a runner for each tenant. Where there are enough already, one of those sees to it."""
        for instance_name in instance_names:
            self._start(instance_name)

    def _start(self, instance_name: str) -> None:
        if self._stopping:
            return
        if self._running[instance_name] >= self._per_tenant:
            self._look_again.add(instance_name)
            return
        if self._running.total() >= self._in_all:
            self._waiting[instance_name] = None
            return
        self._running[instance_name] += 1
        task = asyncio.create_task(self._run(instance_name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def take_no_more(self) -> None:
        """Finish what is under way, begin nothing new."""
        self._stopping = True

    async def stop(self, grace: float) -> None:
        """Finish what is under way; what is not done after `grace` seconds is cancelled and given back."""
        self.take_no_more()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        cancelled = list(self._tasks)
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)

    async def _run(self, instance_name: str) -> None:
        with structlog.contextvars.bound_contextvars(instance_name=instance_name):
            try:
                await self._work(instance_name)
            except Exception:
                # its claim ends by itself and the sweep wakes the tenant again
                log.exception("runner failed")
            finally:
                self._finished(instance_name)

    async def _work(self, instance_name: str) -> None:
        """Do the tenant's due work piece by piece, until there is none or another tenant waits for the place."""
        while not self._stopping:
            self._look_again.discard(instance_name)
            piece = await claim_next(self._services, instance_name)
            if piece is None:
                if instance_name in self._look_again:
                    continue
                return
            if piece.more:
                self._start(instance_name)
            await deliver(self._services, piece, lambda: not (self._stopping or self._waiting))
            if self._waiting:
                self._waiting[instance_name] = None
                return

    def _finished(self, instance_name: str) -> None:
        self._running[instance_name] -= 1
        if not self._running[instance_name]:
            del self._running[instance_name]
        while self._waiting and self._running.total() < self._in_all:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            self._start(waiting)
