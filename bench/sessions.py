"""What visitors online cost: memory of the pool process, the time of a restart, the processor when nothing happens.

Visitors are rows that are written straight into the database (`lib/seeding.py`), of many tenants in turn, each with one
operator online. Then the one pool process is ended in good order, and started again by supervisord: the time counts
from the signal until every operator was shown every visitor of the tenant again. Memory is what the process holds some
seconds later, for each visitor more than at the step before.

Beside it, in the same run: one client session of slixmpp for each visitor, which is what a straightforward
implementation has.
"""

import asyncio
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench.lib import processor_time
from bench.lib.client_sessions import ClientSessions, log_in_all
from bench.lib.crowd import Crowd, crowd
from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.measured import keep, resident_bytes
from bench.lib.seeding import login_of, open_tenants, seed
from bench.lib.watching import Login
from bench.testbed.system import System
from orchestrator.launcher.local import DatabaseServer

_POOL = "pool-0"
_REST_SECONDS = 5.0
_IDLE_SECONDS = 10.0
_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """So many visitors online. Memory in bytes; seconds; `idle_percent`: of one core, of the pool process."""

    visitors: int
    restart_seconds: float
    resident: int
    peak: int
    bytes_each: float
    idle_percent: float


async def measure(system: System, crowd: Crowd, instance_names: list[str], steps: list[int]) -> list[Row]:
    """One step after another, beginning with nobody."""
    rows: list[Row] = []
    seeded = 0
    for visitors in [0, *steps]:
        await seed(system, instance_names, seeded, visitors)
        seeded = visitors
        await asyncio.to_thread(crowd.forget)
        began = time.monotonic()
        await system.kill(_POOL, signal.SIGTERM)
        if visitors:
            restarted = await asyncio.to_thread(crowd.shown, visitors) - began
        else:
            await system.ready()
            restarted = time.monotonic() - began
        row = await _at_rest(system, visitors, restarted, rows[-1] if rows else None)
        console.print(f"{visitors} visitors: {row}")
        rows.append(row)
    return rows


async def _at_rest(system: System, visitors: int, restarted: float, before: Row | None) -> Row:
    await asyncio.sleep(_REST_SECONDS)
    busy = processor_time.taken(system)
    await asyncio.sleep(_IDLE_SECONDS)
    idle = processor_time.since(busy, system)[_POOL] / _IDLE_SECONDS
    pid = system.pid(_POOL)
    resident = resident_bytes(pid)
    each = (resident - before.resident) / (visitors - before.visitors) if before else 0
    return Row(visitors, round(restarted, 2), resident, _peak(pid), round(each), round(idle * 100, 1))


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024


async def clients(system: System, count: int) -> list[Login]:
    """Accounts of visitors that log in themselves."""
    logins = [login_of(system, f"visitor.{number}.client") for number in range(count + 1)]
    for login in logins:
        await system.ejabberd("register", user=login.username, host=login.host, password=PASSWORD)
    return logins


def run(system: System, tenants: int, steps: list[int], baseline: int) -> tuple[list[Row], ClientSessions]:
    """Measure it on that system."""
    instance_names = [f"bench-sessions-{number}" for number in range(tenants)]
    with console.status("Visitors log in themselves …"), ProcessPoolExecutor(1, get_context("spawn")) as process:
        straightforward = process.submit(log_in_all, asyncio.run(clients(system, baseline))).result()
    console.print(straightforward)
    with console.status(f"{tenants} tenants …"):
        asyncio.run(open_tenants(system, instance_names, "bob"))
    with (
        crowd([login_of(system, f"bob.{name}") for name in instance_names]) as operators,
        console.status("Measuring …"),
    ):
        return asyncio.run(measure(system, operators, instance_names, steps)), straightforward


def main(
    tenants: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    steps: Annotated[str, typer.Option(help="Visitors online, step by step.")] = "10000,50000,100000",
    baseline: Annotated[int, typer.Option(min=10, max=1000, help="Client sessions beside it.")] = 100,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.POSTGRESQL,
) -> None:
    """Measure visitors online; prints a table and writes bench/results/sessions.json."""
    with own_system(database=database, pools=1) as system:
        rows, straightforward = run(system, tenants, [int(step) for step in steps.split(",")], baseline)
    table = Table(
        *("visitors", "restart s", "resident MB", "peak MB", "bytes each", "processor when idle"),
        title=f"Visitors of {tenants} tenants, written into the database; one operator of each online",
    )
    for row in rows:
        table.add_row(
            *(str(row.visitors), str(row.restart_seconds), str(row.resident // _MEGABYTE)),
            *(str(row.peak // _MEGABYTE), str(row.bytes_each), f"{row.idle_percent} %"),
        )
    console.print(table)
    console.print(
        f"A client session for each visitor: {straightforward.bytes_each} bytes, "
        f"{straightforward.logins_per_second} logins a second ({straightforward.count} of them)."
    )
    keep(
        console,
        "sessions",
        options={"tenants": tenants, "database": database.value},
        results=[asdict(row) for row in rows],
        client_sessions=asdict(straightforward),
    )


if __name__ == "__main__":
    typer.run(main)
