"""Delivery of callbacks to LHC as tasks."""

from collections.abc import Sequence

from celery import shared_task

from config import task_names
from tasks import runtime
from tenants.access import idempotency
from tenants.conversations import bounces, chats
from tenants.delivery import worker
from tenants.process import heartbeats
from tenants.process.services import Services


@shared_task(name=task_names.DELIVER)
def deliver(instance_names: Sequence[str] = (), instance_name: str | None = None) -> None:
    """Start a runner for each tenant's due callbacks. It returns at once: no LHC ever holds a worker's thread.

    `instance_name`: sent by the version before this one, while both run.
    """
    runtime.start_delivery([*instance_names, *([instance_name] if instance_name else [])])


@shared_task(name=task_names.SWEEP_CALLBACKS)
def sweep_callbacks() -> None:
    """Wake deliveries that are due: retries and lost wake-ups."""

    async def sweep(services: Services) -> None:
        await worker.sweep(services)
        # beat, broker and worker have all done their part when this is written
        await heartbeats.beat(services, heartbeats.WORKER)

    runtime.run(sweep)


@shared_task(name=task_names.PURGE_CALLBACKS)
def purge_callbacks() -> None:
    """Forget messages that were delivered, given up or given back long ago, and answers to old requests."""

    async def purge(services: Services) -> None:
        await worker.purge(services)
        await bounces.purge(services)
        await chats.purge(services)
        await idempotency.purge(services)

    runtime.run(purge)
