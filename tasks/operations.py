"""The workflow engine as tasks: each run of `engine.advance` is a turn of one operation."""

import time

from celery import Task, shared_task

from config import task_names
from tasks.runtime import run
from tenants.lifecycle import engine, operations
from tenants.process import heartbeats
from tenants.process.services import Services
from tenants.workflows.workflows import WORKFLOWS

_TURN_SECONDS = 1.0
"""How long an operation may go from step to step; then others have their turn."""


@shared_task(bind=True, name=task_names.ADVANCE)
def advance(self: Task, operation_id: str, instance_name: str, kind: str) -> None:
    """Run the operation's next steps, for about a second; the others are left to a task of their own.

    The tenant's name and the workflow's kind are arguments so that Flower shows them.
    """
    celery_id = self.request.id  # here: the request is this thread's own

    async def turn(services: Services) -> None:
        until = time.monotonic() + _TURN_SECONDS
        outcome = engine.Next.STEP
        while outcome is engine.Next.STEP and time.monotonic() < until:
            outcome = await engine.advance(services, WORKFLOWS, operation_id, celery_id)
        if outcome is engine.Next.STEP:
            await services.wake(task_names.ADVANCE, operation_id=operation_id, instance_name=instance_name, kind=kind)

    run(turn)


@shared_task(name=task_names.SWEEP_OPERATIONS)
def sweep_operations() -> None:
    """Wake operations that are due: retries, lost wake-ups, and those of workers that died."""

    async def sweep(services: Services) -> None:
        await operations.wake_due(services)
        # beat, broker and worker have all done their part when this is written
        await heartbeats.beat(services, heartbeats.LIFECYCLE)

    run(sweep)
