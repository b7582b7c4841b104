"""How much of the processor a system's processes took: where others use the machine too, it says more than time."""

import os
from pathlib import Path

from bench.testbed.system import System

_PARENT, _USER, _SYSTEM = 1, 11, 12
"""Fields of `/proc/PID/stat` after the name, see proc(5)."""


def taken(system: System) -> dict[str, float]:
    """Seconds of processor time that each of the system's processes has taken so far, with those that it started."""
    stats = dict(_stats())
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)

    def total(pid: int) -> float:
        return stats[pid][1] + sum(map(total, children.get(pid, ()))) if pid in stats else 0.0

    return {name: total(pid) for name, pid in system.pids().items()}


def since(before: dict[str, float], system: System) -> dict[str, float]:
    """What each took since then."""
    return {name: seconds - before.get(name, 0.0) for name, seconds in taken(system).items()}


def _stats() -> list[tuple[int, tuple[int, float]]]:
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has just ended
        found.append((int(folder.name), (int(fields[_PARENT]), (int(fields[_USER]) + int(fields[_SYSTEM])) / ticks)))
    return found
