"""All that the registry and ejabberd hold of a tenant, to compare it before and after."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from sqlalchemy import select

from bench.testbed.system import System
from tenants.store.database import Database
from tenants.store.models import Base
from tests.world.tenant import Tenant

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
"""Of `visitor.1`."""
_ALL = 10_000
"""Names in one answer, as many as there may be."""


@asynccontextmanager
async def nothing_changes(*tenants: Tenant) -> AsyncIterator[None]:
    async with looking_into(tenants[0].system) as look:
        before = [await look.everything(tenant) for tenant in tenants]
        yield
        assert [await look.everything(tenant) for tenant in tenants] == before


@asynccontextmanager
async def looking_into(system: System) -> AsyncIterator["Look"]:
    """Open the registry and ejabberd's admin API once, because that takes longer than to look."""
    database = Database(system.endpoints["database_url"])
    try:
        async with httpx.AsyncClient(
            base_url=system.endpoints["ejabberd_api"],
            headers=system.ejabberd_headers,
            timeout=10,
            verify=False,  # noqa: S501 - plain HTTP; loading CAs takes longer than the call
        ) as http:
            yield Look(database, http)
    finally:
        await database.close()


class Look:
    """What there is of a tenant in a running system."""

    def __init__(self, database: Database, http: httpx.AsyncClient) -> None:
        self._database = database
        self._http = http

    async def everything(self, tenant: Tenant) -> dict[str, Any]:
        """All that the registry holds of the tenant, and ejabberd."""
        found = await self._rows(tenant.name)
        users = await self._ask("lhc_accounts", suffix=f".{tenant.name}", after="", limit=_ALL)
        found["users"] = users
        for user, password in ((tenant.lhc.name("bob"), "operator-pw"), (tenant.lhc.name("visitor.1"), PASSWORD)):
            found[f"password of {user}"] = await self._ask("check_password", user=user, password=password)
        for kind in ("operators", "visitors"):
            group = f"{kind}.{tenant.name}"
            members = await self._ask("srg_get_members", group=group)
            found[group] = [await self._ask("srg_get_info", group=group), members]
        for user in users:
            sessions = await self._ask("user_sessions_info", user=user)
            found[f"sessions of {user}"] = [{**session, "uptime": 0} for session in sessions]
        found["kept"] = await self._ask("lhc_tenant_left", suffix=f".{tenant.name}", groups=[])
        return found

    async def _rows(self, instance_name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        async with self._database.read() as session:
            for table in Base.metadata.sorted_tables:
                # an operator's client answers pings all the while
                if "instance_name" in table.columns and table.name != "operator_presences":
                    rows = await session.execute(select(table).where(table.columns.instance_name == instance_name))
                    found[table.name] = sorted(repr(row) for row in rows)
        return found

    async def _ask(self, command: str, **arguments: Any) -> Any:
        response = await self._http.post(f"/{command}", json={"host": HOST, **arguments})
        response.raise_for_status()
        return response.json()
