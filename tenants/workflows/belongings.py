"""What a tenant has in ejabberd, found by its names.

Names end in the instance, or in nothing in a standalone system (`tenants.core.naming`). A tenant that was made in the
other mode is *foreign*: its names are what they were, and names of this system's own tenants may look the same, such as
an operator `bob.acme` of a standalone system. So what the registry says is another tenant's is never a foreign one's.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import select

from tenants.core.chunks import chunks
from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountKind, Naming, RoomName
from tenants.core.text import first_of
from tenants.ejabberd.client import Ejabberd
from tenants.lifecycle import hosts, registry
from tenants.process.services import Services
from tenants.store.models import Account, Room

_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""


def groups(naming: Naming, instance_name: str) -> list[str]:
    """Its shared rosters; operators' first, as they display visitors'."""
    return [group for one in _namings(naming, instance_name) for group in reversed(registry.groups(one, instance_name))]


async def there(services: Services, instance_name: str, ejabberd: Ejabberd) -> list[str]:
    """What bears its name at a host, or is in its rosters there: operators first, whose contacts the others are.

    Of a standalone system, whose names have no suffix, what is in the rosters and in the registry.
    """
    naming = services.naming
    found: set[str] = set()
    for group in registry.groups(naming, instance_name):
        if roster := await ejabberd.bulk.shared_roster(group):
            found.update(roster.members)
    if suffix := naming.username_suffix(instance_name):
        found.update(await ejabberd.bulk.usernames(suffix))
    else:
        async with services.database.read() as session:
            known = list(await session.scalars(select(Account.username).where(Account.instance_name == instance_name)))
        found.update(await ejabberd.bulk.having_accounts(known))
    return operators_first(naming, found)


def operators_first(naming: Naming, usernames: Collection[str]) -> list[str]:
    """The accounts in the order in which they go."""
    return sorted(usernames, key=lambda username: (_is_visitor(naming, username), username))


def _is_visitor(naming: Naming, username: str) -> bool:
    try:
        return naming.parse_username(username).kind is not AccountKind.OPERATOR
    except InvalidInputError:
        return True


async def usernames(services: Services, instance_name: str) -> set[str]:
    """Its accounts in the registry and in its rosters, and all that bears its name."""
    naming, ejabberd = services.naming, await hosts.ejabberd_of(services, instance_name)
    async with services.database.read() as session:
        names = set(await session.scalars(select(Account.username).where(Account.instance_name == instance_name)))
    for group in groups(naming, instance_name):
        if roster := await ejabberd.bulk.shared_roster(group):
            names.update(roster.members)
    # names without a suffix cannot be searched for
    for suffix in filter(None, _suffixes(naming, instance_name)):
        names.update(await ejabberd.bulk.usernames(suffix))
    if not naming.is_foreign(instance_name):
        return names
    async with services.database.read() as session:
        for some in chunks(sorted(names), _NAMES_AT_ONCE):
            others = select(Account.username).where(Account.username.in_(some), Account.instance_name != instance_name)
            names -= set(await session.scalars(others))
    return names


async def rooms(services: Services, instance_name: str) -> list[str]:
    """The local parts of its rooms in ejabberd."""
    naming, of_ejabberd = services.naming, (await hosts.ejabberd_of(services, instance_name)).rooms
    suffixes = _suffixes(naming, instance_name)
    if not naming.is_foreign(instance_name):
        # in a standalone system all rooms are its own
        return [local for suffix in suffixes for local in await of_ejabberd.names(suffix)]
    async with services.database.read() as session:
        rows = list(await session.execute(select(Room.name, Room.instance_name)))
    own = {f"{name}{suffix}" for name, owner in rows if owner == instance_name for suffix in suffixes}
    others = {naming.room(RoomName(*row)) for row in rows if not naming.is_foreign(row[1])}
    there = await of_ejabberd.names("")
    bearing = {local for local in there for suffix in filter(None, suffixes) if local.endswith(suffix)}
    return sorted((own.intersection(there) | bearing) - others)


async def left(services: Services, instance_name: str, at: Ejabberd | None = None) -> dict[str, str]:
    """What is still there, by kind; `at` another host than the tenant's."""
    of, ejabberd = groups(services.naming, instance_name), at or await hosts.ejabberd_of(services, instance_name)
    if services.naming.is_foreign(instance_name):
        found = {
            "accounts": await usernames(services, instance_name),
            "rosters": [group for group in of if await ejabberd.bulk.shared_roster(group)],
            "rooms": await rooms(services, instance_name),
        }
        return {kind: _described(len(names), names) for kind, names in found.items() if names}
    suffix = services.naming.username_suffix(instance_name)
    there = await ejabberd.bulk.tenant_left(suffix, of)
    return {kind: str(one) for kind, one in there.items()}


def _namings(naming: Naming, instance_name: str) -> Sequence[Naming]:
    if not naming.is_foreign(instance_name):
        return [naming]
    # while instances were hosted one of them could be called as a standalone system's is
    return [naming, naming.other] if naming.hosting else [naming.other]


def _suffixes(naming: Naming, instance_name: str) -> list[str]:
    return [one.username_suffix(instance_name) for one in _namings(naming, instance_name)]


def _described(count: int, names: Collection[str]) -> str:
    return f"{count}: {first_of(sorted(names))}"
