"""Processes that stand still: their sockets take connections, and nothing comes back."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.testbed.waiting import until

_STOPPED = {"T", "t", "Z", "X"}


async def freeze(pid: int) -> None:
    """Stop the process, and wait until each of its threads stands still.

    The signal alone is not enough: on a busy machine some threads go on until the one that takes the signal has run.
    """
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _stands_still(pid), f"process {pid} stands still")


@asynccontextmanager
async def frozen(*pids: int) -> AsyncIterator[None]:
    """The processes stand still until the end of the block."""
    try:
        for pid in pids:
            await freeze(pid)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    # the state comes after the command's name, which is in brackets and may hold anything (proc(5))
    return all(
        (thread / "stat").read_text().rpartition(")")[2].split()[0] in _STOPPED
        for thread in Path(f"/proc/{pid}/task").iterdir()
    )
