"""Operations: the record of each workflow's run, and the engine that takes it from step to step.

The row comes first, the wake-up second; a sweep finds rows whose wake-up was lost or whose worker died. Each call of
`advance` claims the operation, runs one step and says what is next, so a workflow survives the end of any process
between or inside its steps: a step is simply run again. What people want of one that is under way (pause, cancel) is
noted in its row, and done by whoever holds the claim, between two steps or two reports of progress.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants.core.backoff import delay
from tenants.core.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.lifecycle import audit, states
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.database import rows_changed
from tenants.store.models import (
    UNFINISHED,
    Operation,
    OperationKind,
    OperationState,
    OperationStep,
    StepState,
    Tenant,
    TenantState,
    Wanted,
)

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 6
"""Tries of one step before its operation fails; with the delays below about a minute and a half."""
MAX_DEATHS = 2 * MAX_ATTEMPTS
"""Tries of a step that no worker has survived: it kills them, and would for ever."""
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 40.0
_MOMENT = 1e-6
"""Seconds between two operations of a tenant at least: their order is the one in which they were asked for."""
_TURN_DELAY = 0.5
"""Seconds until an operation that waits for another one of its tenant looks again."""
_WOKEN_AT_ONCE = 100
"""Operations that one run of the sweep wakes at most."""


class Next(StrEnum):
    """What follows a call of `advance`."""

    STEP = "step"
    """The next step may run at once."""
    LATER = "later"
    """The sweep takes it up when it is due."""
    NOTHING = "nothing"
    """It is finished, or paused, or in somebody else's hands."""


class ClaimLostError(Exception):
    """The worker was too slow or paused, and its claim went to another."""


class StopRequestedError(Exception):
    """Somebody wants the operation to pause or to be cancelled."""


class WorkerDiedError(Exception):
    """The step has ended its worker, each time."""


class Run:
    """A step under way, given to its function. The claim is kept meanwhile, also for a step that says nothing."""

    def __init__(self, services: Services, operation: Operation, position: int, token: str) -> None:
        self.services = services
        self.instance_name: str = operation.instance_name
        self.input: Mapping[str, Any] = operation.input
        self.cause = Cause.of(operation)
        self._operation_id = operation.id
        self._position = position
        self._token = token

    async def report(self, done: int, total: int) -> None:
        """Record `done` of `total`.

        Raises:
            ClaimLostError: another worker has taken over; stop at once.
            StopRequestedError: stop at once, and be run again later or never.
        """
        async with self.write() as session:
            await session.execute(
                update(OperationStep)
                .where(OperationStep.operation_id == self._operation_id, OperationStep.position == self._position)
                .values(done=done, total=total)
            )
            wanted = await session.scalar(select(Operation.wanted).where(Operation.id == self._operation_id))
        if wanted is not None:
            raise StopRequestedError(wanted)

    async def tell(self, **result: Any) -> None:
        """Add to what the operation found out; keep it small.

        Raises:
            ClaimLostError: another worker has taken over; stop at once.
        """
        async with self.write() as session:
            operation = await session.get_one(Operation, self._operation_id)
            operation.result = {**(operation.result or {}), **result}

    async def enter(self, state: TenantState) -> None:
        """Bring the tenant into the state.

        Raises:
            ConflictError: it does not follow the present one.
            ClaimLostError: another worker has taken over; stop at once.
        """
        async with self.write() as session:
            await states.transition(session, self.services.clock(), self.instance_name, state, self.cause)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction that changes nothing when the claim was lost: the tenant may be in other hands by now.

        Raises:
            ClaimLostError: another worker has taken over; stop at once.
        """
        async with self.services.database.write() as session:
            await _lock_tenant(session, self.instance_name)
            now = self.services.clock()
            if not await claims.renew(session, Operation, self._operation_id, self._token, now):
                raise ClaimLostError(self._operation_id)
            yield session


StepFunction = Callable[[Run], Awaitable[None]]
"""A step. It may run twice and must leave the same result."""


def _always(_input: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Step:
    """A named step of a workflow. `when`: whether an operation with that input has it at all."""

    name: str
    run: StepFunction
    when: Callable[[Mapping[str, Any]], bool] = _always


@dataclass(frozen=True, slots=True)
class Workflow:
    """Steps in their order.

    Attributes:
        during: the tenant's state while it runs.
        failed: the state in which it leaves the tenant when it fails or is cancelled, and out of which a retry brings
            it back into `during`; None leaves the tenant where it is.
    """

    steps: tuple[Step, ...]
    during: TenantState | None = None
    failed: TenantState | None = None

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)


Workflows = Mapping[OperationKind, Workflow]


def new_id() -> str:
    """An id for an operation, or for many that belong together."""
    return uuid.uuid4().hex


async def open_operation(
    services: Services,
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
        if given and running.input != given:
            raise ConflictError(f"operation '{running.id}' ({kind}) is under way with another input")
        if running.wanted is Wanted.CANCEL:
            # whoever asks for it anew does not want what is about to end
            running.wanted = None
            _record(session, services.clock(), running, cause, f"{kind} requested")
        return running
    now = services.clock()
    newest = await _latest(session, instance_name)
    operation = Operation(
        id=new_id(),
        instance_name=instance_name,
        kind=kind,
        state=OperationState.PENDING,
        requested_by=cause.actor[:100],
        reason=cause.reason[: audit.REASON_LIMIT] if cause.reason else None,
        bulk_id=bulk_id,
        input=dict(given or {}),
        # the clocks of two machines differ
        created_at=max(now, newest.created_at + _MOMENT) if newest else now,
        due_at=max(now, not_before),
        steps=[],
    )
    session.add(operation)
    _record(session, now, operation, cause, f"{kind} requested")
    await session.flush()
    return operation


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


async def end_resting(services: Services, session: AsyncSession, found: list[Operation], cause: Cause) -> None:
    """Cancel those of the operations that are paused, or about to be; their tenant's row is locked."""
    now = services.clock()
    for operation in found:
        if operation.state is OperationState.PAUSED:
            await _close(session, operation.id, OperationState.CANCELLED, now, error=None)
            _record(session, now, operation, cause, "operation cancelled")
        elif operation.wanted is Wanted.PAUSE:
            _record(session, now, operation, cause, "operation cancel requested")
            await session.execute(
                update(Operation)
                .where(Operation.id == operation.id, Operation.state.in_(UNFINISHED))
                .values(wanted=Wanted.CANCEL)
            )


async def wake(services: Services, operation: Operation) -> None:
    """Tell a worker that the operation is due."""
    await services.wake(
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
        await wake(services, await get(services, operation_id))


async def get(services: Services, operation_id: str) -> Operation:
    """The operation with its steps.

    Raises:
        NotFoundError: there is none.
    """
    async with services.database.read() as session:
        return await _get(session, operation_id)


async def latest(services: Services, instance_name: str) -> Operation | None:
    """The tenant's newest operation."""
    async with services.database.read() as session:
        return await _latest(session, instance_name)


async def find(
    services: Services,
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
    async with services.database.read() as session:
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
    return await _want(services, operation_id, Wanted.PAUSE, cause)


async def cancel(services: Services, operation_id: str, cause: Cause) -> Operation:
    """End the operation after the step or chunk under way. One that was cancelled already is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is over otherwise; or it destroys the tenant, which has no way back.
    """
    return await _want(services, operation_id, Wanted.CANCEL, cause)


async def go_on(services: Services, operation_id: str, cause: Cause) -> Operation:
    """Take up a paused operation where it rested. One that runs is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is over.
    """
    async with services.database.write() as session:
        operation, _ = await _lock(session, operation_id)
        _refuse_finished(operation)
        now = services.clock()
        if operation.state is OperationState.PAUSED or operation.wanted is Wanted.PAUSE:
            operation.wanted = None
            _record(session, now, operation, cause, "operation resumed")
        if operation.state is OperationState.PAUSED:
            operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
            operation.due_at = now
    await wake(services, operation)
    return operation


async def retry(services: Services, workflows: Workflows, operation_id: str, cause: Cause) -> Operation:
    """Take up an operation that failed or was cancelled, from the step that failed. One under way is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it succeeded; or something else was done to the tenant since, or is under way.
    """
    async with services.database.write() as session:
        operation, tenant = await _lock(session, operation_id)
        if operation.state in UNFINISHED:
            return operation
        if operation.state is OperationState.SUCCEEDED:
            raise ConflictError(f"operation '{operation_id}' has succeeded")
        newest = await _latest(session, operation.instance_name)
        if newest is not None and newest.id != operation_id:
            raise ConflictError(f"operation '{newest.id}' ({newest.kind}) of the same tenant came later")
        now = services.clock()
        workflow = workflows[operation.kind]
        _record(session, now, operation, cause, "operation retried")
        if operation.steps and tenant is not None and tenant.state is workflow.failed and workflow.during is not None:
            await states.transition(session, now, tenant.instance_name, workflow.during, Cause.of(operation))
        for step in operation.steps:
            if step.state is not StepState.SUCCEEDED:
                step.state, step.attempts, step.finished_at = StepState.PENDING, 0, None
        operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
        operation.error = operation.finished_at = operation.wanted = None
        operation.due_at = now
    await wake(services, operation)
    return operation


async def advance(services: Services, workflows: Workflows, operation_id: str, celery_id: str | None = None) -> Next:
    """Run the operation's next step. Safe to call at any time, any number of times, from anywhere."""
    async with services.database.write() as session:
        token = await claims.claim(session, Operation, operation_id, services.clock())
        if token is None:
            return Next.NOTHING
        operation = await session.get_one(Operation, operation_id, populate_existing=True)
        stopping = operation.wanted is not None
        if not stopping and await _must_wait(session, operation):
            await claims.release(session, Operation, operation_id, token, services.clock() + _TURN_DELAY)
            return Next.LATER
        workflow = workflows[operation.kind]
        step_row = None if stopping else _start_step(services, operation, workflow, celery_id)
    if step_row is None:
        await _stop(services, workflow, operation, token)
        return Next.NOTHING
    if step_row.attempts > MAX_DEATHS:
        died = WorkerDiedError(f"in each of {MAX_DEATHS} attempts")
        return await _fail_step(services, workflow, operation, step_row, token, error=died)
    bound = {"instance_name": operation.instance_name, "operation_id": operation.id, "step": step_row.name}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            with services.keeper.keep(Operation, operation.id, token):
                await workflow.step(step_row.name).run(Run(services, operation, step_row.position, token))
        except ClaimLostError:
            log.warning("claim lost, another worker goes on")
            return Next.NOTHING
        except StopRequestedError:
            await _stop(services, workflow, operation, token)
            return Next.NOTHING
        except Exception as error:  # whatever went wrong is the step's outcome, recorded and tried again
            log.exception("step failed", attempt=step_row.attempts)
            return await _fail_step(services, workflow, operation, step_row, token, error=error)
        log.info("step done")
    return await _complete_step(services, operation, step_row, token)


async def _want(services: Services, operation_id: str, wanted: Wanted, cause: Cause) -> Operation:
    done = {Wanted.PAUSE: OperationState.PAUSED, Wanted.CANCEL: OperationState.CANCELLED}[wanted]
    async with services.database.write() as session:
        operation, tenant = await _lock(session, operation_id)
        if operation.state is done or operation.wanted is wanted:
            return operation
        _refuse_finished(operation)
        if wanted is Wanted.CANCEL:
            _refuse_cancelled_end(operation, tenant)
        else:
            await _refuse_delayed_end(session, operation)
        now = services.clock()
        operation.wanted = wanted
        operation.due_at = now
        if operation.state is OperationState.PAUSED:
            operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
        _record(session, now, operation, cause, f"operation {wanted} requested")
    await wake(services, operation)
    return operation


def _refuse_finished(operation: Operation) -> None:
    if operation.state not in UNFINISHED:
        raise ConflictError(f"operation '{operation.id}' has {operation.state}")


def _refuse_cancelled_end(operation: Operation, tenant: Tenant | None) -> None:
    begun = bool(operation.steps) or (tenant is not None and tenant.state is TenantState.DESTROYING)
    if operation.kind is OperationKind.DESTROY and begun:
        raise ConflictError("a tenant's end that has begun can be paused, but not cancelled")


async def _refuse_delayed_end(session: AsyncSession, operation: Operation) -> None:
    if operation.wanted is Wanted.CANCEL:
        raise ConflictError(f"operation '{operation.id}' is about to be cancelled")
    end = await unfinished(session, operation.instance_name, OperationKind.DESTROY)
    if end is not None and end.id != operation.id:
        raise ConflictError(f"operation '{end.id}' ({end.kind}) waits for this one")


async def _get(session: AsyncSession, operation_id: str) -> Operation:
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise NotFoundError(f"there is no operation '{operation_id}'")
    return operation


async def _lock(session: AsyncSession, operation_id: str) -> tuple[Operation, Tenant | None]:
    """The operation and its tenant, both locked; the tenant first, as everywhere, or two of us could wait in a ring."""
    operation = await _get(session, operation_id)
    tenant = await _lock_tenant(session, operation.instance_name)
    await session.refresh(operation, with_for_update=True)
    return operation, tenant


async def _lock_tenant(session: AsyncSession, instance_name: str) -> Tenant | None:
    return await session.get(Tenant, instance_name, with_for_update=True, populate_existing=True)


async def _latest(session: AsyncSession, instance_name: str) -> Operation | None:
    found: Operation | None = await session.scalar(
        select(Operation)
        .where(Operation.instance_name == instance_name)
        .order_by(Operation.created_at.desc(), Operation.id.desc())
        .limit(1)
    )
    return found


async def _must_wait(session: AsyncSession, operation: Operation) -> bool:
    """One workflow of a tenant at a time, in the order in which they were asked for."""
    others = await all_unfinished(session, operation.instance_name)
    return others[0].id != operation.id


def _start_step(services: Services, operation: Operation, workflow: Workflow, celery_id: str | None) -> OperationStep:
    now = services.clock()
    if operation.state is OperationState.PENDING:
        operation.state = OperationState.RUNNING
        operation.started_at = now
        steps = [step for step in workflow.steps if step.when(operation.input)]
        operation.steps = [
            OperationStep(position=position, name=step.name, state=StepState.PENDING, attempts=0, done=0, total=1)
            for position, step in enumerate(steps)
        ]
    operation.celery_id = celery_id
    # there is one: the last step's success and the operation's end are one transaction
    step = next(step for step in operation.steps if step.state is not StepState.SUCCEEDED)
    step.state = StepState.RUNNING
    step.attempts += 1
    step.started_at = step.started_at or now
    return step


async def _complete_step(services: Services, operation: Operation, step: OperationStep, token: str) -> Next:
    now = services.clock()
    last = step.position == len(operation.steps) - 1
    async with services.database.write() as session:
        if not await claims.release(session, Operation, operation.id, token, now):
            return Next.NOTHING
        await _set_step(session, step, state=StepState.SUCCEEDED, finished_at=now, error=None, done=OperationStep.total)
        if last:
            await _close(session, operation.id, OperationState.SUCCEEDED, now, error=None, input={})
            _record(session, now, operation, Cause.of(operation), f"{operation.kind} succeeded")
    return Next.NOTHING if last else Next.STEP


async def _fail_step(
    services: Services, workflow: Workflow, operation: Operation, step: OperationStep, token: str, *, error: Exception
) -> Next:
    now = services.clock()
    # what the state or the input forbids, no further attempt changes
    final = step.attempts >= MAX_ATTEMPTS or isinstance(error, ConflictError | InvalidInputError | NotFoundError)
    message = f"{type(error).__name__}: {error}"[:2000]
    async with services.database.write() as session:
        tenant = await _lock_tenant(session, operation.instance_name)
        wanted = await _lock_wanted(session, operation)
        # who wants it to stop does not wait for the next attempt
        retry_at = now if wanted else now + delay(step.attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        if not await claims.release(session, Operation, operation.id, token, None if final else retry_at):
            return Next.NOTHING
        if not final:
            await _set_step(session, step, state=StepState.PENDING, error=message)
            return Next.LATER
        await _set_step(session, step, state=StepState.FAILED, error=message, finished_at=now)
        await _close(session, operation.id, OperationState.FAILED, now, error=f"{step.name}: {message}")
        _record(session, now, operation, Cause(operation.requested_by, message), f"{operation.kind} failed")
        await _leave(session, now, workflow, operation, tenant)
    return Next.NOTHING


async def _stop(services: Services, workflow: Workflow, operation: Operation, token: str) -> None:
    """Do what is wanted of an operation that we hold, between two steps or two reports of one."""
    now = services.clock()
    async with services.database.write() as session:
        tenant = await _lock_tenant(session, operation.instance_name)
        wanted = await _lock_wanted(session, operation)
        # None: somebody thought better of it meanwhile, so it is due again
        if not await claims.release(session, Operation, operation.id, token, None if wanted else now):
            return
        await session.execute(
            update(OperationStep)
            .where(OperationStep.operation_id == operation.id, OperationStep.state == StepState.RUNNING)
            .values(state=StepState.PENDING, attempts=OperationStep.attempts - 1)
        )
        if wanted is Wanted.PAUSE:
            await session.execute(
                update(Operation).where(Operation.id == operation.id).values(state=OperationState.PAUSED, wanted=None)
            )
        elif wanted is Wanted.CANCEL:
            await _close(session, operation.id, OperationState.CANCELLED, now, error=None)
            await _leave(session, now, workflow, operation, tenant)


async def _lock_wanted(session: AsyncSession, operation: Operation) -> Wanted | None:
    wanted: Wanted | None = await session.scalar(
        select(Operation.wanted).where(Operation.id == operation.id).with_for_update()
    )
    return wanted


async def _leave(
    session: AsyncSession, now: float, workflow: Workflow, operation: Operation, tenant: Tenant | None
) -> None:
    """Bring the tenant into the state in which an unsuccessful run of this workflow leaves it."""
    if workflow.failed is None or tenant is None or tenant.state not in {workflow.during, TenantState.PENDING}:
        return
    await states.transition(session, now, operation.instance_name, workflow.failed, Cause.of(operation))


async def _set_step(session: AsyncSession, step: OperationStep, **values: Any) -> None:
    await session.execute(
        update(OperationStep)
        .where(OperationStep.operation_id == step.operation_id, OperationStep.position == step.position)
        .values(**values)
    )


async def _close(session: AsyncSession, operation_id: str, state: OperationState, now: float, **values: Any) -> None:
    closed = await session.execute(
        update(Operation)
        .where(Operation.id == operation_id, Operation.state.in_(UNFINISHED))
        .values(state=state, finished_at=now, due_at=None, wanted=None, **values)
    )
    if not rows_changed(closed):
        raise ConflictError(f"operation '{operation_id}' is over already")


def _record(session: AsyncSession, now: float, operation: Operation, cause: Cause, action: str) -> None:
    audit.record(session, now, cause, action, instance_name=operation.instance_name, operation_id=operation.id)
