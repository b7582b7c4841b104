"""The resident memory of the system's processes, sampled from /proc while they run."""

import asyncio
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from bench.testbed.system import System

_INTERVAL = 1.0
_PAGE_KIB = 4


class Memory:
    """The most that each process had, its children included, in KiB."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.most: dict[str, int] = {}

    async def sample(self) -> None:
        """Sample once a second; until cancelled."""
        while True:
            with suppress(OSError, HTTPException):  # supervisord is busy: the next sample will do
                for name, kib in (await asyncio.to_thread(self._measure)).items():
                    self.most[name] = max(kib, self.most.get(name, 0))
            await asyncio.sleep(_INTERVAL)

    def _measure(self) -> dict[str, int]:
        parents, sizes = _processes()
        totals = {}
        for name, pid in self._system.pids().items():
            if pid:
                totals[name] = sum(size for other, size in sizes.items() if _descends(other, pid, parents))
        return totals


def _processes() -> tuple[dict[int, int], dict[int, int]]:
    """Each process's parent, and its resident memory in KiB."""
    parents, sizes = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # proc(5): the name in parentheses may hold anything; after it come state, parent, …; 22nd is rss in pages
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(folder.name)] = int(fields[1])
        sizes[int(folder.name)] = int(fields[21]) * _PAGE_KIB
    return parents, sizes


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid and pid != ancestor:
        pid = parents.get(pid, 0)
    return pid == ancestor
