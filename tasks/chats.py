"""Chats as tasks: lines that wait for operators."""

import threading

from celery import shared_task

from config import task_names
from tasks import runtime
from tenants.conversations import line_sender


@shared_task(name=task_names.FORWARD)
def forward(instance_name: str) -> None:
    """Forward the tenant's chats without an owner, for an operator who has come."""
    runtime.run(lambda services: line_sender.forward_pending(services, instance_name))


_sweeping = threading.Lock()


@shared_task(name=task_names.SWEEP_CHATS)
def sweep() -> None:
    """Forward lines that wait for an operator, or for the broker; unless this process is at it already."""
    if not _sweeping.acquire(blocking=False):
        return
    try:
        runtime.run(line_sender.sweep)
    finally:
        _sweeping.release()
