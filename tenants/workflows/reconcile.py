"""Reconciliation: what ejabberd holds, compared with what the registry says, and put right.

ejabberd is asked in pages, and in an order that makes races harmless: first ejabberd, then the registry, whose rows are
there before their accounts and stay until after them. What is young is left alone. Before anything is touched it is
looked at once more on both sides, and an account is removed only under a claim on its row, so that whoever registers
it at that moment waits. What a person must decide is only reported.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, Select, and_, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from tenants.accounts import accounts
from tenants.conversations import rooms
from tenants.core.errors import DomainError, InvalidInputError, UnavailableError
from tenants.core.naming import AccountKind, AccountName, RoomName, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.lifecycle import operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run
from tenants.process.services import Services
from tenants.shards.commands import CloseVisitor
from tenants.store.database import rows_changed
from tenants.store.models import (
    EVERY_TENANT,
    UNFINISHED,
    Account,
    AccountState,
    Drift,
    Operation,
    OperationKind,
    Room,
    Tenant,
    TenantState,
    VisitorSession,
)
from tenants.workflows.drift import (
    FOR_A_PERSON,
    OLD_SPELLING,
    PENDING_SECONDS,
    YOUNG_SECONDS,
    Difference,
    DriftKind,
    KnownAccount,
    KnownRoom,
    Pictures,
    Seen,
)

log = structlog.get_logger(__name__)

Query = TypeVar("Query", bound=Select[Any])

Mender = Callable[[Services, str, Sequence[str]], Awaitable[Mapping[str, str]]]
"""Puts differences of one kind right: given the tenant and the subjects, gives those that remain, and why."""

_REMEMBER_SECONDS = 30 * 86400.0
_TENANTS_AT_ONCE = 200
_MOST_DRIFT = 10_000
"""Differences that one run records; the next one finds the rest."""
_AT_ONCE = 200
"""Differences that are recorded, or mended, together."""
_ASKED_ONE_BY_ONE = 10
"""Accounts; of more than these ejabberd is asked for all of the tenant at once."""
_NAMED = 20
_COMPARED = (TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DESTROYED)


async def start(
    services: Services, cause: Cause, instance_name: str | None = None, *, dry_run: bool = False
) -> Operation:
    """Start to compare one tenant, or all; a run that is under way is returned. A dry run mends nothing.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or a run of the other sort is under way.
    """
    if instance_name is not None:
        return await requests.start(services, instance_name, OperationKind.RECONCILE, cause, given={"dry_run": dry_run})
    try:
        operation = await _open_for_all(services, cause, dry_run=dry_run)
    except IntegrityError:
        # no tenant's row keeps two who ask at once apart; now the first one's is there
        operation = await _open_for_all(services, cause, dry_run=dry_run)
    await operations.wake(services, operation)
    return operation


async def _open_for_all(services: Services, cause: Cause, *, dry_run: bool) -> Operation:
    async with services.database.write() as session:
        return await operations.open_operation(
            services, session, EVERY_TENANT, OperationKind.RECONCILE, cause, given={"dry_run": dry_run}
        )


async def drift(
    services: Services,
    instance_name: str | None = None,
    *,
    unmended: bool = True,
    after: int = 0,
    limit: int = 50,
) -> list[Drift]:
    """Differences that were found, oldest first; only those that are still there, or also those that were mended."""
    query = select(Drift).where(Drift.id > after).order_by(Drift.id).limit(limit)
    if instance_name is not None:
        query = query.where(Drift.instance_name == instance_name)
    if unmended:
        query = query.where(Drift.mended_at.is_(None))
    async with services.database.read() as session:
        return list(await session.scalars(query))


async def compare(run: Run) -> None:
    """The step that finds differences and records them."""
    services, scope = run.services, run.instance_name
    started = services.clock()
    seen, unreadable = await _look_at_ejabberd(services, scope)
    tenants = await _tenants(services, scope)
    # what else is asked of a tenant waits for a run of its own
    busy = await _busy(services, scope) if scope == EVERY_TENANT else set()
    skipped = sorted(busy & tenants.keys() | _between(tenants))
    names = sorted(tenants.keys() - set(skipped))
    found = [(_owner(one.subject, tenants), one) for one in unreadable]
    found += [
        (name, Difference(DriftKind.UNKNOWN_TENANT, name, there.counts()))
        for name, there in seen.items()
        if name not in tenants
    ]
    room = _MOST_DRIFT - await _record(services, found[:_MOST_DRIFT], started)
    count = len(found)
    for begin in range(0, len(names), _TENANTS_AT_ONCE):
        page = names[begin : begin + _TENANTS_AT_ONCE]
        known, known_rooms = await _known(services, page), await _known_rooms(services, page)
        found = []
        for name in page:
            pictures = Pictures(services.naming, name, seen.pop(name, Seen()), known[name], started, known_rooms[name])
            found += [(name, difference) for difference in _differences(pictures, tenants[name])]
        count += len(found)
        room -= await _record(services, found[:room], started)
        await run.report(begin + len(page), len(names))
    await _forget_gone(services, scope, skipped, started)
    named = {"skipped_names": skipped[:_NAMED]} if skipped else {}
    await run.tell(compared=len(names), skipped=len(skipped), found=count, **named)


def _between(tenants: Mapping[str, TenantState]) -> set[str]:
    """Tenants on the way from one state to another."""
    return {name for name, state in tenants.items() if state not in _COMPARED}


def _owner(username: str, tenants: Mapping[str, TenantState]) -> str:
    """The tenant that such a name seems to belong to."""
    instance_name = username.rpartition(".")[2]
    return instance_name if instance_name in tenants else EVERY_TENANT


def _differences(pictures: Pictures, state: TenantState) -> Iterable[Difference]:
    if state is not TenantState.DESTROYED:
        return pictures.differences()
    # all accounts of a standalone system bear its name, also those that are nobody's
    there, hosted = pictures.there, pictures.naming.hosting
    left = there.rosters or there.rooms or (there.accounts and hosted)
    return [Difference(DriftKind.LEFTOVER, pictures.instance_name, there.counts())] if left else []


async def mend(run: Run) -> None:
    """The step that puts right what was found and needs no person."""
    services, scope = run.services, run.instance_name
    total = await _count_to_mend(services, scope)
    menders = _MENDERS_OF_ALL if scope == EVERY_TENANT else _MENDERS
    done = mended = 0
    # rosters before the members that go into them
    for condition in (Drift.kind == DriftKind.ROSTER, Drift.kind != DriftKind.ROSTER):
        after = 0
        while page := await _to_mend(services, scope, condition, after):
            after = page[-1].id
            for (instance_name, kind), found in _together(page).items():
                if scope != EVERY_TENANT or not await _busy(services, instance_name):
                    mended += await _mend(services, instance_name, menders[kind], found)
            done += len(page)
            await run.report(done, max(total, done))
    await _mend_doors(services, scope)
    await _forget_old(services)
    await run.tell(mended=mended, left=done - mended)


async def _mend_doors(services: Services, scope: str) -> None:
    """Nobody of a suspended tenant can log in, and everybody else can."""
    shut = await services.ejabberd.bulk.shut_tenants()
    tenants = await _tenants(services, scope)
    names = tenants.keys() | shut if scope == EVERY_TENANT else tenants.keys()
    wrong = [name for name in names if (tenants.get(name) is TenantState.SUSPENDED) != (name in shut)]
    busy = (await _busy(services, scope) if scope == EVERY_TENANT else set()) | _between(tenants)
    for name in sorted(set(wrong) - busy):
        log.warning("a tenant's door in ejabberd is put right", instance_name=name, shut=name not in shut)
        if name in shut:
            await services.ejabberd.bulk.open_tenant(name)
        else:
            await services.ejabberd.bulk.shut_tenant(name)


async def _mend(services: Services, instance_name: str, mender: Mender, found: Sequence[Drift]) -> int:
    """Mend differences of one kind of one tenant. Returns how many are gone now."""
    subjects = [one.subject for one in found]
    try:
        left = await mender(services, instance_name, subjects)
    except UnavailableError:
        raise
    except DomainError as error:
        # one that cannot be mended keeps nobody from the rest
        log.warning("drift not mended", tenant=instance_name, kind=found[0].kind, error=str(error))
        left = dict.fromkeys(subjects, str(error))
    async with services.database.write() as session:
        for one in found:
            values = {"detail": left[one.subject]} if one.subject in left else {"mended_at": services.clock()}
            await session.execute(update(Drift).where(Drift.id == one.id).values(**values))
    return sum(subject not in left for subject in subjects)


async def _mend_rosters(services: Services, instance_name: str, groups: Sequence[str]) -> Mapping[str, str]:
    # in the order of the kinds: ejabberd >= 24.06 refuses a displayed group that does not exist
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        if group in groups:
            wanted, present = (
                rosters.wanted(services.naming, instance_name, kind),
                await services.ejabberd.roster(group),
            )
            if present is not None:
                wanted = Roster(present.label, present.description, wanted.displayed)
            await services.ejabberd.create_roster(group, wanted)
    return {}


async def _mend_members_missing(services: Services, _instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    return await _join(services, await _active(services, usernames))


async def _mend_members_extra(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    naming = services.naming
    names = [naming.parse_username(username) for username in usernames]
    for kind in RosterKind:
        misplaced = [naming.username(name) for name in names if name.roster is not kind]
        await services.ejabberd.bulk.remove_from_roster(misplaced, rosters.group_of(naming, instance_name, kind))
    there = await _present(services, instance_name, usernames)
    absent = [name for name in names if naming.username(name) not in there]
    return await _remove_claimed(services, instance_name, await accounts.claim_unknown(services, absent))


async def _mend_accounts_unknown(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    there = await _present(services, instance_name, usernames)
    names = [services.naming.parse_username(username) for username in usernames if username in there]
    # an operator is adopted as a member of the roster that it is in, or not at all
    adopted = await accounts.adopt(services, instance_name, names)
    return await _join(services, [name for name in adopted if name.kind is not AccountKind.OPERATOR])


async def _mend_accounts_lost(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    stable = and_(Account.state == AccountState.ACTIVE, Account.created_at < services.clock() - YOUNG_SECONDS)
    return await _remove_absent(services, instance_name, usernames, stable)


async def _mend_accounts_pending(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    there = await _present(services, instance_name, usernames)
    await accounts.give_back(services, sorted(there), AccountState.PENDING)
    left = await _join(services, await _active(services, sorted(there)))
    given_up = Account.state == AccountState.PENDING, Account.last_active_at < services.clock() - PENDING_SECONDS
    absent = [username for username in usernames if username not in there]
    return {**left, **await _remove_absent(services, instance_name, absent, and_(*given_up))}


async def _mend_rooms(services: Services, instance_name: str, locals_: Sequence[str]) -> Mapping[str, str]:
    left = {local: await rooms.mend(services, instance_name, local) for local in locals_}
    return {local: why for local, why in left.items() if why is not None}


async def _mend_leftover(services: Services, instance_name: str, _subjects: Sequence[str]) -> Mapping[str, str]:
    """In a run of the tenant's own: whoever creates it anew waits for that."""
    if (await _tenants(services, instance_name))[instance_name] is not TenantState.DESTROYED:
        return {}
    groups = registry.groups(services, instance_name)
    names = {name for group in groups for name in await services.ejabberd.roster_members(group)}
    if suffix := services.naming.username_suffix(instance_name):
        names.update(await services.ejabberd.bulk.usernames(suffix))
    left = await services.ejabberd.bulk.remove_users(sorted(names))
    if left:
        return {instance_name: f"{len(left)} accounts, such as {min(left)}: {left[min(left)]}"}
    # operators first: they display visitors
    for group in reversed(groups):
        await services.ejabberd.delete_roster(group)
    if rooms_left := await rooms.remove_all(services, instance_name):
        return {instance_name: f"{len(rooms_left)} rooms, such as {min(rooms_left)}"}
    return {}


async def _hand_over_leftover(services: Services, instance_name: str, _subjects: Sequence[str]) -> Mapping[str, str]:
    """In a run over all tenants: the name may be given anew at any moment, so this needs a run of the tenant's own."""
    cause = Cause("reconcile", "something is left of the destroyed tenant")
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update=True)
        if tenant is None or tenant.state is not TenantState.DESTROYED:
            return {}
        if await operations.unfinished(session, instance_name, OperationKind.RECONCILE):
            return {instance_name: "another run is under way"}
        operation = await operations.open_operation(
            services, session, instance_name, OperationKind.RECONCILE, cause, given={"dry_run": False}
        )
    await operations.wake(services, operation)
    return {instance_name: f"operation '{operation.id}' removes it"}


_MENDERS: Mapping[DriftKind, Mender] = {
    DriftKind.ROSTER: _mend_rosters,
    DriftKind.MEMBER_MISSING: _mend_members_missing,
    DriftKind.MEMBER_EXTRA: _mend_members_extra,
    DriftKind.ACCOUNT_UNKNOWN: _mend_accounts_unknown,
    DriftKind.ACCOUNT_LOST: _mend_accounts_lost,
    DriftKind.ACCOUNT_PENDING: _mend_accounts_pending,
    DriftKind.ROOM: _mend_rooms,
    DriftKind.LEFTOVER: _mend_leftover,
}
_MENDERS_OF_ALL = {**_MENDERS, DriftKind.LEFTOVER: _hand_over_leftover}


async def _join(services: Services, names: Sequence[AccountName]) -> Mapping[str, str]:
    """Make them members of their rosters, but not those that are removed meanwhile."""
    left: dict[str, str] = {}
    by_group: dict[str, list[str]] = defaultdict(list)
    for name in names:
        group = rosters.group_of(services.naming, name.instance, name.roster)
        by_group[group].append(services.naming.username(name))
    for group, usernames in by_group.items():
        missing = await services.ejabberd.bulk.add_to_roster(usernames, group)
        active = {services.naming.username(name) for name in await _active(services, usernames)}
        await services.ejabberd.bulk.remove_from_roster([name for name in usernames if name not in active], group)
        left |= {username: f"is no member of {group} all the same" for username in missing if username in active}
    return left


async def _remove_absent(
    services: Services, instance_name: str, usernames: Sequence[str], condition: ColumnElement[bool]
) -> Mapping[str, str]:
    """Remove the rows of accounts that ejabberd does not have, with all that is left of them."""
    there = await _present(services, instance_name, usernames)
    absent = [username for username in usernames if username not in there]
    return await _remove_claimed(services, instance_name, await accounts.claim(services, absent, condition))


async def _remove_claimed(services: Services, instance_name: str, claimed: Sequence[str]) -> Mapping[str, str]:
    """Remove them, but those that have come in the moment before they were claimed."""
    if not claimed:
        return {}
    came = await _present(services, instance_name, claimed)
    await accounts.give_back(services, sorted(came))
    going = [username for username in claimed if username not in came]
    async with services.database.read() as session:
        query = select(VisitorSession.username).where(VisitorSession.username.in_(going))
        online = list(await session.scalars(query))
        incarnation = await session.scalar(select(Tenant.incarnation).where(Tenant.instance_name == instance_name))
    await services.commands.publish(
        *(CloseVisitor(instance_name=instance_name, incarnation=incarnation, username=name) for name in online)
    )
    return await accounts.remove_claimed(services, going)


async def _present(services: Services, instance_name: str, usernames: Sequence[str]) -> set[str]:
    """Those of the names that ejabberd has an account of."""
    if len(usernames) > _ASKED_ONE_BY_ONE:
        suffix = services.naming.username_suffix(instance_name)
        return set(usernames).intersection(await services.ejabberd.bulk.accounts(suffix))
    return {username for username in usernames if await services.ejabberd.has_user(username)}


async def _active(services: Services, usernames: Sequence[str]) -> list[AccountName]:
    async with services.database.read() as session:
        found = await session.scalars(
            select(Account.username).where(Account.username.in_(usernames), Account.state == AccountState.ACTIVE)
        )
        return [services.naming.parse_username(username) for username in found]


async def _look_at_ejabberd(services: Services, scope: str) -> tuple[dict[str, Seen], list[Difference]]:
    """All tenants' things, or one's; and names that are none."""
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
        return seen, unreadable
    async for group in services.ejabberd.bulk.shared_rosters():
        try:
            of = services.naming.parse_group(group.group)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, group.group, error.rule))
            continue
        roster = Roster(group.label, group.description, group.displayed)
        seen[of.instance].rosters[of.kind] = roster, frozenset(group.members)
    return seen, unreadable


async def _look_at_rosters(services: Services, instance_name: str, seen: Seen) -> None:
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        roster = await services.ejabberd.roster(group)
        if roster is not None:
            seen.rosters[kind] = roster, frozenset(await services.ejabberd.roster_members(group))


async def _tenants(services: Services, scope: str) -> dict[str, TenantState]:
    query = select(Tenant.instance_name, Tenant.state)
    if scope != EVERY_TENANT:
        query = query.where(Tenant.instance_name == scope)
    async with services.database.read() as session:
        return {row.instance_name: row.state for row in await session.execute(query)}


async def _busy(services: Services, scope: str) -> set[str]:
    """Tenants that something else is being done to just now, or is about to be."""
    query = select(Operation.instance_name).where(
        Operation.state.in_(UNFINISHED), Operation.kind != OperationKind.RECONCILE
    )
    if scope != EVERY_TENANT:
        query = query.where(Operation.instance_name == scope)
    async with services.database.read() as session:
        return set(await session.scalars(query))


async def _known(services: Services, instance_names: Sequence[str]) -> dict[str, dict[str, KnownAccount]]:
    known: dict[str, dict[str, KnownAccount]] = defaultdict(dict)
    query = select(
        Account.username, Account.instance_name, Account.state, Account.created_at, Account.last_active_at
    ).where(Account.instance_name.in_(instance_names))
    async with services.database.read() as session:
        for username, instance_name, state, created_at, last_active_at in await session.execute(query):
            name = services.naming.parse_username(username)
            known[instance_name][username] = KnownAccount(name, state, created_at, last_active_at)
    return known


async def _known_rooms(services: Services, instance_names: Sequence[str]) -> dict[str, dict[str, KnownRoom]]:
    known: dict[str, dict[str, KnownRoom]] = defaultdict(dict)
    query = select(Room.name, Room.instance_name, Room.state, Room.changed_at).where(
        Room.instance_name.in_(instance_names)
    )
    async with services.database.read() as session:
        for name, instance_name, state, changed_at in await session.execute(query):
            known[instance_name][services.naming.room(RoomName(name, instance_name))] = KnownRoom(state, changed_at)
    return known


async def _record(services: Services, found: Sequence[tuple[str, Difference]], now: float) -> int:
    """What was found is there now. Returns how much that is."""
    # the same thing can be seen twice, as in both rosters
    rows = {
        (instance_name, one.kind, one.subject): {
            "instance_name": instance_name,
            "kind": one.kind,
            "subject": one.subject,
            "found_at": now,
            "mended_at": None,
            "detail": one.detail,
        }
        for instance_name, one in found
    }
    values = list(rows.values())
    for begin in range(0, len(values), _AT_ONCE):
        insert = services.database.insert(Drift).values(values[begin : begin + _AT_ONCE])
        changed = {name: insert.excluded[name] for name in ("found_at", "mended_at", "detail")}
        async with services.database.write() as session:
            await session.execute(
                insert.on_conflict_do_update(index_elements=["instance_name", "kind", "subject"], set_=changed)
            )
    return len(values)


async def _forget_gone(services: Services, scope: str, skipped: Sequence[str], started: float) -> None:
    """What was not found again has gone."""
    gone = delete(Drift).where(Drift.mended_at.is_(None), Drift.found_at < started)
    if scope != EVERY_TENANT:
        gone = gone.where(Drift.instance_name == scope)
    async with services.database.write() as session:
        await session.execute(gone.where(Drift.instance_name.not_in(skipped)))


async def _count_to_mend(services: Services, scope: str) -> int:
    query = select(func.count()).select_from(Drift).where(Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with services.database.read() as session:
        return await session.scalar(_within(query, scope)) or 0


async def _to_mend(services: Services, scope: str, condition: ColumnElement[bool], after: int) -> list[Drift]:
    query = select(Drift).where(condition, Drift.id > after, Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with services.database.read() as session:
        return list(await session.scalars(_within(query, scope).order_by(Drift.id).limit(_AT_ONCE)))


def _within(query: Query, scope: str) -> Query:
    return query if scope == EVERY_TENANT else query.where(Drift.instance_name == scope)


def _together(page: Sequence[Drift]) -> dict[tuple[str, DriftKind], list[Drift]]:
    """Those that are mended together: of one tenant, and of one kind."""
    groups: dict[tuple[str, DriftKind], list[Drift]] = defaultdict(list)
    for one in page:
        groups[one.instance_name, DriftKind(one.kind)].append(one)
    return groups


async def _forget_old(services: Services) -> int:
    async with services.database.write() as session:
        old = await session.execute(delete(Drift).where(Drift.mended_at < services.clock() - _REMEMBER_SECONDS))
    return rows_changed(old)
