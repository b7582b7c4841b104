"""Sends Celery tasks by name from asyncio; a lost one is found by the sweeps, so failing is quiet and quick."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from celery import Celery

log = structlog.get_logger(__name__)

_TIMEOUT = 2.0
_RETRY = {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.2}


def celery_wake(app: Celery) -> Callable[..., Awaitable[None]]:
    """A function that sends the task of a name with keyword arguments, and never raises."""

    async def wake(task: str, **arguments: str | int) -> None:
        # the tenant first: Flower's list shows where the arguments begin
        ordered = dict(sorted(arguments.items(), key=lambda argument: argument[0] != "instance_name"))
        try:
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.to_thread(app.send_task, task, kwargs=ordered, retry_policy=_RETRY)
        except (TimeoutError, OSError, app.connection_for_write().connection_errors) as error:
            log.warning("wake-up lost, the sweep will find it", task=task, error=type(error).__name__, **arguments)

    return wake
