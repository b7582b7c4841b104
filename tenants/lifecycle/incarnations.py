"""Which tenant bears a name now: one that is made again under the name of another is another incarnation."""

from collections.abc import Sequence

from sqlalchemy import select

from tenants.core.chunks import chunks
from tenants.store.database import Database
from tenants.store.models import Tenant, TenantState

_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""


async def incarnations_of(database: Database, instance_names: Sequence[str]) -> dict[str, str]:
    """The incarnations by instance name; without those names that no tenant bears (any more).

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    found: dict[str, str] = {}
    for some in chunks(instance_names, _NAMES_AT_ONCE):
        present = select(Tenant.instance_name, Tenant.incarnation).where(
            Tenant.instance_name.in_(some), Tenant.state != TenantState.DESTROYED
        )
        async with database.read() as session:
            found.update((name, incarnation) for name, incarnation in await session.execute(present))
    return found
