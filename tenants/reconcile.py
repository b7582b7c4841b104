"""Reconciliation: what ejabberd holds, compared with what the registry says, and put right.

ejabberd is asked in pages, and in an order that makes races harmless: first ejabberd, then the registry, whose rows are
there before their accounts and stay until after them. What is young is left alone, and each thing is looked at once
more on both sides before it is touched. What a person must decide is only reported.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, delete, func, select, update

from tenants import accounts, operations, registry, rosters
from tenants.database import rows_changed
from tenants.drift import FOR_A_PERSON, YOUNG_SECONDS, Difference, DriftKind, Known, Pictures, Seen
from tenants.ejabberd import Roster
from tenants.errors import InvalidInputError
from tenants.models import (
    EVERY_TENANT,
    UNFINISHED,
    Account,
    AccountState,
    Drift,
    Operation,
    OperationKind,
    Tenant,
    TenantState,
)
from tenants.naming import RosterKind
from tenants.operations import Run
from tenants.services import Services
from tenants.states import Cause

Query = TypeVar("Query", bound=Select[Any])

_REMEMBER_SECONDS = 30 * 86400.0
_TENANTS_AT_ONCE = 200
_MOST_DRIFT = 10_000
"""Differences that one run records; the next one finds the rest."""
_MENDED_AT_ONCE = 100
_RECORDED_AT_ONCE = 200
_COMPARED = (TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DESTROYED)


async def start(
    services: Services, cause: Cause, instance_name: str | None = None, *, dry_run: bool = False
) -> Operation:
    """Start to compare one tenant, or all; a run that is under way is returned. A dry run mends nothing.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or a run of the other sort is under way.
    """
    given = {"dry_run": dry_run}
    if instance_name is not None:
        operation = await registry.request(services, instance_name, OperationKind.RECONCILE, cause, given=given)
        assert operation is not None  # noqa: S101 - there is always something to do
        return operation
    async with services.database.write() as session:
        operation = await operations.open_operation(
            services, session, EVERY_TENANT, OperationKind.RECONCILE, cause, given=given
        )
    await operations.wake(services, operation)
    return operation


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
    services = run.services
    started = services.clock()
    seen, unreadable = await _look_at_ejabberd(services, run.instance_name)
    found: list[tuple[str, Difference]] = [(EVERY_TENANT, difference) for difference in unreadable]
    tenants = await _tenants(services, run.instance_name)
    busy = await _busy(services)
    compared = skipped = 0
    names = sorted(tenants)
    for begin in range(0, len(names), _TENANTS_AT_ONCE):
        page = names[begin : begin + _TENANTS_AT_ONCE]
        known = await _known(services, page)
        for name in page:
            if name in busy or tenants[name] not in _COMPARED:
                skipped += 1
                continue
            compared += 1
            there = seen.pop(name, None) or Seen()
            pictures = Pictures(services.naming, name, there, known[name], started)
            found += [(name, difference) for difference in _differences(pictures, tenants[name])]
        await run.report(begin + len(page), len(names))
    if run.instance_name == EVERY_TENANT:
        found += [
            (name, Difference(DriftKind.UNKNOWN_TENANT, name, there.counts()))
            for name, there in seen.items()
            if name not in tenants
        ]
    await _record(services, run.instance_name, found[:_MOST_DRIFT], started)
    await run.tell(compared=compared, skipped=skipped, found=len(found))


def _differences(pictures: Pictures, state: TenantState) -> Iterable[Difference]:
    if state is not TenantState.DESTROYED:
        return pictures.differences()
    there = pictures.there
    left = bool(there.accounts or there.rosters)
    return [Difference(DriftKind.LEFTOVER, pictures.instance_name, there.counts())] if left else []


async def mend(run: Run) -> None:
    """The step that puts right what was found and needs no person."""
    services = run.services
    done = mended = 0
    after = 0
    total = await _count_to_mend(services, run.instance_name)
    while page := await _to_mend(services, run.instance_name, after):
        after = page[-1].id
        for instance_name, of_tenant in _by_tenant(page).items():
            if await _is_free(services, instance_name):
                for one in of_tenant:
                    if await _MENDERS[DriftKind(one.kind)](services, instance_name, one.subject):
                        await _note_mended(services, one.id)
                        mended += 1
        done += len(page)
        await run.report(done, max(total, done))
    await _forget_old(services)
    await run.tell(mended=mended)


async def _mend_roster(services: Services, instance_name: str, group: str) -> bool:
    roster = services.naming.parse_group(group)
    wanted = rosters.wanted(services.naming, instance_name, roster.kind)
    present = await services.ejabberd.roster(group)
    if present is not None:
        wanted = Roster(present.label, present.description, wanted.displayed)
    await services.ejabberd.create_roster(group, wanted)
    return True


async def _mend_member_missing(services: Services, instance_name: str, username: str) -> bool:
    account = await _account(services, username)
    if account is not None and account.state is AccountState.ACTIVE and await services.ejabberd.has_user(username):
        group = rosters.group_of(services.naming, instance_name, services.naming.parse_username(username).roster)
        await services.ejabberd.add_to_roster(username, group)
    return True


async def _mend_member_extra(services: Services, instance_name: str, username: str) -> bool:
    if await _account(services, username) is None and not await services.ejabberd.has_user(username):
        for kind in RosterKind:
            group = rosters.group_of(services.naming, instance_name, kind)
            await services.ejabberd.remove_from_roster(username, group)
    return True


async def _mend_account_unknown(services: Services, _instance_name: str, username: str) -> bool:
    if await services.ejabberd.has_user(username):
        await accounts.adopt(services, [services.naming.parse_username(username)])
    return True


async def _mend_account_lost(services: Services, _instance_name: str, username: str) -> bool:
    account = await _account(services, username)
    settled = account is not None and account.created_at < services.clock() - YOUNG_SECONDS
    if settled and not await services.ejabberd.has_user(username):
        await accounts.remove(services, services.naming.parse_username(username))
    return True


async def _mend_account_pending(services: Services, _instance_name: str, username: str) -> bool:
    there = await services.ejabberd.has_user(username)
    row = Account.username == username, Account.state == AccountState.PENDING
    async with services.database.write() as session:
        if there:
            # which password it has, ejabberd is asked when one is presented
            values = {"state": AccountState.ACTIVE, "password_digest": None}
            settled = await session.execute(update(Account).where(*row).values(**values))
        else:
            settled = await session.execute(delete(Account).where(*row))
    if rows_changed(settled) and not there:
        await services.ejabberd.bulk.remove_users([username])
    return True


async def _mend_leftover(services: Services, instance_name: str, _subject: str) -> bool:
    async with services.database.read() as session:
        tenant = await session.get(Tenant, instance_name)
    if tenant is not None and tenant.state is TenantState.DESTROYED:
        suffix = services.naming.username_suffix(instance_name)
        groups = [rosters.group_of(services.naming, instance_name, kind) for kind in reversed(RosterKind)]
        members = [await services.ejabberd.roster_members(group) for group in groups]
        names = {*await services.ejabberd.bulk.usernames(suffix), *(name for group in members for name in group)}
        if await services.ejabberd.bulk.remove_users(sorted(names)):
            return False
        for group in groups:
            await services.ejabberd.delete_roster(group)
    return True


_MENDERS = {
    DriftKind.ROSTER: _mend_roster,
    DriftKind.MEMBER_MISSING: _mend_member_missing,
    DriftKind.MEMBER_EXTRA: _mend_member_extra,
    DriftKind.ACCOUNT_UNKNOWN: _mend_account_unknown,
    DriftKind.ACCOUNT_LOST: _mend_account_lost,
    DriftKind.ACCOUNT_PENDING: _mend_account_pending,
    DriftKind.LEFTOVER: _mend_leftover,
}


async def _look_at_ejabberd(services: Services, instance_name: str) -> tuple[dict[str, Seen], list[Difference]]:
    """All tenants' things, or one's; and names that are none."""
    seen: dict[str, Seen] = defaultdict(Seen)
    unreadable: list[Difference] = []
    every = instance_name == EVERY_TENANT
    suffix = "" if every else services.naming.username_suffix(instance_name)
    for username in await services.ejabberd.bulk.accounts(suffix):
        try:
            name = services.naming.parse_username(username)
        except InvalidInputError as error:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, error.rule))
            continue
        if services.naming.username(name) == username:
            seen[name.instance].accounts.add(username)
        else:
            unreadable.append(Difference(DriftKind.UNREADABLE, username, "an old spelling"))
    async for group in services.ejabberd.bulk.shared_rosters():
        try:
            of = services.naming.parse_group(group.group)
        except InvalidInputError as error:
            if every:
                unreadable.append(Difference(DriftKind.UNREADABLE, group.group, error.rule))
            continue
        if every or of.instance == instance_name:
            roster = Roster(group.label, group.description, group.displayed)
            seen[of.instance].rosters[of.kind] = roster, frozenset(group.members)
    return dict(seen), unreadable


async def _tenants(services: Services, instance_name: str) -> dict[str, TenantState]:
    query = select(Tenant.instance_name, Tenant.state)
    if instance_name != EVERY_TENANT:
        query = query.where(Tenant.instance_name == instance_name)
    async with services.database.read() as session:
        return dict((await session.execute(query)).all())


async def _busy(services: Services) -> set[str]:
    """Tenants that something else is being done to just now."""
    async with services.database.read() as session:
        return set(
            await session.scalars(
                select(Operation.instance_name).where(
                    Operation.state.in_(UNFINISHED), Operation.kind != OperationKind.RECONCILE
                )
            )
        )


async def _is_free(services: Services, instance_name: str) -> bool:
    return instance_name not in await _busy(services)


async def _known(services: Services, instance_names: Sequence[str]) -> dict[str, dict[str, Known]]:
    known: dict[str, dict[str, Known]] = defaultdict(dict)
    query = select(Account.username, Account.instance_name, Account.state, Account.created_at)
    async with services.database.read() as session:
        for username, instance_name, state, created_at in await session.execute(
            query.where(Account.instance_name.in_(instance_names))
        ):
            name = services.naming.parse_username(username)
            known[instance_name][username] = Known(name, state, created_at)
    return known


async def _account(services: Services, username: str) -> Account | None:
    async with services.database.read() as session:
        return await session.get(Account, username)


async def _record(services: Services, scope: str, found: Sequence[tuple[str, Difference]], now: float) -> None:
    """What was found is there now, and what was not found again has gone."""
    for begin in range(0, len(found), _RECORDED_AT_ONCE):
        async with services.database.write() as session:
            for instance_name, difference in found[begin : begin + _RECORDED_AT_ONCE]:
                values = {"found_at": now, "mended_at": None, "detail": difference.detail}
                await session.execute(
                    services.database.insert(Drift)
                    .values(instance_name=instance_name, kind=difference.kind, subject=difference.subject, **values)
                    .on_conflict_do_update(index_elements=["instance_name", "kind", "subject"], set_=values)
                )
    async with services.database.write() as session:
        gone = delete(Drift).where(Drift.mended_at.is_(None), Drift.found_at < now)
        await session.execute(gone if scope == EVERY_TENANT else gone.where(Drift.instance_name == scope))


async def _count_to_mend(services: Services, scope: str) -> int:
    query = select(func.count()).select_from(Drift).where(Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with services.database.read() as session:
        return await session.scalar(_within(query, scope)) or 0


async def _to_mend(services: Services, scope: str, after: int) -> list[Drift]:
    query = select(Drift).where(Drift.id > after, Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with services.database.read() as session:
        return list(await session.scalars(_within(query, scope).order_by(Drift.id).limit(_MENDED_AT_ONCE)))


def _within(query: Query, scope: str) -> Query:
    return query if scope == EVERY_TENANT else query.where(Drift.instance_name == scope)


def _by_tenant(page: Sequence[Drift]) -> dict[str, list[Drift]]:
    """Rosters before the members that go into them."""
    tenants: dict[str, list[Drift]] = defaultdict(list)
    for one in sorted(page, key=lambda one: one.kind != DriftKind.ROSTER):
        tenants[one.instance_name].append(one)
    return tenants


async def _note_mended(services: Services, drift_id: int) -> None:
    async with services.database.write() as session:
        await session.execute(update(Drift).where(Drift.id == drift_id).values(mended_at=services.clock()))


async def _forget_old(services: Services) -> int:
    async with services.database.write() as session:
        old = await session.execute(delete(Drift).where(Drift.mended_at < services.clock() - _REMEMBER_SECONDS))
    return rows_changed(old)
