"""Steps that end the sessions of a tenant, and let its people in again. Each may run twice."""

import asyncio

from sqlalchemy import func, select

from tenants.core.errors import DomainError
from tenants.core.text import first_of
from tenants.lifecycle.engine import Run
from tenants.shards.commands import CloseTenant
from tenants.store.database import Database
from tenants.store.models import VisitorSession

_SESSIONS_CLOSED_WITHIN = 20.0
"""Seconds that the pool has to tell operators that the tenant's visitors left."""


async def close_sessions(run: Run) -> None:
    """Let operators see the visitors leave before their contacts go. The pool removes each session afterwards."""
    services, instance_name = run.services, run.instance_name
    # without an incarnation: a pool process closes all that it shows of that name
    await services.commands.publish(CloseTenant(instance_name=instance_name))
    deadline = services.clock() + _SESSIONS_CLOSED_WITHIN
    first = left = await _open_sessions(services.database, instance_name)
    while left:
        if services.clock() > deadline:
            raise DomainError(f"the pool has not closed {left} visitor sessions yet")
        await run.report(max(first - left, 0), first)
        await asyncio.sleep(0.2)
        left = await _open_sessions(services.database, instance_name)


async def _open_sessions(database: Database, instance_name: str) -> int:
    async with database.read() as session:
        count = await session.scalar(
            select(func.count()).select_from(VisitorSession).where(VisitorSession.instance_name == instance_name)
        )
    return count or 0


async def shut_out(run: Run) -> None:
    """End the XMPP sessions of the tenant's people, and let nobody log in. What waits for them stays."""
    ejabberd = await run.ejabberd()
    if left := await ejabberd.bulk.shut_tenant(run.instance_name):
        raise DomainError(f"still logged in: {first_of(left)}")


async def let_in(run: Run) -> None:
    await (await run.ejabberd()).bulk.open_tenant(run.instance_name)
