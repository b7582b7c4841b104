"""Operations that somebody watches: however many do in this process, the database is asked once for all of them."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import structlog

from orchestrator.api.http.views import OperationView
from tenants.lifecycle import operations
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import UNFINISHED

log = structlog.get_logger(__name__)

_MOST, MOST_OF_ONE = 200, 50
"""Watchers in one process: of all callers, and of one."""
_POLL_SECONDS = 0.5
_LONGEST_SECONDS = 900.0


class Watched:
    """An operation, as it was within the last half second."""

    def __init__(self, operation_id: str) -> None:
        self.watchers = 0
        self._operation_id = operation_id
        self._asking = asyncio.Lock()
        self._view: OperationView | None = None
        self._asked_at = 0.0

    async def changes(self, services: Services, since: str | None) -> AsyncIterator[OperationView]:
        """The operation as it is, unless `since` is the mark of that; then after each change, until it has ended."""
        seen = since
        end = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < end:
            view = await self._look(services)
            if mark(view) != seen:
                seen = mark(view)
                yield view
            if view.state not in UNFINISHED:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, services: Services) -> OperationView:
        async with self._asking:
            while self._view is None or time.monotonic() - self._asked_at >= _POLL_SECONDS:
                try:
                    self._view = OperationView.of(await operations.get(services.database, self._operation_id))
                except DATABASE_AWAY as error:
                    # the stream has begun, so nothing but its end could tell; the database may be back by then
                    log.warning("the database cannot be asked", error=type(error).__name__)
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    self._asked_at = time.monotonic()
            return self._view


class Watching:
    """All operations that are watched in this process."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._of_caller: Counter[str] = Counter()

    @contextmanager
    def admit(self, operation_id: str, caller: str) -> Iterator[Watched | None]:
        """One more watcher of the operation; None when there are too many, of that caller or altogether."""
        if self._of_caller[caller] >= MOST_OF_ONE or self._of_caller.total() >= _MOST:
            yield None
            return
        self._of_caller[caller] += 1
        watched = self._watched.setdefault(operation_id, Watched(operation_id))
        watched.watchers += 1
        try:
            yield watched
        finally:
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]
            watched.watchers -= 1
            if not watched.watchers:
                del self._watched[operation_id]


def mark(view: OperationView) -> str:
    """Different whenever anything that is shown has changed."""
    return hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:16]
