"""Chats as tasks: lines that wait for operators."""

from celery import shared_task

from config import task_names
from tasks import runtime
from tenants import chats


@shared_task(name=task_names.FORWARD)
def forward(instance_name: str) -> None:
    """Forward the tenant's chats without an owner, for an operator who has come."""
    runtime.run(lambda services: chats.forward_pending(services, instance_name))


@shared_task(name=task_names.SWEEP_CHATS)
def sweep() -> None:
    """Forward lines that wait for an operator, or for the broker."""
    runtime.run(chats.sweep)
