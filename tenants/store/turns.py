"""Turns of those who write to an SQLite database, among all processes that have it open.

SQLite has one lock for all writers and no queue: a writer that finds it taken looks again after pauses of up to 100 ms,
and is overtaken meanwhile. So our writers take a lock on a file of their own first, and look often. It is for order
alone: whoever does not get it within a time goes on, and SQLite decides.
"""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

_LOOK_AGAIN = 0.0005
"""Seconds between two looks."""
_PAUSE = 0.001
"""Seconds that a process lets others go first after it had its turn: two looks."""


class Turns:
    """`async with turns:` is one writer at a time.

    Args:
        file: whose lock is taken; made if it is not there.
        longest_wait: seconds.
    """

    def __init__(self, file: Path, longest_wait: float) -> None:
        self._file = file
        self._longest_wait = longest_wait
        self._own = asyncio.Lock()
        self._descriptor: int | None = None
        self._had_turn_at = 0.0

    async def __aenter__(self) -> None:
        await self._own.acquire()
        try:
            await self._take()
        except BaseException:
            self._own.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._had_turn_at = time.monotonic()
        self._own.release()

    def close(self) -> None:
        """Give the file back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    async def _take(self) -> None:
        started = time.monotonic()
        if started < self._had_turn_at + _PAUSE:
            await asyncio.sleep(_PAUSE)
        while not self._is_taken() and time.monotonic() < started + self._longest_wait:  # noqa: ASYNC110 - of another process nothing tells
            await asyncio.sleep(_LOOK_AGAIN)

    def _is_taken(self) -> bool:
        """Whether it is our turn now; also when there can be no such file: SQLite will say what is wrong there."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
