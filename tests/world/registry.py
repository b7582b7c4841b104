"""The domain's services on one database, with a clock that the test holds and every wake-up kept."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from config.settings import Settings
from tenants.lifecycle import registry, states
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services, open_services
from tenants.store.models import Base, TenantState


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """The services on one database, with a clock of ours and every wake-up kept."""

    services: Services
    clock: Clock
    woken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def open_tenant(self, instance_name: str, **settings: object) -> None:
        """A tenant that is active, without a workflow."""
        await registry.put(self.services, instance_name, TenantSpec(settings), Cause("test"))
        await self.enter(instance_name, TenantState.PROVISIONING, TenantState.ACTIVE)

    async def clear(self) -> None:
        """Empty the registry: each test begins with nothing."""
        async with self.services.database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                await session.execute(table.delete())

    async def enter(self, instance_name: str, *new: TenantState) -> None:
        """Bring the tenant into these states, one after another."""
        async with self.services.database.write() as session:
            for state in new:
                await states.transition(session, self.clock(), instance_name, state, Cause("test"))


@asynccontextmanager
async def make_world(database_url: str, **settings: object) -> AsyncIterator[World]:
    clock = Clock()
    woken: list[tuple[str, dict[str, Any]]] = []

    async def wake(task: str, **arguments: Any) -> None:
        woken.append((task, arguments))

    # nothing here talks to the broker, nor to ejabberd, unless the settings name one
    configured = Settings(database_url=database_url, **{"broker_url": "redis://127.0.0.1:1/0", **settings})  # type: ignore[arg-type]
    async with open_services(configured, wake, clock, wake_pause=0) as services:
        yield World(services, clock, woken)


@asynccontextmanager
async def emptied_world(database_url: str) -> AsyncIterator[World]:
    """A world that leaves an empty registry to the next one."""
    async with make_world(database_url) as made:
        yield made
        await made.clear()
