"""The engine: takes an operation from step to step of its workflow.

Each call of `advance` claims the operation, runs one step, and says whether the next step may follow. So a workflow
survives the end of any process, between its steps or inside one: the step is simply run again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.backoff import delay
from tenants.core.clock import Clock
from tenants.core.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.ejabberd.client import Ejabberd
from tenants.lifecycle import hosts, operations, states
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.models import (
    UNFINISHED,
    Operation,
    OperationKind,
    OperationState,
    OperationStep,
    RequestedStop,
    StepState,
    Tenant,
    TenantState,
)

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 6
"""Attempts at one step before its operation fails; with the delays below they take about a minute and a half."""


MAX_DEATHS = 2 * MAX_ATTEMPTS
"""Attempts at a step that ended with the worker's death each time, before the operation fails."""


_FIRST_DELAY, _LONGEST_DELAY = 2.0, 40.0


_TURN_DELAY = 0.5
"""Seconds until an operation that waits for another one of its tenant is tried again."""


class Next(StrEnum):
    """What follows a call of `advance`."""

    STEP = "step"
    """The next step may run at once."""
    LATER = "later"
    """The sweep takes it up when it is due."""
    NOTHING = "nothing"
    """It is finished or paused, or another worker has claimed it."""


class ClaimLostError(Exception):
    """The worker was too slow or stood still, and another worker has claimed the operation."""


class StopRequestedError(Exception):
    """Somebody wants the operation to pause or to be cancelled."""


class WorkerDiedError(Exception):
    """The worker died in each attempt at the step."""


class Run:
    """A step that runs, as its function sees it. The claim is renewed meanwhile, also when the step reports nothing."""

    def __init__(self, services: Services, operation: Operation, position: int, token: str) -> None:
        self.services = services
        self.instance_name: str = operation.instance_name
        self.input: Mapping[str, Any] = operation.input
        self.cause = Cause.of(operation)
        self._operation_id = operation.id
        self._position = position
        self._token = token

    async def ejabberd(self) -> Ejabberd:
        """The admin client of the tenant's host."""
        return await hosts.ejabberd_of(self.services, self.instance_name)

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
        """Add to the operation's result, which must stay small.

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
        """A transaction that changes nothing when the claim was lost: another worker may work on the tenant by now.

        Raises:
            ClaimLostError: another worker has taken over; stop at once.
        """
        async with self.services.database.write() as session:
            await operations.lock_tenant(session, self.instance_name)
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
        """The step of that name.

        Raises:
            ConflictError: there is none: an operation notes its steps when it begins, maybe under another version.
        """
        found = next((step for step in self.steps if step.name == name), None)
        if found is None:
            raise ConflictError(f"this version has no step '{name}'; ask for the same change again")
        return found


Workflows = Mapping[OperationKind, Workflow]


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
        step_row = None if stopping else _start_step(services.clock, operation, workflow, celery_id)
    if step_row is None:
        await _stop(services, workflow, operation, token)
        return Next.NOTHING
    if step_row.attempts > MAX_DEATHS:
        died = WorkerDiedError(f"in each of {MAX_DEATHS} attempts")
        return await _fail_step(services, workflow, operation, step_row, token, error=died)
    bound = {"instance_name": operation.instance_name, "operation_id": operation.id, "step": step_row.name}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            with services.claim_renewer.keep(Operation, operation.id, token):
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


async def retry(services: Services, workflows: Workflows, operation_id: str, cause: Cause) -> Operation:
    """Take up an operation that failed or was cancelled, from the step that failed. One under way is a success.

    Raises:
        NotFoundError: there is none.
        ConflictError: it succeeded; or something else was done to the tenant since, or is under way.
    """
    async with services.database.write() as session:
        operation, tenant = await operations.lock(session, operation_id)
        if operation.state in UNFINISHED:
            return operation
        if operation.state is OperationState.SUCCEEDED:
            raise ConflictError(f"operation '{operation_id}' has succeeded")
        newest = await operations.latest_in(session, operation.instance_name)
        if newest is not None and newest.id != operation_id:
            raise ConflictError(f"operation '{newest.id}' ({newest.kind}) of the same tenant came later")
        now = services.clock()
        workflow = workflows[operation.kind]
        operations.record(session, now, operation, cause, "operation retried")
        if operation.steps and tenant is not None and tenant.state is workflow.failed and workflow.during is not None:
            await states.transition(session, now, tenant.instance_name, workflow.during, Cause.of(operation))
        for step in operation.steps:
            if step.state is not StepState.SUCCEEDED:
                step.state, step.attempts, step.finished_at = StepState.PENDING, 0, None
        operation.state = OperationState.RUNNING if operation.steps else OperationState.PENDING
        operation.error = operation.finished_at = operation.wanted = None
        operation.due_at = now
    await operations.wake(services.wake, operation)
    return operation


async def _must_wait(session: AsyncSession, operation: Operation) -> bool:
    """Whether an earlier operation of the tenant is unfinished: they run one by one, in the order of the requests."""
    others = await operations.all_unfinished(session, operation.instance_name)
    return others[0].id != operation.id


def _start_step(clock: Clock, operation: Operation, workflow: Workflow, celery_id: str | None) -> OperationStep:
    now = clock()
    if operation.state is OperationState.PENDING:
        operation.state = OperationState.RUNNING
        operation.started_at = now
        steps = [step for step in workflow.steps if step.when(operation.input)]
        operation.steps = [
            OperationStep(position=position, name=step.name, state=StepState.PENDING, attempts=0, done=0, total=1)
            for position, step in enumerate(steps)
        ]
    operation.celery_id = celery_id
    # there always is one: the last step succeeds and the operation ends in the same transaction
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
            await operations.close(session, operation.id, OperationState.SUCCEEDED, now, error=None, input={})
            operations.record(session, now, operation, Cause.of(operation), f"{operation.kind} succeeded")
    return Next.NOTHING if last else Next.STEP


async def _fail_step(
    services: Services, workflow: Workflow, operation: Operation, step: OperationStep, token: str, *, error: Exception
) -> Next:
    now = services.clock()
    # when the state or the input forbids it, another attempt would fail as well
    final = step.attempts >= MAX_ATTEMPTS or isinstance(error, ConflictError | InvalidInputError | NotFoundError)
    message = f"{type(error).__name__}: {error}"[:2000]
    async with services.database.write() as session:
        tenant = await operations.lock_tenant(session, operation.instance_name)
        wanted = await _lock_wanted(session, operation)
        # a request to stop need not wait for the time of the next attempt
        retry_at = now if wanted else now + delay(step.attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        if not await claims.release(session, Operation, operation.id, token, None if final else retry_at):
            return Next.NOTHING
        if not final:
            await _set_step(session, step, state=StepState.PENDING, error=message)
            return Next.LATER
        await _set_step(session, step, state=StepState.FAILED, error=message, finished_at=now)
        await operations.close(session, operation.id, OperationState.FAILED, now, error=f"{step.name}: {message}")
        operations.record(session, now, operation, Cause(operation.requested_by, message), f"{operation.kind} failed")
        await _leave(session, now, workflow, operation, tenant)
    return Next.NOTHING


async def _stop(services: Services, workflow: Workflow, operation: Operation, token: str) -> None:
    """Pause or cancel an operation that we have claimed, as was requested."""
    now = services.clock()
    async with services.database.write() as session:
        tenant = await operations.lock_tenant(session, operation.instance_name)
        wanted = await _lock_wanted(session, operation)
        # None: the request was taken back meanwhile, so the operation is due again
        if not await claims.release(session, Operation, operation.id, token, None if wanted else now):
            return
        await session.execute(
            update(OperationStep)
            .where(OperationStep.operation_id == operation.id, OperationStep.state == StepState.RUNNING)
            .values(state=StepState.PENDING, attempts=OperationStep.attempts - 1)
        )
        if wanted is RequestedStop.PAUSE:
            await session.execute(
                update(Operation).where(Operation.id == operation.id).values(state=OperationState.PAUSED, wanted=None)
            )
        elif wanted is RequestedStop.CANCEL:
            await operations.close(session, operation.id, OperationState.CANCELLED, now, error=None)
            await _leave(session, now, workflow, operation, tenant)


async def _lock_wanted(session: AsyncSession, operation: Operation) -> RequestedStop | None:
    wanted: RequestedStop | None = await session.scalar(
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
