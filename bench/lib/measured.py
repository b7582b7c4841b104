"""What a benchmark measured: percentiles, and the JSON file that they are kept in."""

import json
import math
import platform
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

RESULTS = Path(__file__).parents[1] / "results"
FULL_SPEED = {"ORCHESTRATOR_CALLS_PER_SECOND": "100000"}
"""Settings of a system whose speed is measured: one tenant makes as many calls as otherwise a hundred."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way's latencies, in milliseconds.

    Attributes:
        histogram: how many took no longer than that, and longer than the bound before.
    """

    way: str
    samples: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    histogram: list[tuple[float, int]]

    def cells(self) -> list[str]:
        """For a table: way, samples and percentiles."""
        return [str(value) for value in (self.way, self.samples, self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms)]


def summarise(way: str, seconds: Sequence[float]) -> Measured:
    """Percentiles by the nearest-rank method: each is a value that was measured."""
    ordered = sorted(seconds)

    def percentile(percent: float) -> float:
        return round(ordered[math.ceil(percent / 100 * len(ordered)) - 1] * 1000, 2)

    return Measured(
        way, len(ordered), percentile(50), percentile(90), percentile(99), percentile(100), _histogram(ordered)
    )


def _histogram(seconds: Sequence[float]) -> list[tuple[float, int]]:
    """Ten buckets for each tenfold, as far as there are any."""
    buckets = Counter(math.ceil(10 * math.log10(max(one * 1000, 0.01))) for one in seconds)
    return [(round(10 ** (bucket / 10), 3), buckets[bucket]) for bucket in range(min(buckets), max(buckets) + 1)]


def keep(console: Console, benchmark: str, *, file: str | None = None, **measured: Any) -> None:
    """Write `bench/results/FILE.json`, and say so; `file`: the benchmark's name unless it has several."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{file or benchmark}.json"
    result = {
        "benchmark": benchmark,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        **measured,
    }
    target.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"Written to {target}")


def resident_bytes(pid: int | str = "self") -> int:
    """How much of the machine's memory a process holds now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
