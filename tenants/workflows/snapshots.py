"""Snapshots: what ejabberd holds of tenants, and what the registry says of them, read for a comparison.

ejabberd is asked in pages, so the number of calls grows with what it holds, not with the number of tenants.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sqlalchemy import select

from tenants.core.errors import InvalidInputError
from tenants.core.naming import STANDALONE_INSTANCE, Naming, RoomName, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Ejabberd, Roster
from tenants.lifecycle import operations, served_hosts
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import EVERY_TENANT, UNFINISHED, Account, Operation, OperationKind, Room, Tenant, TenantState
from tenants.workflows.drift import OLD_SPELLING, Difference, DriftKind, KnownAccount, KnownRoom, Seen

_COMPARED = (TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DESTROYED)


@dataclass(slots=True)
class Snapshot:
    """What ejabberd holds, by tenant, on each host; and the names that belong to none."""

    hosts: dict[str, dict[str, Seen]] = field(default_factory=dict)
    unreadable: list[Difference] = field(default_factory=list)

    def take(self, host: str, instance_name: str) -> Seen:
        """What the tenant has on the host; it is not in the snapshot any more."""
        return self.hosts.get(host, {}).pop(instance_name, Seen())

    def rest(self) -> Iterator[tuple[str, str, Seen]]:
        """All that nobody took: host, tenant, and what it has there."""
        for host, seen in self.hosts.items():
            for instance_name, there in seen.items():
                if there.accounts or there.rosters or there.rooms:
                    yield host, instance_name, there


async def of_ejabberd(services: Services, scope: str) -> Snapshot:
    """What ejabberd holds of one tenant or of all, also on a host that is not the tenant's."""
    found = Snapshot()
    for host in await served_hosts.up(services):
        seen = found.hosts[host] = defaultdict(Seen)
        await _look_at_host(services.naming, services.ejabberd.at(host), scope, seen, found.unreadable)
    return found


async def _look_at_host(
    naming: Naming, ejabberd: Ejabberd, scope: str, seen: dict[str, Seen], unreadable: list[Difference]
) -> None:
    suffix = "" if scope == EVERY_TENANT else naming.username_suffix(scope)
    for username in await ejabberd.bulk.accounts(suffix):
        try:
            name = naming.parse_username(username)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, error.rule))
            continue
        if naming.username(name) == username:
            seen[name.instance].accounts.add(username)
        else:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, OLD_SPELLING))
    for local in await ejabberd.rooms.names(suffix):
        try:
            room = naming.parse_room(local)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, local, f"a room: {error.rule}"))
            continue
        seen[room.instance].rooms.add(local)
    if scope == EVERY_TENANT:
        await _look_at_all_rosters(naming, ejabberd, seen, unreadable)
    else:
        await _look_at_rosters(naming, ejabberd, scope, seen[scope])
    await _look_at_contacts(naming, ejabberd, suffix, seen)


async def _look_at_all_rosters(
    naming: Naming, ejabberd: Ejabberd, seen: Mapping[str, Seen], unreadable: list[Difference]
) -> None:
    async for group in ejabberd.bulk.shared_rosters():
        try:
            of = naming.parse_group(group.group)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, group.group, error.rule))
            continue
        roster = Roster(group.label, group.description, group.displayed)
        seen[of.instance].rosters[of.kind] = roster, frozenset(group.members)


async def _look_at_rosters(naming: Naming, ejabberd: Ejabberd, instance_name: str, seen: Seen) -> None:
    for kind in RosterKind:
        group = rosters.group_of(naming, instance_name, kind)
        roster = await ejabberd.bulk.shared_roster(group)
        if roster is not None:
            seen.rosters[kind] = Roster(roster.label, roster.description, roster.displayed), frozenset(roster.members)


async def _look_at_contacts(naming: Naming, ejabberd: Ejabberd, suffix: str, seen: Mapping[str, Seen]) -> None:
    """What operators keep in their own contacts is their matter, unless it bears the name of a tenant that is there."""
    for username in await ejabberd.bulk.stray_contacts(suffix):
        with suppress(InvalidInputError):
            instance_name = naming.parse_username(username).instance
            if instance_name in seen:
                seen[instance_name].strays.add(username)


async def states(database: Database, scope: str) -> dict[str, TenantState]:
    """The states of the tenants that the registry knows, by name; also of those that are destroyed."""
    query = select(Tenant.instance_name, Tenant.state)
    if scope != EVERY_TENANT:
        query = query.where(Tenant.instance_name == scope)
    async with database.read() as session:
        return {row.instance_name: row.state for row in await session.execute(query)}


def between(tenants: Mapping[str, TenantState]) -> set[str]:
    """Those of the tenants that are on the way from one state to another."""
    return {name for name, state in tenants.items() if state not in _COMPARED}


async def foreign(services: Services, tenants: Collection[str]) -> set[str]:
    """Those of the tenants that were made in the other mode, so that their names mean nothing here."""
    found = {name for name in tenants if services.naming.is_foreign(name)}
    if not found or not services.naming.hosting:
        return found
    # while instances were hosted one of them could be called as a standalone system's is
    unlike = ~Account.username.endswith(f".{STANDALONE_INSTANCE}")
    async with services.database.read() as session:
        return set(await session.scalars(select(Account.instance_name).where(Account.instance_name.in_(found), unlike)))


async def busy(database: Database, scope: str) -> set[str]:
    """Tenants that have an unfinished operation of another kind than a reconciliation, or a move that ended halfway."""
    query = select(Operation.instance_name).where(
        Operation.state.in_(UNFINISHED), Operation.kind != OperationKind.RECONCILE
    )
    if scope != EVERY_TENANT:
        query = query.where(Operation.instance_name == scope)
    async with database.read() as session:
        moving = {name for name in await operations.halfway(session) if scope in {EVERY_TENANT, name}}
        return moving | set(await session.scalars(query))


async def accounts_of(services: Services, instance_names: Sequence[str]) -> dict[str, dict[str, KnownAccount]]:
    """What the registry says of the tenants' accounts: by tenant, then by username."""
    known: dict[str, dict[str, KnownAccount]] = defaultdict(dict)
    query = select(
        Account.username, Account.instance_name, Account.state, Account.created_at, Account.last_active_at
    ).where(Account.instance_name.in_(instance_names))
    async with services.database.read() as session:
        for username, instance_name, state, created_at, last_active_at in await session.execute(query):
            name = services.naming.parse_username(username)
            known[instance_name][username] = KnownAccount(name, state, created_at, last_active_at)
    return known


async def rooms_of(services: Services, instance_names: Sequence[str]) -> dict[str, dict[str, KnownRoom]]:
    """What the registry says of the tenants' rooms: by tenant, then by the room's local part."""
    known: dict[str, dict[str, KnownRoom]] = defaultdict(dict)
    query = select(Room.name, Room.instance_name, Room.state, Room.changed_at).where(
        Room.instance_name.in_(instance_names)
    )
    async with services.database.read() as session:
        for name, instance_name, state, changed_at in await session.execute(query):
            known[instance_name][services.naming.room(RoomName(name, instance_name))] = KnownRoom(state, changed_at)
    return known
