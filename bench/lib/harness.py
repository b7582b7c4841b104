"""How each benchmark begins and speaks: one console, one password, and a system that is started for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console

from bench.testbed.system import System, start_system

PASSWORD = "0123456789abcdef0123"  # noqa: S105 - of the benchmarks' visitors
WARM_UP = 20
"""Measurements that are made first and not counted."""

console = Console(highlight=False)


@contextmanager
def own_system(
    *,
    broker: str | None = None,
    database: str | None = None,
    pools: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[System]:
    """Say what is started, start it, and stop it at the end. None is as `script/up` has it."""
    wanted = {"broker": broker, "database": database, "pools": pools}
    options = {name: str(value) for name, value in wanted.items() if value is not None}
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    console.print(f"Starting a system with {said} …")
    with start_system(*(word for name, value in options.items() for word in (f"--{name}", value)), env=env) as system:
        yield system
