"""The workflows of a tenant's life, step by step. Each step may run twice and leaves the same result."""

import asyncio
from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select, update

from tenants.accounts import accounts
from tenants.conversations import rooms
from tenants.core.chunks import chunks
from tenants.core.errors import DomainError, InvalidInputError
from tenants.core.naming import AccountKind, AccountName, Naming, RosterKind
from tenants.core.scram import Verifier
from tenants.delivery import history
from tenants.ejabberd import rosters
from tenants.lifecycle import incarnations, registry
from tenants.lifecycle.engine import Run, Step, Workflow, Workflows
from tenants.process.services import Services
from tenants.shards.commands import CloseTenant
from tenants.store.database import Database
from tenants.store.models import Account, OperationKind, Tenant, TenantState, VisitorSession
from tenants.workflows import imports, mending, reconcile

_REPORTS = 20
"""Reports of progress that a removal makes at least, when the tenant has as many accounts."""
_PARALLEL = 2
"""Calls under way at once, each with one chunk of accounts. More would slow down other tenants, and not be quicker."""
_CHUNK = 50
"""Accounts in one chunk. With larger chunks a removal is quicker, but other tenants wait longer."""
_NAMED = 20
"""Names that an error message lists at most."""
_SESSIONS_CLOSED_WITHIN = 20.0
"""Seconds that the pool has to tell operators that the tenant's visitors left."""


class LeftoverError(DomainError):
    """Something of a destroyed tenant is still in ejabberd."""


def _create_roster(kind: RosterKind) -> Step:
    async def run(run: Run) -> None:
        naming = run.services.naming
        group = rosters.group_of(naming, run.instance_name, kind)
        await run.services.ejabberd.create_roster(group, rosters.wanted(naming, run.instance_name, kind))

    return Step(f"create_{kind}_roster", run)


def _enter(name: str, state: TenantState) -> Step:
    async def run(run: Run) -> None:
        await run.enter(state)

    return Step(name, run)


async def _verify_rosters(run: Run) -> None:
    naming = run.services.naming
    for kind in RosterKind:
        group = rosters.group_of(naming, run.instance_name, kind)
        if await run.services.ejabberd.roster(group) != rosters.wanted(naming, run.instance_name, kind):
            raise DomainError(f"shared roster {group} is not as it was created")


async def _create_operator(run: Run) -> None:
    """The first operator's account, which the panel gave with a verifier of its password."""
    given = run.input["operator"]
    name = AccountName(AccountKind.OPERATOR, given["username"], run.instance_name)
    await accounts.install_operator(run.services, name, Verifier.read(given["scram"], "operator.scram"), given["nick"])


async def _wake_deliveries(run: Run) -> None:
    """Deliver what waited for the tenant, or for its new address, at once."""
    await history.go_on(run.services, run.instance_name)


async def _install_key(run: Run) -> None:
    new: str = run.input["key_digest"]
    async with run.write() as session:
        tenant = await session.get_one(Tenant, run.instance_name)
        if tenant.key_digest != new:
            tenant.previous_key_digest = tenant.key_digest
            tenant.previous_key_until = run.services.clock() + run.input["overlap"]
            tenant.key_digest = new


async def _set_address(run: Run) -> None:
    async with run.write() as session:
        await session.execute(
            update(Tenant)
            .where(Tenant.instance_name == run.instance_name)
            .values(callback_url=run.input["callback_url"], updated_at=run.services.clock())
        )


async def _close_sessions(run: Run) -> None:
    """Let operators see the visitors leave before their contacts go. The pool removes each session afterwards."""
    services, instance_name = run.services, run.instance_name
    # without an incarnation: a pool process closes all that it shows of that name
    await services.commands.publish(CloseTenant(instance_name=instance_name))
    deadline = services.clock() + _SESSIONS_CLOSED_WITHIN
    first = left = await _open_sessions(services.database, instance_name)
    while left:
        if services.clock() > deadline:
            raise DomainError(f"the pool has not closed {left} visitor sessions yet")
        await run.report(max(first - left, 0), first)
        await asyncio.sleep(0.2)
        left = await _open_sessions(services.database, instance_name)


async def _open_sessions(database: Database, instance_name: str) -> int:
    async with database.read() as session:
        count = await session.scalar(
            select(func.count()).select_from(VisitorSession).where(VisitorSession.instance_name == instance_name)
        )
    return count or 0


async def _shut_out(run: Run) -> None:
    """End the XMPP sessions of the tenant's people, and let nobody log in. What waits for them stays."""
    if left := await run.services.ejabberd.bulk.shut_tenant(run.instance_name):
        raise DomainError(f"still logged in: {_some(left)}")


async def _let_in(run: Run) -> None:
    await run.services.ejabberd.bulk.open_tenant(run.instance_name)


async def _remove_accounts(run: Run) -> None:
    """Remove every account of the tenant: of its rosters, of the registry, and any that only bears its name.

    Operators first: nobody is online any more to be told of each visitor that goes.
    """
    services, instance_name = run.services, run.instance_name
    usernames = await _all_usernames(services, instance_name)
    ordered = sorted(usernames, key=lambda username: (_is_visitor(services.naming, username), username))
    await run.report(0, len(ordered))
    left: dict[str, str] = {}
    done = 0
    for wave in chunks(_calls(ordered), _PARALLEL):
        for answer in await asyncio.gather(*(services.ejabberd.bulk.remove_users(chunk) for chunk in wave)):
            left |= answer
        await _forget_accounts(run, [username for chunk in wave for username in chunk if username not in left])
        done += sum(map(len, wave))
        await run.report(done, len(ordered))
    _check_nothing(left)


async def _forget_accounts(run: Run, usernames: Sequence[str]) -> None:
    """Remove accounts from the registry that are gone from ejabberd, so that a repeated step does only the rest."""
    async with run.write() as session:
        await session.execute(delete(Account).where(Account.username.in_(usernames)))


def _calls(usernames: Sequence[str]) -> list[Sequence[str]]:
    """The usernames in pieces, one for each call; several even of a small tenant, so that progress is seen."""
    return list(chunks(usernames, min(max(len(usernames) // _REPORTS, 1), _CHUNK)))


def _check_nothing(left: Mapping[str, str]) -> None:
    if left:
        raise LeftoverError(f"still in ejabberd: {_some([f'{name} ({what})' for name, what in left.items()])}")


def _some(names: Sequence[str]) -> str:
    """The first names, as text."""
    return f"{', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"


def _is_visitor(naming: Naming, username: str) -> bool:
    try:
        return naming.parse_username(username).kind is not AccountKind.OPERATOR
    except InvalidInputError:
        return True


async def _all_usernames(services: Services, instance_name: str) -> set[str]:
    async with services.database.read() as session:
        names = set(await session.scalars(select(Account.username).where(Account.instance_name == instance_name)))
    for group in registry.groups(services.naming, instance_name):
        names.update(await services.ejabberd.roster_members(group))
    # names of a standalone system have no suffix, so we cannot search for them
    if suffix := services.naming.username_suffix(instance_name):
        names.update(await services.ejabberd.bulk.usernames(suffix))
    return names


async def _remove_rosters(run: Run) -> None:
    services, instance_name = run.services, run.instance_name
    # operators first: they display visitors
    for kind in (RosterKind.OPERATORS, RosterKind.VISITORS):
        await services.ejabberd.delete_roster(rosters.group_of(services.naming, instance_name, kind))


async def _remove_rooms(run: Run) -> None:
    """Remove the rooms of the registry, and any that only bears the tenant's name. Whoever is in one is told."""
    left = await rooms.remove_all(run.services, run.instance_name)
    _check_nothing(dict.fromkeys(left, "a room"))


async def _verify_destroyed(run: Run) -> None:
    services, instance_name = run.services, run.instance_name
    suffix = services.naming.username_suffix(instance_name)
    groups = registry.groups(services.naming, instance_name)
    await services.ejabberd.bulk.forget_tenant(suffix)
    # the next tenant of this name must not be suspended
    await services.ejabberd.bulk.open_tenant(instance_name)
    if await services.ejabberd.bulk.tenant_left(suffix, groups):
        # made by a request that came in just before the door was closed
        await _remove_rooms(run)
        await _remove_accounts(run)
        await _remove_rosters(run)
    left = await services.ejabberd.bulk.tenant_left(suffix, groups)
    _check_nothing({kind: f"{found.count}: {_some(found.names)}" for kind, found in left.items()})


async def _forget(run: Run) -> None:
    # once more: a page view that was accepted just before the door was closed may have come after the first
    await run.services.commands.publish(CloseTenant(instance_name=run.instance_name))
    async with run.write() as session:
        await incarnations.forget(run.services, session, run.instance_name, run.cause)


_ROSTERS = (
    # in this order: ejabberd >= 24.06 refuses a displayed group that does not exist
    _create_roster(RosterKind.VISITORS),
    _create_roster(RosterKind.OPERATORS),
)

WORKFLOWS: Workflows = {
    OperationKind.PROVISION: Workflow(
        steps=(
            _enter("begin", TenantState.PROVISIONING),
            *_ROSTERS,
            Step("create_operator", _create_operator, when=lambda given: "operator" in given),
            Step("verify", _verify_rosters),
            _enter("activate", TenantState.ACTIVE),
        ),
        during=TenantState.PROVISIONING,
        failed=TenantState.FAILED,
    ),
    # Suspend, resume and destroy stay where they are when they fail: closed for traffic, to be tried again.
    OperationKind.SUSPEND: Workflow(
        steps=(
            _enter("begin", TenantState.SUSPENDING),
            Step("close_sessions", _close_sessions),
            # last: until now operators are told what becomes of what they write
            Step("shut_out", _shut_out),
            _enter("finish", TenantState.SUSPENDED),
        ),
        during=TenantState.SUSPENDING,
    ),
    OperationKind.RESUME: Workflow(
        steps=(
            _enter("begin", TenantState.RESUMING),
            *_ROSTERS,
            Step("let_in", _let_in),
            _enter("activate", TenantState.ACTIVE),
            Step("wake_deliveries", _wake_deliveries),
        ),
        during=TenantState.RESUMING,
    ),
    OperationKind.DESTROY: Workflow(
        steps=(
            _enter("begin", TenantState.DESTROYING),
            Step("close_sessions", _close_sessions),
            Step("remove_rooms", _remove_rooms),
            Step("remove_accounts", _remove_accounts),
            Step("remove_rosters", _remove_rosters),
            Step("verify", _verify_destroyed),
            Step("forget", _forget),
        ),
        during=TenantState.DESTROYING,
    ),
    OperationKind.IMPORT: Workflow(
        steps=(
            _enter("begin", TenantState.PROVISIONING),
            Step("read_accounts", imports.read_accounts),
            *_ROSTERS,
            Step("verify", _verify_rosters),
            _enter("activate", TenantState.ACTIVE),
        ),
        during=TenantState.PROVISIONING,
        failed=TenantState.FAILED,
    ),
    OperationKind.RECONCILE: Workflow(
        steps=(
            Step("compare", reconcile.compare),
            Step("mend", mending.mend, when=lambda given: not given.get("dry_run")),
        )
    ),
    OperationKind.ROTATE_KEYS: Workflow(steps=(Step("install_key", _install_key),)),
    OperationKind.CHANGE_ADDRESS: Workflow(
        steps=(Step("set_address", _set_address), Step("wake_deliveries", _wake_deliveries))
    ),
}
