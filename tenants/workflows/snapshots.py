"""Snapshots: what ejabberd holds of tenants, and what the registry says of them, read for a comparison.

ejabberd is asked in pages, so the number of calls grows with what it holds, not with the number of tenants.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from sqlalchemy import select

from tenants.core.errors import InvalidInputError
from tenants.core.naming import STANDALONE_INSTANCE, RoomName, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import EVERY_TENANT, UNFINISHED, Account, Operation, OperationKind, Room, Tenant, TenantState
from tenants.workflows.drift import OLD_SPELLING, Difference, DriftKind, KnownAccount, KnownRoom, Seen

_COMPARED = (TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DESTROYED)


async def of_ejabberd(services: Services, scope: str) -> tuple[dict[str, Seen], list[Difference]]:
    """What ejabberd holds, by tenant, of one tenant or of all; and the names that belong to none."""
    seen: dict[str, Seen] = defaultdict(Seen)
    unreadable: list[Difference] = []
    suffix = "" if scope == EVERY_TENANT else services.naming.username_suffix(scope)
    for username in await services.ejabberd.bulk.accounts(suffix):
        try:
            name = services.naming.parse_username(username)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, error.rule))
            continue
        if services.naming.username(name) == username:
            seen[name.instance].accounts.add(username)
        else:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, OLD_SPELLING))
    for local in await services.ejabberd.rooms.names(suffix):
        try:
            room = services.naming.parse_room(local)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, local, f"a room: {error.rule}"))
            continue
        seen[room.instance].rooms.add(local)
    if scope != EVERY_TENANT:
        await _look_at_rosters(services, scope, seen[scope])
        await _look_at_contacts(services, suffix, seen)
        return seen, unreadable
    async for group in services.ejabberd.bulk.shared_rosters():
        try:
            of = services.naming.parse_group(group.group)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, group.group, error.rule))
            continue
        roster = Roster(group.label, group.description, group.displayed)
        seen[of.instance].rosters[of.kind] = roster, frozenset(group.members)
    await _look_at_contacts(services, suffix, seen)
    return seen, unreadable


async def _look_at_rosters(services: Services, instance_name: str, seen: Seen) -> None:
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        roster = await services.ejabberd.roster(group)
        if roster is not None:
            seen.rosters[kind] = roster, frozenset(await services.ejabberd.roster_members(group))


async def _look_at_contacts(services: Services, suffix: str, seen: Mapping[str, Seen]) -> None:
    """What operators keep in their own contacts is their matter, unless it bears the name of a tenant that is there."""
    for username in await services.ejabberd.bulk.stray_contacts(suffix):
        with suppress(InvalidInputError):
            instance_name = services.naming.parse_username(username).instance
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
    """Tenants that have an unfinished operation of another kind than a reconciliation."""
    query = select(Operation.instance_name).where(
        Operation.state.in_(UNFINISHED), Operation.kind != OperationKind.RECONCILE
    )
    if scope != EVERY_TENANT:
        query = query.where(Operation.instance_name == scope)
    async with database.read() as session:
        return set(await session.scalars(query))


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
