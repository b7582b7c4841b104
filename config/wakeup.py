"""Sends Celery tasks by name from asyncio; a lost one is found by the sweeps, so failing is quiet and quick."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog
from celery import Celery

from config.broker import failures_of

log = structlog.get_logger(__name__)

_TIMEOUT = 2.0
_RETRY = {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.2}
_THREADS = 4
"""A broker that hangs holds these at most, each until its socket's time-out."""
_MAX_WAITING = 500
"""Wake-ups on their way at once. Beyond it they are left to the sweep."""


def celery_wake(app: Celery) -> Callable[..., Awaitable[None]]:
    """A function that sends the task of a name with keyword arguments, and never raises."""
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="wake-up")
    failures = failures_of(app.connection_for_write())
    waiting: set[Future[object]] = set()

    def submit(task: str, arguments: dict[str, Any]) -> Future[object]:
        if len(waiting) >= _MAX_WAITING:
            raise TimeoutError
        sent: Future[object] = threads.submit(
            app.send_task,
            task,
            kwargs=arguments,
            retry_policy=_RETRY,
            confirm_timeout=_TIMEOUT,
            # else each one subscribes to its result, which nobody reads
            ignore_result=True,
        )
        waiting.add(sent)
        sent.add_done_callback(waiting.discard)
        return sent

    async def wake(task: str, **arguments: Any) -> None:
        # the tenant first: Flower's list shows where the arguments begin
        ordered = dict(sorted(arguments.items(), key=lambda argument: argument[0] != "instance_name"))
        try:
            async with asyncio.timeout(_TIMEOUT):
                await asyncio.wrap_future(submit(task, ordered))
        except failures as error:
            log.warning("wake-up lost, the sweep will find it", task=task, error=type(error).__name__, **arguments)

    return wake
