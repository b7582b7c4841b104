"""The workflows of a tenant's life, step by step. Each step may run twice and leaves the same result."""

import asyncio

from sqlalchemy import func, select, update

from tenants import accounts, delivery_log, registry, rosters
from tenants.commands import CloseTenant
from tenants.errors import DomainError
from tenants.models import Account, OperationKind, Tenant, TenantState, VisitorSession
from tenants.naming import RosterKind
from tenants.operations import Run, Step, Workflow, Workflows
from tenants.services import Services

_CHUNK = 50
"""Accounts removed between two reports of progress."""
_PARALLEL = 10
"""Removals under way at once: more than this only queues inside ejabberd."""
_SESSIONS_CLOSED_WITHIN = 20.0
"""Seconds for the pool to tell operators that the tenant's visitors left."""


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


async def _wake_deliveries(run: Run) -> None:
    """What waited for the tenant, or for its new address, is due at once."""
    await delivery_log.go_on(run.services, run.instance_name)


async def _install_key(run: Run) -> None:
    new: str = run.input["key_digest"]
    async with run.services.database.write() as session:
        tenant = await session.get_one(Tenant, run.instance_name, with_for_update=True)
        if tenant.key_digest != new:
            tenant.previous_key_digest = tenant.key_digest
            tenant.previous_key_until = run.services.clock() + run.input["overlap"]
            tenant.key_digest = new


async def _set_address(run: Run) -> None:
    async with run.services.database.write() as session:
        await session.execute(
            update(Tenant)
            .where(Tenant.instance_name == run.instance_name)
            .values(callback_url=run.input["callback_url"], updated_at=run.services.clock())
        )


async def _close_sessions(run: Run) -> None:
    """Operators see the visitors leave before the contacts go. The pool removes the rows when it told them."""
    services, instance_name = run.services, run.instance_name
    await services.commands.publish(CloseTenant(instance_name=instance_name))
    deadline = services.clock() + _SESSIONS_CLOSED_WITHIN
    first = left = await _open_sessions(services, instance_name)
    while left:
        if services.clock() > deadline:
            raise DomainError(f"the pool has not closed {left} visitor sessions yet")
        await run.report(max(first - left, 0), first)
        await asyncio.sleep(0.2)
        left = await _open_sessions(services, instance_name)


async def _open_sessions(services: Services, instance_name: str) -> int:
    async with services.database.read() as session:
        count = await session.scalar(
            select(func.count()).select_from(VisitorSession).where(VisitorSession.instance_name == instance_name)
        )
    return count or 0


async def _remove_accounts(run: Run) -> None:
    """Every account of the tenant: of its rosters, of the registry, and any that merely bears its name."""
    services, instance_name = run.services, run.instance_name
    usernames = sorted(await _all_usernames(services, instance_name))
    gate = asyncio.Semaphore(_PARALLEL)

    async def remove(username: str) -> None:
        async with gate:
            await accounts.remove_from_ejabberd(services, instance_name, username)

    await run.report(0, len(usernames))
    for start in range(0, len(usernames), _CHUNK):
        chunk = usernames[start : start + _CHUNK]
        async with asyncio.TaskGroup() as group:
            for username in chunk:
                group.create_task(remove(username))
        await run.report(start + len(chunk), len(usernames))


async def _all_usernames(services: Services, instance_name: str) -> set[str]:
    async with services.database.read() as session:
        names = set(await session.scalars(select(Account.username).where(Account.instance_name == instance_name)))
    for kind in RosterKind:
        names.update(await services.ejabberd.roster_members(rosters.group_of(services.naming, instance_name, kind)))
    names.update(await _bearing_the_name(services, instance_name))
    return names


async def _bearing_the_name(services: Services, instance_name: str) -> list[str]:
    """Registered users whose name ends in `.instance`. Standalone names end in nothing, so there none is taken."""
    suffix = services.naming.username_suffix(instance_name)
    return [user for user in await services.ejabberd.users() if suffix and user.endswith(suffix)]


async def _remove_rosters(run: Run) -> None:
    services, instance_name = run.services, run.instance_name
    # operators first: they display visitors
    for kind in (RosterKind.OPERATORS, RosterKind.VISITORS):
        await services.ejabberd.delete_roster(rosters.group_of(services.naming, instance_name, kind))


async def _verify_destroyed(run: Run) -> None:
    services, instance_name = run.services, run.instance_name
    if await _bearing_the_name(services, instance_name):
        # registered by a request that came in just before the door was closed
        await _remove_accounts(run)
    left = [f"account {user}" for user in await _bearing_the_name(services, instance_name)]
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        if await services.ejabberd.roster(group) is not None:
            left.append(f"shared roster {group}")
    if left:
        raise LeftoverError(f"still in ejabberd: {', '.join(left[:20])}{' …' if len(left) > 20 else ''}")  # noqa: PLR2004 - as many as a person reads


async def _forget(run: Run) -> None:
    # once more: a page view that was accepted just before the door was closed may have come after the first
    await run.services.commands.publish(CloseTenant(instance_name=run.instance_name))
    await registry.forget(run.services, run.instance_name, run.cause)


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
            _enter("finish", TenantState.SUSPENDED),
        ),
        during=TenantState.SUSPENDING,
    ),
    OperationKind.RESUME: Workflow(
        steps=(
            _enter("begin", TenantState.RESUMING),
            *_ROSTERS,
            _enter("activate", TenantState.ACTIVE),
            Step("wake_deliveries", _wake_deliveries),
        ),
        during=TenantState.RESUMING,
    ),
    OperationKind.DESTROY: Workflow(
        steps=(
            _enter("begin", TenantState.DESTROYING),
            Step("close_sessions", _close_sessions),
            Step("remove_accounts", _remove_accounts),
            Step("remove_rosters", _remove_rosters),
            Step("verify", _verify_destroyed),
            Step("forget", _forget),
        ),
        during=TenantState.DESTROYING,
    ),
    OperationKind.ROTATE_KEYS: Workflow(steps=(Step("install_key", _install_key),)),
    OperationKind.CHANGE_ADDRESS: Workflow(
        steps=(Step("set_address", _set_address), Step("wake_deliveries", _wake_deliveries))
    ),
}
