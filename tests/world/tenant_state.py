"""All that the registry and ejabberd hold of a tenant, to compare it before and after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import select

from tenants.store.models import Base
from testbed.system import domain_of
from tests.world.tenant import Tenant

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
"""Of `visitor.1`."""


async def everything(tenant: Tenant) -> dict[str, Any]:
    """All that the registry holds of the tenant, and ejabberd."""
    found: dict[str, Any] = {}
    async with domain_of(tenant.system) as services, services.database.read() as session:
        for table in Base.metadata.sorted_tables:
            # an operator's client answers pings all the while
            if "instance_name" in table.columns and table.name != "operator_presences":
                rows = await session.execute(select(table).where(table.columns.instance_name == tenant.name))
                found[table.name] = sorted(repr(row) for row in rows)

    async def ask(command: str, **arguments: Any) -> Any:
        return await tenant.system.ejabberd(command, host=HOST, **arguments)

    users = await tenant.system.users_of(tenant.name)
    found["users"] = users
    for user, password in ((tenant.lhc.name("bob"), "operator-pw"), (tenant.lhc.name("visitor.1"), PASSWORD)):
        found[f"password of {user}"] = await ask("check_password", user=user, password=password)
    for kind in ("operators", "visitors"):
        group = f"{kind}.{tenant.name}"
        found[group] = [await ask("srg_get_info", group=group), await ask("srg_get_members", group=group)]
    for user in users:
        sessions = await ask("user_sessions_info", user=user)
        found[f"sessions of {user}"] = [{**session, "uptime": 0} for session in sessions]
    found["kept"] = await ask("lhc_tenant_left", suffix=f".{tenant.name}", groups=[])
    return found


@asynccontextmanager
async def nothing_changes(*tenants: Tenant) -> AsyncIterator[None]:
    before = [await everything(tenant) for tenant in tenants]
    yield
    assert [await everything(tenant) for tenant in tenants] == before
