"""Operations: the record of each workflow's run, and the engine that takes it from step to step.

The row comes first, the wake-up second; a sweep finds rows whose wake-up was lost or whose worker died. Each call of
`advance` claims the operation, runs one step and says what is next, so a workflow survives the end of any process
between or inside its steps: a step is simply run again.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants import claims
from tenants.backoff import delay
from tenants.errors import NotFoundError
from tenants.models import Operation, OperationKind, OperationState, OperationStep, StepState
from tenants.services import Services

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 6
"""Tries of one step before its operation fails; with the delays below about a minute and a half."""
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 40.0
_TURN_DELAY = 0.5
"""Seconds until an operation that waits for another one of its tenant looks again."""


class Next(StrEnum):
    """What follows a call of `advance`."""

    STEP = "step"
    """The next step may run at once."""
    LATER = "later"
    """The sweep takes it up when it is due."""
    NOTHING = "nothing"
    """It is finished, or in somebody else's hands."""


class Progress:
    """Given to a step to say how far it is. The claim is kept meanwhile, also for a step that says nothing."""

    def __init__(self, services: Services, operation: Operation, position: int, token: str) -> None:
        self._services = services
        self._operation_id = operation.id
        self._position = position
        self._token = token

    async def report(self, done: int, total: int) -> None:
        """Record `done` of `total`.

        Raises:
            ClaimLostError: another worker has taken over; stop at once.
        """
        async with self._services.database.write() as session:
            held = await claims.renew(session, Operation, self._operation_id, self._token, self._services.clock())
            if not held:
                raise ClaimLostError(self._operation_id)
            await session.execute(
                update(OperationStep)
                .where(OperationStep.operation_id == self._operation_id, OperationStep.position == self._position)
                .values(done=done, total=total)
            )


class ClaimLostError(Exception):
    """The worker was too slow or paused, and its claim went to another."""


StepFunction = Callable[[Services, str, Progress], Awaitable[None]]
"""A step: (services, instance name, progress). It may run twice and must leave the same result."""


@dataclass(frozen=True, slots=True)
class Step:
    """A named step of a workflow."""

    name: str
    run: StepFunction


@dataclass(frozen=True, slots=True)
class Workflow:
    """Steps in their order, and what to do with the tenant when one of them fails for good."""

    steps: tuple[Step, ...]
    on_failure: Callable[[Services, str], Awaitable[None]] | None = None


Workflows = Mapping[OperationKind, Workflow]


async def open_operation(
    services: Services, session: AsyncSession, instance_name: str, kind: OperationKind, *, requested_by: str
) -> Operation:
    """The unfinished operation of that kind, or a new one. Call `wake` after the commit."""
    running = await unfinished(session, instance_name, kind)
    if running is not None:
        return running
    now = services.clock()
    operation = Operation(
        id=uuid.uuid4().hex,
        instance_name=instance_name,
        kind=kind,
        state=OperationState.PENDING,
        requested_by=requested_by,
        created_at=now,
        due_at=now,
        steps=[],
    )
    session.add(operation)
    await session.flush()
    return operation


async def unfinished(session: AsyncSession, instance_name: str, kind: OperationKind) -> Operation | None:
    """The tenant's operation of that kind which is still to end; there is one at most."""
    found: Operation | None = await session.scalar(
        select(Operation).where(
            Operation.instance_name == instance_name,
            Operation.kind == kind,
            Operation.state.in_([OperationState.PENDING, OperationState.RUNNING]),
        )
    )
    return found


async def wake(services: Services, operation: Operation) -> None:
    """Tell a worker that the operation is due."""
    await services.wake(
        task_names.ADVANCE,
        operation_id=operation.id,
        instance_name=operation.instance_name,
        kind=operation.kind.value,
    )


async def get(services: Services, operation_id: str) -> Operation:
    """The operation with its steps.

    Raises:
        NotFoundError: there is none.
    """
    async with services.database.read() as session:
        operation = await session.get(Operation, operation_id)
    if operation is None:
        raise NotFoundError(f"there is no operation '{operation_id}'")
    return operation


async def latest(services: Services, instance_name: str) -> Operation | None:
    """The tenant's newest operation."""
    async with services.database.read() as session:
        found: Operation | None = await session.scalar(
            select(Operation)
            .where(Operation.instance_name == instance_name)
            .order_by(Operation.created_at.desc())
            .limit(1)
        )
    return found


async def advance(services: Services, workflows: Workflows, operation_id: str, celery_id: str | None = None) -> Next:
    """Run the operation's next step. Safe to call at any time, any number of times, from anywhere."""
    async with services.database.write() as session:
        token = await claims.claim(session, Operation, operation_id, services.clock())
        if token is None:
            return Next.NOTHING
        operation = await session.get_one(Operation, operation_id, populate_existing=True)
        if await _must_wait(session, operation):
            await claims.release(session, Operation, operation_id, token, services.clock() + _TURN_DELAY)
            return Next.LATER
        workflow = workflows[operation.kind]
        step_row = _start_step(services, operation, workflow, celery_id)
    step = workflow.steps[step_row.position]
    bound = {"instance_name": operation.instance_name, "operation_id": operation.id, "step": step.name}
    with structlog.contextvars.bound_contextvars(**bound):
        try:
            with services.keeper.keep(Operation, operation.id, token):
                progress = Progress(services, operation, step_row.position, token)
                await step.run(services, operation.instance_name, progress)
        except ClaimLostError:
            log.warning("claim lost, another worker goes on")
            return Next.NOTHING
        except Exception as error:  # whatever went wrong is the step's outcome, recorded and tried again
            log.exception("step failed", attempt=step_row.attempts)
            return await _fail_step(services, workflow, operation, step_row, token, error=error)
        log.info("step done")
    return await _complete_step(services, operation, step_row, token)


async def _must_wait(session: AsyncSession, operation: Operation) -> bool:
    """One workflow of a tenant at a time, in the order in which they were asked for."""
    earlier = await session.scalar(
        select(Operation.id).where(
            Operation.instance_name == operation.instance_name,
            Operation.state.in_([OperationState.PENDING, OperationState.RUNNING]),
            Operation.created_at < operation.created_at,
        )
    )
    return earlier is not None


def _start_step(services: Services, operation: Operation, workflow: Workflow, celery_id: str | None) -> OperationStep:
    now = services.clock()
    if operation.state is OperationState.PENDING:
        operation.state = OperationState.RUNNING
        operation.started_at = now
        operation.steps = [
            OperationStep(position=position, name=step.name, state=StepState.PENDING, attempts=0, done=0, total=1)
            for position, step in enumerate(workflow.steps)
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
        await session.execute(
            update(OperationStep)
            .where(OperationStep.operation_id == operation.id, OperationStep.position == step.position)
            .values(state=StepState.SUCCEEDED, finished_at=now, error=None, done=OperationStep.total)
        )
        if last:
            await _close(session, operation.id, OperationState.SUCCEEDED, now, error=None)
    return Next.NOTHING if last else Next.STEP


async def _fail_step(
    services: Services, workflow: Workflow, operation: Operation, step: OperationStep, token: str, *, error: Exception
) -> Next:
    now = services.clock()
    final = step.attempts >= MAX_ATTEMPTS
    message = f"{type(error).__name__}: {error}"[:2000]
    async with services.database.write() as session:
        retry_at = now + delay(step.attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
        if not await claims.release(session, Operation, operation.id, token, None if final else retry_at):
            return Next.NOTHING
        await session.execute(
            update(OperationStep)
            .where(OperationStep.operation_id == operation.id, OperationStep.position == step.position)
            .values(
                state=StepState.FAILED if final else StepState.PENDING,
                error=message,
                finished_at=now if final else None,
            )
        )
        if final:
            await _close(session, operation.id, OperationState.FAILED, now, error=f"{step.name}: {message}")
    if final and workflow.on_failure is not None:
        await workflow.on_failure(services, operation.instance_name)
    return Next.NOTHING if final else Next.LATER


async def _close(
    session: AsyncSession, operation_id: str, state: OperationState, now: float, error: str | None
) -> None:
    await session.execute(
        update(Operation)
        .where(Operation.id == operation_id)
        .values(state=state, finished_at=now, error=error, due_at=None)
    )
