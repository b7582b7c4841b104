"""Mending: differences between ejabberd and the registry are put right, as far as no person must decide.

Before anything is touched it is looked at once more, on both sides. An account is removed only under a claim on its
row, so that whoever registers it at that moment waits.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from sqlalchemy import ColumnElement, and_, func, select

from tenants.accounts import removal, rows
from tenants.conversations import rooms
from tenants.core.errors import DomainError, UnavailableError
from tenants.core.naming import AccountKind, AccountName, RosterKind
from tenants.core.text import own_nick
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.lifecycle import hosts, operations, served_hosts
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run
from tenants.process.services import Services
from tenants.shards.commands import CloseVisitor
from tenants.store.models import (
    EVERY_TENANT,
    Account,
    AccountState,
    Drift,
    OperationKind,
    Tenant,
    TenantState,
    VisitorSession,
)
from tenants.visitors import stored_sessions
from tenants.workflows import belongings, drift_records, snapshots
from tenants.workflows.drift import PENDING_SECONDS, YOUNG_SECONDS, DriftKind

log = structlog.get_logger(__name__)

_NEVER_TOO_MANY = 100
"""Of a small system half of all is soon lost."""
Mender = Callable[[Services, str, Sequence[str]], Awaitable[Mapping[str, str]]]
"""Mends differences of one kind: takes a tenant and the subjects, and gives the subjects that still differ, and why."""


async def mend(run: Run) -> None:
    """The step that puts right what was found, except what a person must decide."""
    services, scope = run.services, run.instance_name
    total = await drift_records.count_to_mend(services.database, scope)
    if not run.input.get("anyway") and (held := await _too_many(services, scope)):
        log.error("nothing is mended: too much would be removed or made anew", tenant=scope, count=held)
        await run.tell(mended=0, left=total, held=held)
        return
    menders = _MENDERS_OF_ALL if scope == EVERY_TENANT else _MENDERS
    done = mended = 0
    # rosters before the members that go into them
    for condition in (Drift.kind == DriftKind.ROSTER, Drift.kind != DriftKind.ROSTER):
        after = 0
        while page := await drift_records.to_mend(services.database, scope, condition, after):
            after = page[-1].id
            for (instance_name, kind), found in drift_records.together(page).items():
                if scope != EVERY_TENANT or not await snapshots.busy(services.database, instance_name):
                    mended += await _mend(services, instance_name, menders[kind], found)
            done += len(page)
            await run.report(done, max(total, done))
    await _mend_doors(services, scope)
    await _mend_nicks(services, scope)
    await drift_records.forget_old(services)
    await run.tell(mended=mended, left=done - mended)


async def _too_many(services: Services, scope: str) -> int:
    """How much would be removed, forgotten or made anew, if that is more than may be without a person's word; else 0.

    A kill of ejabberd loses what came within a second or two. Half of all, and an empty answer is all of it, is no
    such loss: it is another ejabberd, or one without its data.
    """
    limit = services.settings.reconcile_limit
    if scope == EVERY_TENANT:
        async with services.database.read() as session:
            accounts = await session.scalar(select(func.count()).select_from(Account)) or 0
        limit = min(limit, max(accounts // 2, _NEVER_TOO_MANY))
    found = await drift_records.count_of_loss(services.database, scope)
    return found if found > limit else 0


async def _mend_doors(services: Services, scope: str) -> None:
    """Shut suspended tenants out of ejabberd, and let all others in."""
    up = await served_hosts.up(services)
    shut_at = {host: await services.ejabberd.at(host).bulk.shut_tenants() for host in up}
    tenants = await snapshots.states(services.database, scope)
    busy = (await snapshots.busy(services.database, scope) if scope == EVERY_TENANT else set()) | snapshots.between(
        tenants
    )
    host_of = await hosts.of_many(services, tenants.keys())
    for host, shut in shut_at.items():
        bulk = services.ejabberd.at(host).bulk
        here = {name for name in tenants if host_of[name] == host}
        names = here | shut if scope == EVERY_TENANT else here
        suspended = {name for name in here if tenants[name] is TenantState.SUSPENDED}
        for name in sorted(name for name in names - busy if (name in suspended) != (name in shut)):
            log.warning("a tenant's door in ejabberd is put right", instance_name=name, shut=name not in shut)
            await (bulk.open_tenant(name) if name in shut else bulk.shut_tenant(name))


async def _mend_nicks(services: Services, scope: str) -> None:
    """Call the visitors who are online as their sessions say: ejabberd may have lost what the pool told it last."""
    instance_name = None if scope == EVERY_TENANT else scope
    async for nicks in stored_sessions.read_nicks(services.database, services.clock(), instance_name):
        own = {username: nick for username, nick in nicks.items() if own_nick(nick)}
        for ejabberd, some in await hosts.by_ejabberd(services, own):
            if changed := await ejabberd.bulk.set_nicks({username: own[username] for username in some}):
                log.warning("visitors' names are put right", count=len(changed))


async def _mend(services: Services, instance_name: str, mender: Mender, found: Sequence[Drift]) -> int:
    """Mend differences of one kind of one tenant. Returns how many are gone now."""
    subjects = [one.subject for one in found]
    try:
        left = await mender(services, instance_name, subjects)
    except UnavailableError:
        raise
    except DomainError as error:
        # what cannot be mended must not keep us from the rest
        log.warning("drift not mended", tenant=instance_name, kind=found[0].kind, error=str(error))
        left = dict.fromkeys(subjects, str(error))
    await drift_records.note_outcome(services, found, left)
    return sum(subject not in left for subject in subjects)


async def _mend_rosters(services: Services, instance_name: str, groups: Sequence[str]) -> Mapping[str, str]:
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    # in the order of the kinds: ejabberd >= 24.06 refuses a displayed group that does not exist
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        if group in groups:
            wanted = rosters.wanted(services.naming, instance_name, kind)
            present = await ejabberd.bulk.shared_roster(group)
            if present is not None:
                wanted = Roster(present.label, present.description, wanted.displayed)
            await ejabberd.create_roster(group, wanted)
    return {}


async def _mend_members_missing(services: Services, _instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    return await _join(services, await _active(services, usernames))


async def _mend_members_extra(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    naming, ejabberd = services.naming, await hosts.ejabberd_of(services, instance_name)
    names = [naming.parse_username(username) for username in usernames]
    for kind in RosterKind:
        misplaced = [naming.username(name) for name in names if name.roster is not kind]
        await ejabberd.bulk.remove_from_roster(misplaced, rosters.group_of(naming, instance_name, kind))
    there = await _present(services, instance_name, usernames)
    absent = [name for name in names if naming.username(name) not in there]
    return await _remove_claimed(services, instance_name, await rows.claim_unknown(services, absent))


async def _mend_accounts_unknown(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    there = await _present(services, instance_name, usernames)
    names = [services.naming.parse_username(username) for username in usernames if username in there]
    # an operator is adopted as a member of the roster that it is in, or not at all
    adopted = await rows.adopt(services, instance_name, names)
    return await _join(services, [name for name in adopted if name.kind is not AccountKind.OPERATOR])


async def _mend_accounts_lost(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    stable = and_(Account.state == AccountState.ACTIVE, Account.created_at < services.clock() - YOUNG_SECONDS)
    return await _remove_absent(services, instance_name, usernames, stable)


async def _mend_accounts_pending(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    there = await _present(services, instance_name, usernames)
    await rows.give_back(services, sorted(there), AccountState.PENDING)
    left = await _join(services, await _active(services, sorted(there)))
    given_up = Account.state == AccountState.PENDING, Account.last_active_at < services.clock() - PENDING_SECONDS
    absent = [username for username in usernames if username not in there]
    return {**left, **await _remove_absent(services, instance_name, absent, and_(*given_up))}


async def _mend_contacts_gone(services: Services, instance_name: str, usernames: Sequence[str]) -> Mapping[str, str]:
    # who has an account by now is a contact that is there
    await (await hosts.ejabberd_of(services, instance_name)).bulk.forget_contacts(usernames)
    return {}


async def _mend_rooms(services: Services, instance_name: str, locals_: Sequence[str]) -> Mapping[str, str]:
    left = {local: await rooms.mend(services, instance_name, local) for local in locals_}
    return {local: why for local, why in left.items() if why is not None}


async def _mend_leftover(services: Services, instance_name: str, _subjects: Sequence[str]) -> Mapping[str, str]:
    """Remove what is left, in a run for this tenant alone: whoever creates it anew waits for the run's end."""
    if (await snapshots.states(services.database, instance_name))[instance_name] is not TenantState.DESTROYED:
        return {}
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    names = await belongings.usernames(services, instance_name)
    left = await ejabberd.bulk.remove_users(sorted(names))
    if left:
        return {instance_name: f"{len(left)} accounts, such as {min(left)}: {left[min(left)]}"}
    for group in belongings.groups(services.naming, instance_name):
        await ejabberd.delete_roster(group)
    found = await belongings.rooms(services, instance_name)
    if rooms_left := await rooms.remove_all(services, instance_name, found):
        return {instance_name: f"{len(rooms_left)} rooms, such as {min(rooms_left)}"}
    return {}


async def _hand_over_leftover(services: Services, instance_name: str, _subjects: Sequence[str]) -> Mapping[str, str]:
    """Start a run for this tenant alone, which removes what is left.

    In a run over all tenants that would be unsafe: the name may be given to a new tenant at any moment.
    """
    cause = Cause("reconcile", "something is left of the destroyed tenant")
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update=True)
        if tenant is None or tenant.state is not TenantState.DESTROYED:
            return {}
        if await operations.unfinished(session, instance_name, OperationKind.RECONCILE):
            return {instance_name: "another run is under way"}
        operation = await operations.open_operation(
            services.clock, session, instance_name, OperationKind.RECONCILE, cause, given={"dry_run": False}
        )
    await operations.wake(services.wake, operation)
    return {instance_name: f"operation '{operation.id}' removes it"}


_MENDERS: Mapping[DriftKind, Mender] = {
    DriftKind.ROSTER: _mend_rosters,
    DriftKind.MEMBER_MISSING: _mend_members_missing,
    DriftKind.MEMBER_EXTRA: _mend_members_extra,
    DriftKind.ACCOUNT_UNKNOWN: _mend_accounts_unknown,
    DriftKind.ACCOUNT_LOST: _mend_accounts_lost,
    DriftKind.ACCOUNT_PENDING: _mend_accounts_pending,
    DriftKind.CONTACT_GONE: _mend_contacts_gone,
    DriftKind.ROOM: _mend_rooms,
    DriftKind.LEFTOVER: _mend_leftover,
}
_MENDERS_OF_ALL = {**_MENDERS, DriftKind.LEFTOVER: _hand_over_leftover}


async def _join(services: Services, names: Sequence[AccountName]) -> Mapping[str, str]:
    """Make the accounts members of their rosters, except those that are removed meanwhile."""
    left: dict[str, str] = {}
    by_group: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        group = rosters.group_of(services.naming, name.instance, name.roster)
        by_group[name.instance, group].append(services.naming.username(name))
    for (instance_name, group), usernames in by_group.items():
        bulk = (await hosts.ejabberd_of(services, instance_name)).bulk
        missing = await bulk.add_to_roster(usernames, group)
        active = {services.naming.username(name) for name in await _active(services, usernames)}
        await bulk.remove_from_roster([name for name in usernames if name not in active], group)
        left |= {username: f"is no member of {group} all the same" for username in missing if username in active}
    return left


async def _remove_absent(
    services: Services, instance_name: str, usernames: Sequence[str], condition: ColumnElement[bool]
) -> Mapping[str, str]:
    """Remove the rows of accounts that ejabberd does not have, with all that is left of them."""
    there = await _present(services, instance_name, usernames)
    absent = [username for username in usernames if username not in there]
    return await _remove_claimed(services, instance_name, await rows.claim(services, absent, condition))


async def _remove_claimed(services: Services, instance_name: str, claimed: Sequence[str]) -> Mapping[str, str]:
    """Remove the claimed accounts, except those that ejabberd got in the moment before the claim."""
    if not claimed:
        return {}
    came = await _present(services, instance_name, claimed)
    await rows.give_back(services, sorted(came))
    going = [username for username in claimed if username not in came]
    async with services.database.read() as session:
        query = select(VisitorSession.username).where(VisitorSession.username.in_(going))
        online = list(await session.scalars(query))
        incarnation = await session.scalar(select(Tenant.incarnation).where(Tenant.instance_name == instance_name))
    await services.commands.publish(
        *(CloseVisitor(instance_name=instance_name, incarnation=incarnation, username=name) for name in online)
    )
    return await removal.remove_claimed(services, going)


async def _present(services: Services, instance_name: str, usernames: Sequence[str]) -> set[str]:
    """Those of the usernames that ejabberd has an account for."""
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    return await ejabberd.bulk.having_accounts(usernames)


async def _active(services: Services, usernames: Sequence[str]) -> list[AccountName]:
    """Those of the usernames that the registry has as active accounts."""
    async with services.database.read() as session:
        found = await session.scalars(
            select(Account.username).where(Account.username.in_(usernames), Account.state == AccountState.ACTIVE)
        )
        return [services.naming.parse_username(username) for username in found]
