"""Delivery of callbacks to LHC as tasks."""

from celery import shared_task

from config import task_names
from tasks.runtime import run
from tenants import callbacks
from tenants.services import Services


@shared_task(name=task_names.DELIVER_MESSAGES)
def deliver_messages(conversation_id: int, instance_name: str) -> None:  # noqa: ARG001 - seen in Flower
    """Deliver the conversation's messages, oldest first."""
    run(lambda services: callbacks.deliver_messages(services, conversation_id))


@shared_task(name=task_names.DELIVER_PRESENCE)
def deliver_presence(username: str, instance_name: str) -> None:  # noqa: ARG001 - seen in Flower
    """Tell LHC the operator's latest presence."""
    run(lambda services: callbacks.deliver_presence(services, username))


@shared_task(name=task_names.SWEEP_CALLBACKS)
def sweep_callbacks() -> None:
    """Wake deliveries that are due: retries and lost wake-ups."""

    async def sweep(services: Services) -> None:
        await callbacks.sweep(services)
        await callbacks.purge(services)

    run(sweep)
