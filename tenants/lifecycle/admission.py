"""Which tenants carry traffic, and of which accounts: active ones, within the features that they have.

A tenant that carries no traffic is *shut*: its calls are refused, nothing is posted to its LHC, and what waits goes on
waiting.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.chunks import chunks
from tenants.core.errors import ConflictError, NotFoundError
from tenants.core.naming import AccountKind
from tenants.lifecycle import registry
from tenants.process.cache import Cache
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import Routing, Tenant, TenantState

_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""
OPEN = and_(Tenant.state == TenantState.ACTIVE, Tenant.xmpp)
"""The condition that the tenant carries traffic."""
SHUT = and_(not_(OPEN), Tenant.state != TenantState.DESTROYED)
"""The condition that the tenant carries no traffic now, but may do so again."""
LIMITED = or_(not_(OPEN), not_(Tenant.visitor_tracking))
"""The condition that the tenant carries no traffic, or none of visitors."""


def refusal(tenant: Tenant, kind: AccountKind | None = None) -> str | None:
    """Why the tenant carries no traffic of accounts of that kind; None when it does."""
    if tenant.state is not TenantState.ACTIVE:
        return f"tenant '{tenant.instance_name}' is {tenant.state}, not active"
    if not tenant.xmpp:
        return f"tenant '{tenant.instance_name}' does not have the feature 'xmpp'"
    if kind is AccountKind.VISITOR and not tenant.visitor_tracking:
        return f"tenant '{tenant.instance_name}' does not have the feature 'visitor_tracking'"
    return None


async def get(services: Services, instance_name: str, kind: AccountKind | None = None) -> Tenant:
    """The tenant, ready for traffic of accounts of that kind.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active, or lacks the feature.
    """
    asked_at = services.clock()
    tenant = await registry.get(services, instance_name)
    remember(services.cache, tenant, asked_at)
    return _checked(tenant, kind)


def remember(cache: Cache, tenant: Tenant, read_at: float) -> None:
    """Keep the tenant in this process's cache, as it was read at that time."""
    before = cache.tenants.get(tenant.instance_name)
    cache.tenants.keep(tenant.instance_name, tenant, read_at)
    if before is not None and not refusal(before) and refusal(tenant):
        cache.drop_renewed(tenant.instance_name)


async def read_again(services: Services, instance_names: Sequence[str]) -> None:
    """Read these tenants into this process's cache."""
    now = services.clock()
    async with services.database.read() as session:
        tenants = await session.scalars(select(Tenant).where(Tenant.instance_name.in_(instance_names)))
        found = {tenant.instance_name: tenant for tenant in tenants}
    for name in instance_names:
        if name in found:
            remember(services.cache, found[name], now)
        else:
            services.cache.tenants.forget(name)


async def look(services: Services, instance_name: str) -> Tenant:
    """The tenant, in whatever state, as it was a moment ago (`tenants.process.cache`).

    Raises:
        NotFoundError: there is none.
    """
    known = services.cache.tenants.get(instance_name)
    if known is not None and known.state is not TenantState.DESTROYED:
        return known
    asked_at = services.clock()
    tenant = await registry.get(services, instance_name)
    remember(services.cache, tenant, asked_at)
    return tenant


async def recent(services: Services, instance_name: str, kind: AccountKind | None = None) -> Tenant:
    """`get`, as it was a moment ago (`tenants.process.cache`): for callers that lock the tenant's row before a change.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active, or lacks the feature.
    """
    known = services.cache.tenants.get(instance_name)
    return known if known is not None and not refusal(known, kind) else await get(services, instance_name, kind)


async def get_routed(services: Services, instance_name: str) -> Tenant:
    """The tenant, ready for traffic of chats, which this system routes for it.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active, lacks the feature, or routes its chats itself.
    """
    return check_routed(await get(services, instance_name, AccountKind.CHAT))


def check_routed(tenant: Tenant) -> Tenant:
    """The tenant, when this system routes its chats.

    Raises:
        ConflictError: it routes them itself.
    """
    if tenant.routing is not Routing.ORCHESTRATOR:
        raise ConflictError(f"tenant '{tenant.instance_name}' routes its chats itself: set `routing` to `orchestrator`")
    return tenant


async def find(database: Database, instance_name: str) -> Tenant | None:
    """`get`, but None when there is no such tenant.

    Raises:
        ConflictError: it is not active, or lacks the feature.
    """
    tenant = await registry.find(database, instance_name)
    return None if tenant is None else _checked(tenant)


async def hold(session: AsyncSession, instance_name: str, kind: AccountKind | None, *, alone: bool = False) -> Tenant:
    """`get`, in a transaction: the tenant stays open until its end. `alone`: and nobody else holds the tenant.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active (any more), or lacks the feature.
    """
    tenant = await session.get(Tenant, instance_name, with_for_update={"read": not alone}, populate_existing=True)
    return check(tenant, instance_name, kind)


def check(tenant: Tenant | None, instance_name: str, kind: AccountKind | None) -> Tenant:
    """The tenant, which was found or not, when it carries traffic of accounts of that kind.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active, or lacks the feature.
    """
    if tenant is None or tenant.state is TenantState.DESTROYED:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return _checked(tenant, kind)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why we do not keep something that ejabberd handed over. `later`: ejabberd may try again later."""

    reason: str
    later: bool = False


def stranger(tenant: Tenant, host: str) -> str | None:
    """Why what comes from that host is not of the tenant, whatever name it bears; None when the tenant lives there."""
    return None if tenant.xmpp_host == host else f"there is no tenant '{tenant.instance_name}' at {host}"


async def hold_many(session: AsyncSession, instance_names: Collection[str]) -> tuple[dict[str, Tenant], dict[str, str]]:
    """The tenants, and why some of them carry no traffic. The others stay open until the end of the transaction."""
    found = await session.scalars(
        select(Tenant)
        .where(Tenant.instance_name.in_(instance_names))
        .order_by(Tenant.instance_name)
        .with_for_update(read=True)
    )
    tenants = {tenant.instance_name: tenant for tenant in found}
    refused = {name: f"there is no tenant '{name}'" for name in instance_names if name not in tenants}
    for name, tenant in tenants.items():
        if why := refusal(tenant):
            refused[name] = why
    return tenants, refused


async def hold_unless_ending(session: AsyncSession, instance_name: str) -> Tenant | None:
    """The tenant, which cannot end before the transaction does; None when its end has begun."""
    tenant = await session.get(Tenant, instance_name, with_for_update={"read": True}, populate_existing=True)
    return None if tenant is None or tenant.state in {TenantState.DESTROYING, TenantState.DESTROYED} else tenant


async def limited_of(database: Database, instance_names: Sequence[str]) -> list[Tenant]:
    """Those of the tenants that carry no traffic, or not of all kinds of accounts.

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    tenants: list[Tenant] = []
    async with database.read() as session:
        for some in chunks(instance_names, _NAMES_AT_ONCE):
            tenants += await session.scalars(select(Tenant).where(Tenant.instance_name.in_(some), LIMITED))
    return tenants


async def is_shut(session: AsyncSession, instance_name: str) -> bool:
    """Whether what waits for the tenant must go on waiting."""
    return (
        await session.scalar(select(Tenant.instance_name).where(Tenant.instance_name == instance_name, SHUT))
        is not None
    )


def _checked(tenant: Tenant, kind: AccountKind | None = None) -> Tenant:
    why = refusal(tenant, kind)
    if why is not None:
        raise ConflictError(why)
    return tenant
