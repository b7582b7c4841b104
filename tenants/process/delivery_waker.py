"""Wakes the delivery of callbacks: one task for all tenants that something came for within a moment.

Who is woken stays awake for longer than that moment (`tenants.delivery.poller`), so what comes within it waits for no
task.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from config import task_names

PAUSE = 0.5
"""Seconds between two tasks of a process: a task costs as much as some callbacks."""


class Wake(Protocol):
    """Wakes a worker: sends the task of that name. A lost wake-up only costs the sweep's delay, so it never raises."""

    def __call__(self, task: str, **arguments: Any) -> Awaitable[None]: ...


class DeliveryWaker:
    """The first wake-up goes at once; those within `pause` after it go together when it is over."""

    def __init__(self, wake: Wake, pause: float = PAUSE) -> None:
        self._wake = wake
        self._pause = pause
        self._waiting: dict[str, None] = {}
        self._resting: asyncio.Task[None] | None = None

    async def wake(self, *instance_names: str) -> None:
        """Wake the delivery of these tenants' callbacks, now or soon."""
        self._waiting |= dict.fromkeys(instance_names)
        if self._resting is None and self._waiting:
            self._resting = asyncio.create_task(self._rest(), name="wake-ups")
            await self._send()

    async def close(self) -> None:
        """Send what waits."""
        if self._resting is not None:
            await asyncio.wait([self._resting])

    async def _rest(self) -> None:
        try:
            await asyncio.sleep(self._pause)
            while self._waiting:
                await self._send()
                await asyncio.sleep(self._pause)
        finally:
            self._resting = None

    async def _send(self) -> None:
        names, self._waiting = list(self._waiting), {}
        await self._wake(task_names.DELIVER, instance_names=names)
