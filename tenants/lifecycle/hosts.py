"""On which XMPP host a tenant lives: chosen when the tenant is made, and changed by a move alone.

It is as good from memory as the tenant itself: no process remembers one for as long as a name rests between two
tenants (`tenants.lifecycle.incarnations`), and a tenant that moves is closed for longer (`tenants.workflows.move`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import select

from tenants.core.chunks import chunks
from tenants.ejabberd.client import Ejabberd
from tenants.process.services import Services
from tenants.store.models import Tenant

_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""


async def find(services: Services, instance_name: str) -> str | None:
    """The tenant's host, also of one that is gone; None: no tenant ever bore the name."""
    if (tenant := services.cache.tenants.get(instance_name)) is not None:
        return tenant.xmpp_host
    if (known := services.cache.hosts.get(instance_name)) is not None:
        return known
    asked_at = services.clock()
    async with services.database.read() as session:
        host = await session.scalar(select(Tenant.xmpp_host).where(Tenant.instance_name == instance_name))
    if host is not None:
        services.cache.hosts.keep(instance_name, host, asked_at)
    return host


async def of(services: Services, instance_name: str) -> str:
    """`find`, and the default host for a name that no tenant ever bore."""
    return await find(services, instance_name) or services.settings.xmpp_host


async def of_many(services: Services, instance_names: Collection[str]) -> dict[str, str]:
    """`of`, by name."""
    found = dict.fromkeys(instance_names, services.settings.xmpp_host)
    async with services.database.read() as session:
        for some in chunks(sorted(found), _NAMES_AT_ONCE):
            query = select(Tenant.instance_name, Tenant.xmpp_host).where(Tenant.instance_name.in_(some))
            found.update((name, host) for name, host in await session.execute(query))
    return found


async def ejabberd_of(services: Services, instance_name: str) -> Ejabberd:
    """The admin client of the tenant's host."""
    return services.ejabberd.at(await of(services, instance_name))


async def by_ejabberd(services: Services, usernames: Iterable[str]) -> list[tuple[Ejabberd, list[str]]]:
    """The accounts by the admin client of the host that their tenants live on."""
    instances = {username: services.naming.parse_username(username).instance for username in usernames}
    host_of = await of_many(services, set(instances.values()))
    grouped: dict[str, list[str]] = defaultdict(list)
    for username, instance_name in instances.items():
        grouped[host_of[instance_name]].append(username)
    return [(services.ejabberd.at(host), some) for host, some in grouped.items()]
