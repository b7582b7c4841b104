"""Requests: a workflow is asked for, on one tenant or on many. A table of rules says whether it may begin.

A request of a kind that is under way is that operation. One that fits waits for what is under way; one that
contradicts it is refused. The tenant's row is locked while this is decided.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.chunks import chunks
from tenants.core.clock import Clock
from tenants.core.errors import ConflictError, DomainError, NotFoundError
from tenants.core.naming import Naming
from tenants.lifecycle import operations, registry, states
from tenants.lifecycle.audit import Cause
from tenants.outbound import callback_urls, lhc
from tenants.process.services import Services
from tenants.store.models import Operation, OperationKind, OperationState, Tenant, TenantState

_OPEN_AT_ONCE = 20
"""Tenants of a bulk in one transaction: most of its cost is the commit, and others wait for it."""
_WAKE_AT_ONCE = 100
"""Wake-ups of a bulk on their way at once: a broker that hangs costs each hundred two seconds, not each one."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """When a workflow may be asked for.

    Attributes:
        begins_in: states in which it may begin when nothing is under way.
        done: states in which there is nothing to do.
        waits_for: workflows under way that it waits for; any other contradicts it.
    """

    begins_in: frozenset[TenantState]
    done: frozenset[TenantState] = frozenset()
    waits_for: frozenset[OperationKind] = frozenset()


_HARMLESS = frozenset({OperationKind.ROTATE_KEYS, OperationKind.CHANGE_ADDRESS, OperationKind.RECONCILE})
"""They leave the tenant's state as it is."""
_MAKING = frozenset({OperationKind.PROVISION, OperationKind.IMPORT})
_HALFWAY = frozenset(
    {OperationKind.DESTROY, OperationKind.MOVE, OperationKind.ROTATE_KEYS, OperationKind.CHANGE_ADDRESS}
)
"""What may be done to a tenant whose move to another host has ended halfway."""
_S = TenantState
_RULES: Mapping[OperationKind, _Rule] = {
    OperationKind.SUSPEND: _Rule(
        frozenset({_S.ACTIVE, _S.SUSPENDING, _S.RESUMING}), frozenset({_S.SUSPENDED}), _HARMLESS | _MAKING
    ),
    OperationKind.RESUME: _Rule(
        frozenset({_S.SUSPENDED, _S.SUSPENDING, _S.RESUMING}), frozenset({_S.ACTIVE}), _HARMLESS
    ),
    OperationKind.MOVE: _Rule(frozenset({_S.ACTIVE, _S.SUSPENDING, _S.SUSPENDED, _S.RESUMING}), waits_for=_HARMLESS),
    OperationKind.DESTROY: _Rule(states.LIVE | {_S.DESTROYING}, waits_for=frozenset(OperationKind)),
    **dict.fromkeys(
        sorted(_HARMLESS), _Rule(states.LIVE, waits_for=frozenset(OperationKind) - {OperationKind.DESTROY})
    ),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that no rule forbids. The tenant's row is locked.

    Attributes:
        others: what is under way at the tenant, of other kinds.
        is_done: the tenant is already in the state that the workflow leads to, and nothing is about to change that.
    """

    tenant: Tenant
    kind: OperationKind
    others: list[Operation]
    is_done: bool


async def request(
    services: Services, instance_name: str, kind: OperationKind, cause: Cause, *, given: Mapping[str, Any] | None = None
) -> Operation | None:
    """Start a workflow on a tenant, or find the one of that kind that is under way. None when there is nothing to do.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: its state, or what is under way, does not allow it.
    """
    async with services.database.write() as session:
        operation = await _open_unless_done(services, session, instance_name, kind, cause, given=given)
    services.cache.tenants.forget(instance_name)
    if operation is not None:
        await operations.wake(services.wake, operation)
    return operation


async def start(
    services: Services, instance_name: str, kind: OperationKind, cause: Cause, *, given: Mapping[str, Any] | None = None
) -> Operation:
    """`request`, for a workflow that has something to do whatever the tenant's state: no rule of it says `done`.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: its state, or what is under way, does not allow it.
    """
    async with services.database.write() as session:
        asked = await _check(services.naming, session, instance_name, kind)
        operation = await _open(services.clock, session, asked, cause, given=given)
    services.cache.tenants.forget(instance_name)
    await operations.wake(services.wake, operation)
    return operation


async def destroy(services: Services, instance_name: str, cause: Cause) -> Operation:
    """Start the tenant's end; from now on it takes no traffic. What is under way is finished first.

    Raises:
        NotFoundError: there is no such tenant.
    """
    return await start(services, instance_name, OperationKind.DESTROY, cause)


async def last_end(services: Services, instance_name: str) -> Operation | None:
    """The operation that destroyed the last tenant of that name."""
    found = await operations.find(
        services.database,
        instance_name=instance_name,
        kind=OperationKind.DESTROY,
        state=OperationState.SUCCEEDED,
        limit=1,
    )
    return found[0] if found else None


async def change_address(services: Services, instance_name: str, cause: Cause, callback_url: str | None) -> Operation:
    """Start moving the tenant's callbacks to another address (None: the one that its name gives); accounts stay.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or another change is under way.
        InvalidInputError: it holds what is shown in a password's place, or the name gives no address.
    """
    known = (await registry.get(services, instance_name)).callback_url
    given = {"callback_url": callback_urls.as_meant(callback_url, known)}
    lhc.check_address(services.settings, instance_name, given["callback_url"])
    return await start(services, instance_name, OperationKind.CHANGE_ADDRESS, cause, given=given)


async def request_many(
    services: Services, instance_names: Sequence[str], kind: OperationKind, cause: Cause, bulk_id: str | None = None
) -> list[tuple[str, Operation | DomainError | None]]:
    """Start a workflow on each of the tenants: what `request` gave or raised, by name, each on its own."""
    outcomes: dict[str, Operation | DomainError | None] = {}
    # in order, so that two bulks at once cannot wait for each other's tenants in a ring
    for names in chunks(sorted(set(instance_names)), _OPEN_AT_ONCE):
        async with services.database.write() as session:
            for name in names:
                try:
                    outcomes[name] = await _open_unless_done(services, session, name, kind, cause, bulk_id=bulk_id)
                except DomainError as error:
                    outcomes[name] = error
        for name in names:
            services.cache.tenants.forget(name)
    opened = [outcome for outcome in outcomes.values() if isinstance(outcome, Operation)]
    for some in chunks(opened, _WAKE_AT_ONCE):
        await asyncio.gather(*(operations.wake(services.wake, one) for one in some))
    return [(name, outcomes[name]) for name in dict.fromkeys(instance_names)]


async def _check(naming: Naming, session: AsyncSession, instance_name: str, kind: OperationKind) -> _Asked:
    """The request, unless a rule forbids it.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: its state, or what is under way, does not allow it.
    """
    rule = _RULES[kind]
    tenant = await session.get(Tenant, instance_name, with_for_update=True)
    if tenant is None or tenant.state is TenantState.DESTROYED:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    if kind is not OperationKind.DESTROY and not naming.hosting and naming.is_foreign(instance_name):
        raise ConflictError(f"tenant '{instance_name}' was made while this system was hosted: it can only be destroyed")
    under_way = await operations.all_unfinished(session, instance_name)
    others = [one for one in under_way if one.kind is not kind]
    for other in others:
        if other.kind not in rule.waits_for:
            raise ConflictError(
                f"tenant '{instance_name}' is {tenant.state}: operation '{other.id}' ({other.kind}) is under way"
            )
    move = await operations.pending_move(session, instance_name) if kind not in _HALFWAY else None
    if move is not None and operations.is_halfway(move):
        to = move.input["to"]
        raise ConflictError(f"tenant '{instance_name}' is on its way to '{to}': retry operation '{move.id}'")
    stays = all(one.kind in _HARMLESS for one in under_way)
    is_done = stays and tenant.state in rule.done
    if stays and not is_done and tenant.state not in rule.begins_in:
        raise ConflictError(f"tenant '{instance_name}' is {tenant.state}")
    return _Asked(tenant, kind, others, is_done)


async def _open_unless_done(
    services: Services,
    session: AsyncSession,
    instance_name: str,
    kind: OperationKind,
    cause: Cause,
    *,
    given: Mapping[str, Any] | None = None,
    bulk_id: str | None = None,
) -> Operation | None:
    """`request`, without waking anybody. What it raises, it raises before it changes anything."""
    asked = await _check(services.naming, session, instance_name, kind)
    return None if asked.is_done else await _open(services.clock, session, asked, cause, given=given, bulk_id=bulk_id)


async def _open(
    clock: Clock,
    session: AsyncSession,
    asked: _Asked,
    cause: Cause,
    *,
    given: Mapping[str, Any] | None = None,
    bulk_id: str | None = None,
) -> Operation:
    operation = await operations.open_operation(
        clock, session, asked.tenant.instance_name, asked.kind, cause, given=given, bulk_id=bulk_id
    )
    if asked.kind is OperationKind.DESTROY:
        await _end(clock, session, asked.tenant, asked.others, Cause.of(operation))
    return operation


async def _end(clock: Clock, session: AsyncSession, tenant: Tenant, others: list[Operation], cause: Cause) -> None:
    """Close the door at once, unless the state is about to change; what rests is not waited for."""
    resting = {other.id for other in others if other.state is OperationState.PAUSED}
    await operations.end_resting(clock, session, others, cause)
    if all(other.id in resting or other.kind in _HARMLESS for other in others):
        await states.transition(session, clock(), tenant.instance_name, TenantState.DESTROYING, cause)
