"""The workflows of a tenant's life, step by step. Each step may run twice and leaves the same result."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import func, select

from tenants import registry, rosters
from tenants.commands import CloseTenant
from tenants.ejabberd_bulk import BATCH
from tenants.errors import ConflictError, DomainError, InvalidInputError
from tenants.models import Account, OperationKind, TenantState, VisitorSession
from tenants.naming import AccountKind, RosterKind
from tenants.operations import Progress, Step, Workflow, Workflows
from tenants.services import Services

Thing = TypeVar("Thing")

_REPORTS = 20
"""Of the progress of a removal, at least, when there are that many accounts."""
_PARALLEL = 2
"""Calls under way at once, each a chunk of accounts: more would take ejabberd from others and win nothing."""
_NAMED = 20
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
    """Every account of the tenant: of its rosters, of the registry, and any that merely bears its name.

    Operators first: nobody is online any more to be told of each visitor that goes.
    """
    usernames = await _all_usernames(services, instance_name)
    ordered = sorted(usernames, key=lambda username: (_is_visitor(services, username), username))
    await progress.report(0, len(ordered))
    left: dict[str, str] = {}
    done = 0
    for wave in _parts(_chunks(ordered), _PARALLEL):
        for answer in await asyncio.gather(*(services.ejabberd.bulk.remove_users(chunk) for chunk in wave)):
            left |= answer
        done += sum(map(len, wave))
        await progress.report(done, len(ordered))
    _check_nothing(left)


def _chunks(usernames: Sequence[str]) -> list[Sequence[str]]:
    """Those for one call each: of a small tenant too they are several, for progress to be seen."""
    return list(_parts(usernames, min(max(len(usernames) // _REPORTS, 1), BATCH)))


def _parts(things: Sequence[Thing], size: int) -> Iterator[Sequence[Thing]]:
    return (things[start : start + size] for start in range(0, len(things), size))


def _check_nothing(left: Mapping[str, str]) -> None:
    if left:
        raise LeftoverError(f"still in ejabberd: {_some([f'{name} ({what})' for name, what in left.items()])}")


def _some(names: Sequence[str]) -> str:
    """As many as a person reads."""
    return f"{', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}"


def _is_visitor(services: Services, username: str) -> bool:
    try:
        return services.naming.parse_username(username).kind is not AccountKind.OPERATOR
    except InvalidInputError:
        return True


async def remove_from_ejabberd(services: Services, username: str) -> None:
    """Roster member first, so that operators see the contact go; then the account with its sessions.

    Raises:
        LeftoverError: something of it is still there.
    """
    _check_nothing(await services.ejabberd.bulk.remove_users([username]))


async def _all_usernames(services: Services, instance_name: str) -> set[str]:
    async with services.database.read() as session:
        names = set(await session.scalars(select(Account.username).where(Account.instance_name == instance_name)))
    for group in _groups(services, instance_name):
        names.update(await services.ejabberd.roster_members(group))
    # standalone names end in nothing, so there none is taken
    if suffix := services.naming.username_suffix(instance_name):
        names.update(await services.ejabberd.bulk.usernames(suffix))
    return names


def _groups(services: Services, instance_name: str) -> list[str]:
    return [rosters.group_of(services.naming, instance_name, kind) for kind in RosterKind]


async def _remove_rosters(services: Services, instance_name: str, _progress: Progress) -> None:
    # operators first: they display visitors
    for kind in (RosterKind.OPERATORS, RosterKind.VISITORS):
        await services.ejabberd.delete_roster(rosters.group_of(services.naming, instance_name, kind))


async def _verify_destroyed(services: Services, instance_name: str, progress: Progress) -> None:
    suffix = services.naming.username_suffix(instance_name)
    groups = _groups(services, instance_name)
    await services.ejabberd.bulk.forget_tenant(suffix)
    if await services.ejabberd.bulk.tenant_left(suffix, groups):
        # made by a request that came in just before the door was closed
        await _remove_accounts(services, instance_name, progress)
        await _remove_rosters(services, instance_name, progress)
    left = await services.ejabberd.bulk.tenant_left(suffix, groups)
    _check_nothing({kind: f"{found.count}: {_some(found.names)}" for kind, found in left.items()})


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
