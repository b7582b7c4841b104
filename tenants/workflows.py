"""The workflows of a tenant's life, step by step. Each step may run twice and leaves the same result."""

import asyncio

from sqlalchemy import func, select

from tenants import registry, rosters
from tenants.commands import CloseTenant
from tenants.errors import ConflictError, DomainError
from tenants.models import Account, OperationKind, TenantState, VisitorSession
from tenants.naming import RosterKind
from tenants.operations import Progress, Step, Workflow, Workflows
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
    async def run(services: Services, instance_name: str, _progress: Progress) -> None:
        group = rosters.group_of(services.naming, instance_name, kind)
        await services.ejabberd.create_roster(group, rosters.wanted(services.naming, instance_name, kind))

    return Step(f"create_{kind}_roster", run)


async def _begin_provisioning(services: Services, instance_name: str, _progress: Progress) -> None:
    old = (TenantState.PENDING, TenantState.FAILED)
    try:
        await registry.set_state(services, instance_name, old, TenantState.PROVISIONING)
    except ConflictError:
        # asked for once more after another run had finished it
        await registry.get_active(services, instance_name)


async def _verify_provisioned(services: Services, instance_name: str, _progress: Progress) -> None:
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        if await services.ejabberd.roster(group) != rosters.wanted(services.naming, instance_name, kind):
            raise DomainError(f"shared roster {group} is not as it was created")


async def _activate(services: Services, instance_name: str, _progress: Progress) -> None:
    await registry.set_state(services, instance_name, (TenantState.PROVISIONING,), TenantState.ACTIVE)


async def _provision_failed(services: Services, instance_name: str) -> None:
    await registry.set_state(services, instance_name, (TenantState.PROVISIONING,), TenantState.FAILED)


async def _begin_destroying(services: Services, instance_name: str, _progress: Progress) -> None:
    await registry.begin_destroying(services, instance_name)


async def _close_sessions(services: Services, instance_name: str, progress: Progress) -> None:
    """Operators see the visitors leave before the contacts go. The pool removes the rows when it told them."""
    await services.commands.publish(CloseTenant(instance_name=instance_name))
    deadline = services.clock() + _SESSIONS_CLOSED_WITHIN
    first = left = await _open_sessions(services, instance_name)
    while left:
        if services.clock() > deadline:
            raise DomainError(f"the pool has not closed {left} visitor sessions yet")
        await progress.report(max(first - left, 0), first)
        await asyncio.sleep(0.2)
        left = await _open_sessions(services, instance_name)


async def _open_sessions(services: Services, instance_name: str) -> int:
    async with services.database.read() as session:
        count = await session.scalar(
            select(func.count()).select_from(VisitorSession).where(VisitorSession.instance_name == instance_name)
        )
    return count or 0


async def _remove_accounts(services: Services, instance_name: str, progress: Progress) -> None:
    """Every account of the tenant: of its rosters, of the registry, and any that merely bears its name."""
    usernames = sorted(await _all_usernames(services, instance_name))
    gate = asyncio.Semaphore(_PARALLEL)

    async def remove(username: str) -> None:
        async with gate:
            await remove_from_ejabberd(services, instance_name, username)

    await progress.report(0, len(usernames))
    for start in range(0, len(usernames), _CHUNK):
        chunk = usernames[start : start + _CHUNK]
        async with asyncio.TaskGroup() as group:
            for username in chunk:
                group.create_task(remove(username))
        await progress.report(start + len(chunk), len(usernames))


async def remove_from_ejabberd(services: Services, instance_name: str, username: str) -> None:
    """Roster member first, so that operators see the contact go; then the account with its sessions."""
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        await services.ejabberd.remove_from_roster(username, group)
    await services.ejabberd.unregister(username)


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


async def _remove_rosters(services: Services, instance_name: str, _progress: Progress) -> None:
    # operators first: they display visitors
    for kind in (RosterKind.OPERATORS, RosterKind.VISITORS):
        await services.ejabberd.delete_roster(rosters.group_of(services.naming, instance_name, kind))


async def _verify_destroyed(services: Services, instance_name: str, progress: Progress) -> None:
    if await _bearing_the_name(services, instance_name):
        # registered by a request that came in just before the door was closed
        await _remove_accounts(services, instance_name, progress)
    left = [f"account {user}" for user in await _bearing_the_name(services, instance_name)]
    for kind in RosterKind:
        group = rosters.group_of(services.naming, instance_name, kind)
        if await services.ejabberd.roster(group) is not None:
            left.append(f"shared roster {group}")
    if left:
        raise LeftoverError(f"still in ejabberd: {', '.join(left[:20])}{' …' if len(left) > 20 else ''}")  # noqa: PLR2004 - as many as a person reads


async def _forget(services: Services, instance_name: str, _progress: Progress) -> None:
    await registry.forget(services, instance_name)


WORKFLOWS: Workflows = {
    OperationKind.PROVISION: Workflow(
        steps=(
            Step("begin", _begin_provisioning),
            # in this order: ejabberd >= 24.06 refuses a displayed group that does not exist
            _create_roster(RosterKind.VISITORS),
            _create_roster(RosterKind.OPERATORS),
            Step("verify", _verify_provisioned),
            Step("activate", _activate),
        ),
        on_failure=_provision_failed,
    ),
    OperationKind.DESTROY: Workflow(
        steps=(
            Step("begin", _begin_destroying),
            Step("close_sessions", _close_sessions),
            Step("remove_accounts", _remove_accounts),
            Step("remove_rosters", _remove_rosters),
            Step("verify", _verify_destroyed),
            Step("forget", _forget),
        ),
        # when it fails it stays `destroying`: closed for traffic, and the next DELETE tries again
    ),
}
