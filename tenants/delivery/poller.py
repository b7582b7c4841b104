"""A worker that was woken stays awake for a while and looks for itself: one look costs less than one task.

So a busy system sends a few wake-ups a second, however many callbacks there are, and the task monitor stays readable.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from tenants.delivery import worker
from tenants.process.delivery_waker import PAUSE as WAKE_PAUSE
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY

log = structlog.get_logger(__name__)

AWAKE_SECONDS = 4 * WAKE_PAUSE
"""Seconds that a worker stays awake after the last wake-up. While wake-ups keep coming, it never sleeps."""
_PAUSE = 0.02
"""Seconds between two looks; what is due waits half of that."""
_SHARE = 5
"""The pause after a look is at least so many times as long as the look, so that time is left for delivering."""


class Lookout:
    """Looks for tenants with due callbacks, and starts what delivers them.

    Args:
        start: gets the tenants' names; those that are being seen to already may be among them.
        awake: see `AWAKE_SECONDS`.
    """

    def __init__(self, services: Services, start: Callable[..., None], awake: float = AWAKE_SECONDS) -> None:
        self._services = services
        self._start = start
        self._awake = awake
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None

    def wake(self, *instance_names: str) -> None:
        """Something is due for these tenants, and more may follow."""
        self._start(*instance_names)
        self._until = time.monotonic() + self._awake
        if self._task is None:
            self._task = asyncio.create_task(self._look_out(), name="lookout")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look_out(self) -> None:
        try:
            while time.monotonic() < self._until:
                await asyncio.sleep(_PAUSE)
                began = time.monotonic()
                self._start(*await worker.find_due(self._services))
                await asyncio.sleep(max(0.0, _SHARE * (time.monotonic() - began) - _PAUSE))
        except DATABASE_AWAY as error:
            # the next wake-up, or the sweep, begins anew
            log.warning("no look for due callbacks", error=type(error).__name__)
        finally:
            self._task = None
