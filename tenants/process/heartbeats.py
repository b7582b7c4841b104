"""Signs of life, written by the very paths that do the work, so that readiness means consumption."""

from dataclasses import asdict

from sqlalchemy import select

from tenants.process.services import Services
from tenants.store.models import Heartbeat

WORKER = "worker"
"""Beat, broker and the worker that delivers callbacks."""
LIFECYCLE = "lifecycle"
"""Beat, broker and the worker that runs workflows."""
BACKUP = "backup"
"""No process: when the latest backup was made. `tenants.status.attention` tells when that is too long ago."""
FRESH_SECONDS = 15.0
"""A sign older than this is none."""


async def beat(services: Services, name: str) -> None:
    """Note that the path of that name works, now, and how busy this process's batches are."""
    sign = {"at": services.clock(), "batches": {batch: asdict(busy) for batch, busy in services.batches.items()}}
    async with services.database.write() as session:
        await session.execute(
            services.database.insert(Heartbeat)
            .values(name=name, **sign)
            .on_conflict_do_update(index_elements=["name"], set_=sign)
        )


async def fresh(services: Services) -> set[str]:
    """The names of all that gave a sign of life lately."""
    async with services.database.read() as session:
        return set(await session.scalars(select(Heartbeat.name).where(Heartbeat.at > services.clock() - FRESH_SECONDS)))
