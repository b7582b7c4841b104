"""Operations: the record of each workflow's run, and what people ask of one: to pause, to go on, to be cancelled.

The row is written first, and a worker is woken second: a sweep finds rows whose wake-up was lost. A request to pause or
to cancel is only noted in the row; `tenants.lifecycle.engine` obeys it between two steps, or between two reports of
progress.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants.core.clock import Clock
from tenants.core.errors import ConflictError, NotFoundError
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.delivery_waker import Wake
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.database import Database, rows_changed
from tenants.store.models import (
    UNFINISHED,
    Operation,
    OperationKind,
    OperationState,
    RequestedStop,
    Tenant,
    TenantState,
)

HALFWAY = "make_rosters"
"""The step of a move from which on the tenant may be on both hosts."""
_MOMENT = 1e-6
"""Seconds between the creation of two operations of a tenant, at least: they run in the order of their creation."""
_WOKEN_AT_ONCE = 100
"""Operations that one run of the sweep wakes at most."""


def new_id() -> str:
    """An id for an operation, or for many that belong together."""
    return uuid.uuid4().hex


async def open_operation(
    clock: Clock,
    session: AsyncSession,
    instance_name: str,
    kind: OperationKind,
    cause: Cause,
    *,
    given: Mapping[str, Any] | None = None,
    bulk_id: str | None = None,
    not_before: float = 0,
) -> Operation:
    """The unfinished operation of that kind, or a new one with that input. Call `wake` after the commit.

    `not_before`: when a new one may begin (Unix seconds).

    Raises:
        ConflictError: one is under way that was given something else.
    """
    running = await unfinished(session, instance_name, kind)
    if running is not None:
        _join(clock, session, running, cause, given)
        return running
    now = clock()
    operation = Operation(
        id=new_id(),
        instance_name=instance_name,
        kind=kind,
        state=OperationState.PENDING,
        requested_by=cause.actor[:100],
        reason=cause.reason[: audit.REASON_LIMIT] if cause.reason else None,
        bulk_id=bulk_id,
        input=dict(given or {}),
        created_at=await _created_at(session, instance_name, now),
        due_at=max(now, not_before),
        steps=[],
    )
    session.add(operation)
    record(session, now, operation, cause, f"{kind} requested")
    await session.flush()
    return operation


async def _created_at(session: AsyncSession, instance_name: str, now: float) -> float:
    """A time after that of every other operation of the tenant, also when another machine's clock is ahead."""
    newest = await latest_in(session, instance_name)
    return max(now, newest.created_at + _MOMENT) if newest else now


def _join(
    clock: Clock, session: AsyncSession, running: Operation, cause: Cause, given: Mapping[str, Any] | None
) -> None:
    """Let another request share the operation that is under way."""
    if given and running.input != given:
        raise ConflictError(f"operation '{running.id}' ({running.kind}) is under way with another input")
    if running.wanted is RequestedStop.CANCEL:
        # a new request means that the operation is wanted after all
        running.wanted = None
        record(session, clock(), running, cause, f"{running.kind} requested")


async def unfinished(session: AsyncSession, instance_name: str, kind: OperationKind) -> Operation | None:
    """The tenant's operation of that kind which is still to end; there is one at most."""
    return next((one for one in await all_unfinished(session, instance_name) if one.kind is kind), None)


async def all_unfinished(session: AsyncSession, instance_name: str) -> list[Operation]:
    """The tenant's operations that are still to end, in the order in which they were asked for."""
    found = await session.scalars(
        select(Operation)
        .where(Operation.instance_name == instance_name, Operation.state.in_(UNFINISHED))
        .order_by(Operation.created_at, Operation.id)
    )
    return list(found)


async def pending_move(session: AsyncSession, instance_name: str) -> Operation | None:
    """The tenant's move to another host that is under way, or has ended halfway: then it may be on both."""
    newest = await session.scalar(
        select(Operation)
        .where(Operation.instance_name == instance_name, Operation.kind == OperationKind.MOVE)
        .order_by(Operation.created_at.desc(), Operation.id.desc())
        .limit(1)
    )
    return newest if newest is not None and (newest.state in UNFINISHED or is_halfway(newest)) else None


def is_halfway(move: Operation) -> bool:
    """Whether the move has not ended well, after something was on the other host. That of an earlier tenant has not."""
    begun = any(step.name == HALFWAY and step.started_at is not None for step in move.steps)
    return move.state in {OperationState.FAILED, OperationState.CANCELLED} and bool(move.input) and begun


async def halfway(session: AsyncSession) -> dict[str, Operation]:
    """All moves that have ended halfway, by tenant."""
    moves = await session.scalars(
        select(Operation).where(Operation.kind == OperationKind.MOVE).order_by(Operation.created_at, Operation.id)
    )
    newest = {move.instance_name: move for move in moves}
    return {name: move for name, move in newest.items() if is_halfway(move)}


async def end_resting(clock: Clock, session: AsyncSession, found: list[Operation], cause: Cause) -> None:
    """Cancel those of the operations that are paused, or about to be; their tenant's row is locked."""
    now = clock()
    for operation in found:
        if operation.state is OperationState.PAUSED:
            await close(session, operation.id, OperationState.CANCELLED, now, error=None)
            record(session, now, operation, cause, "operation cancelled")
        elif operation.wanted is RequestedStop.PAUSE:
            record(session, now, operation, cause, "operation cancel requested")
            await session.execute(
                update(Operation)
                .where(Operation.id == operation.id, Operation.state.in_(UNFINISHED))
                .values(wanted=RequestedStop.CANCEL)
            )


async def wake(wake: Wake, operation: Operation) -> None:
    """Tell a worker that the operation is due."""
    await wake(
        task_names.ADVANCE,
        operation_id=operation.id,
        instance_name=operation.instance_name,
        kind=operation.kind.value,
    )


async def wake_due(services: Services) -> None:
    """Tell workers of the operations that have been due for longest, of a hundred at most."""
    async with services.database.read() as session:
        due = await claims.due(session, Operation, services.clock(), _WOKEN_AT_ONCE)
    for operation_id in due:
        await wake(services.wake, await get(services.database, operation_id))


async def get(database: Database, operation_id: str) -> Operation:
    """The operation with its steps.

    Raises:
        NotFoundError: there is none.
    """
    async with database.read() as session:
        return await _get(session, operation_id)


async def latest_result(database: Database, instance_name: str, kind: OperationKind) -> Mapping[str, Any]:
    """What the latest operation of that kind that has succeeded found; nothing when there is none."""
    query = (
        select(Operation.result)
        .where(
            Operation.instance_name == instance_name,
            Operation.kind == kind,
            Operation.state == OperationState.SUCCEEDED,
        )
        .order_by(Operation.created_at.desc())
        .limit(1)
    )
    async with database.read() as session:
        return await session.scalar(query) or {}


async def latest(database: Database, instance_name: str) -> Operation | None:
    """The tenant's newest operation."""
    async with database.read() as session:
        return await latest_in(session, instance_name)


async def find(
    database: Database,
    *,
    instance_name: str | None = None,
    kind: OperationKind | None = None,
    state: OperationState | None = None,
    bulk_id: str | None = None,
    after: str | None = None,
    since: float = 0,
    limit: int = 50,
) -> list[Operation]:
    """Operations, newest first, from the time `since` on. `after`: the id of the last one of the page before.

    Raises:
        NotFoundError: there is no operation of the id `after`.
    """
    query = select(Operation).order_by(Operation.created_at.desc(), Operation.id.desc()).limit(limit)
    conditions = {"instance_name": instance_name, "kind": kind, "state": state, "bulk_id": bulk_id}
    query = query.filter_by(**{name: value for name, value in conditions.items() if value is not None})
    query = query.where(Operation.created_at >= since)
    async with database.read() as session:
        if after is not None:
            last = await _get(session, after)
            query = query.where(
                or_(
                    Operation.created_at < last.created_at,
                    and_(Operation.created_at == last.created_at, Operation.id < last.id),
                )
            )
        return list(await session.scalars(query))


async def pause(services: Services, operation_id: str, cause: Cause) -> Operation:
    """Let the operation rest after the step or chunk under way, until `go_on`. One that rests already is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is over, or about to be cancelled; or the tenant's end waits for it.
    """
    return await _want(services, operation_id, RequestedStop.PAUSE, cause)


async def cancel(services: Services, operation_id: str, cause: Cause) -> Operation:
    """End the operation after the step or chunk under way. One that was cancelled already is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is over otherwise; or it destroys the tenant, which has no way back.
    """
    return await _want(services, operation_id, RequestedStop.CANCEL, cause)


async def go_on(services: Services, operation_id: str, cause: Cause) -> Operation:
    """Take up a paused operation where it rested. One that runs is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is over.
    """
    async with services.database.write() as session:
        operation, _ = await lock(session, operation_id)
        _refuse_finished(operation)
        now = services.clock()
        if operation.state is OperationState.PAUSED or operation.wanted is RequestedStop.PAUSE:
            operation.wanted = None
            record(session, now, operation, cause, "operation resumed")
        if operation.state is OperationState.PAUSED:
            operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
            operation.due_at = now
    await wake(services.wake, operation)
    return operation


async def _want(services: Services, operation_id: str, wanted: RequestedStop, cause: Cause) -> Operation:
    done = {RequestedStop.PAUSE: OperationState.PAUSED, RequestedStop.CANCEL: OperationState.CANCELLED}[wanted]
    async with services.database.write() as session:
        operation, tenant = await lock(session, operation_id)
        if operation.state is done or operation.wanted is wanted:
            return operation
        _refuse_finished(operation)
        if wanted is RequestedStop.CANCEL:
            _refuse_cancelled_end(operation, tenant)
        else:
            await _refuse_delayed_end(session, operation)
        now = services.clock()
        operation.wanted = wanted
        operation.due_at = now
        if operation.state is OperationState.PAUSED:
            operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
        record(session, now, operation, cause, f"operation {wanted} requested")
    await wake(services.wake, operation)
    return operation


def _refuse_finished(operation: Operation) -> None:
    if operation.state not in UNFINISHED:
        raise ConflictError(f"operation '{operation.id}' has {operation.state}")


def _refuse_cancelled_end(operation: Operation, tenant: Tenant | None) -> None:
    begun = bool(operation.steps) or (tenant is not None and tenant.state is TenantState.DESTROYING)
    if operation.kind is OperationKind.DESTROY and begun:
        raise ConflictError("a tenant's end that has begun can be paused, but not cancelled")


async def _refuse_delayed_end(session: AsyncSession, operation: Operation) -> None:
    if operation.wanted is RequestedStop.CANCEL:
        raise ConflictError(f"operation '{operation.id}' is about to be cancelled")
    end = await unfinished(session, operation.instance_name, OperationKind.DESTROY)
    if end is not None and end.id != operation.id:
        raise ConflictError(f"operation '{end.id}' ({end.kind}) waits for this one")


async def _get(session: AsyncSession, operation_id: str) -> Operation:
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise NotFoundError(f"there is no operation '{operation_id}'")
    return operation


async def lock(session: AsyncSession, operation_id: str) -> tuple[Operation, Tenant | None]:
    """The operation and its tenant, both locked; the tenant first, as everywhere, or two of us could wait in a ring."""
    operation = await _get(session, operation_id)
    tenant = await lock_tenant(session, operation.instance_name)
    await session.refresh(operation, with_for_update=True)
    return operation, tenant


async def lock_tenant(session: AsyncSession, instance_name: str) -> Tenant | None:
    """The tenant's row as it is now, locked; None when the operation is for all tenants."""
    return await session.get(Tenant, instance_name, with_for_update=True, populate_existing=True)


async def latest_in(session: AsyncSession, instance_name: str) -> Operation | None:
    """`latest`, in a session that does more."""
    found: Operation | None = await session.scalar(
        select(Operation)
        .where(Operation.instance_name == instance_name)
        .order_by(Operation.created_at.desc(), Operation.id.desc())
        .limit(1)
    )
    return found


async def close(session: AsyncSession, operation_id: str, state: OperationState, now: float, **values: Any) -> None:
    """End the operation in that state.

    Raises:
        ConflictError: it has ended before.
    """
    closed = await session.execute(
        update(Operation)
        .where(Operation.id == operation_id, Operation.state.in_(UNFINISHED))
        .values(state=state, finished_at=now, due_at=None, wanted=None, **values)
    )
    if not rows_changed(closed):
        raise ConflictError(f"operation '{operation_id}' is over already")


def record(session: AsyncSession, now: float, operation: Operation, cause: Cause, action: str) -> None:
    """Add an entry about the operation to the audit log."""
    audit.record(session, now, cause, action, instance_name=operation.instance_name, operation_id=operation.id)
