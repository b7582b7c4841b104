"""The system that the demo and the benchmarks use: the one that runs, or one started for them and stopped after."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from config.settings import state_dir
from orchestrator.launcher.up import Launcher


@contextmanager
def running_system(console: Console, endpoints: Path | None = None) -> Iterator[dict[str, str | int]]:
    """Where everything of the system is, while it runs; of one that runs elsewhere a file tells."""
    if endpoints is not None:
        yield json.loads(endpoints.read_text())
        return
    launcher = Launcher(state_dir(), console)
    ours = not launcher.running()
    if ours:
        console.print("Nothing is running yet: starting the system for this.")
        launcher.up(detach=True)
    try:
        yield json.loads((state_dir() / "endpoints.json").read_text())
    finally:
        if ours:
            launcher.down()
            console.print("Stopped the system again.")
