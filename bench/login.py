"""An operator logs in while thousands of visitors are online: how long until all are shown, and what others feel of it.

One tenant has the visitors, rows that are written straight into the database (`lib/seeding.py`). Its operator logs in
again and again: the time counts from the first byte of the login until the last visitor was shown. Meanwhile a visitor
of another tenant, on the same pool process, writes to an operator at a steady rate; the same is measured before, while
nobody logs in. These messages are handed to the shard queue, without the API before it: what the API takes is measured
by `bench.pageviews`.
"""

import asyncio
import itertools
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from typing import Annotated

import typer
from rich.table import Table

from bench.lib.crowd import crowd, login_seconds
from bench.lib.harness import console, own_system
from bench.lib.http_load import STAMP
from bench.lib.measured import Measured, keep, summarise
from bench.lib.seeding import login_of, open_tenants, seed
from bench.lib.watching import MARK, Watcher, watching
from bench.testbed.system import System, domain_of
from orchestrator.launcher.local import DatabaseServer
from tenants.process.services import Services
from tenants.shards.commands import SendMessage

CROWDED, OTHER = "bench-crowded", "bench-other"
_DEADLINE = 60.0
_ids = itertools.count(1)


async def write(services: Services, rate: float, seconds: float) -> int:
    """The other tenant's visitor writes, at that rate. Returns how many messages were sent."""
    started, count = time.monotonic(), int(rate * seconds)
    for number in range(count):
        await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
        message = SendMessage(
            instance_name=OTHER,
            username=f"visitor.1.{OTHER}",
            operator=f"bob.{OTHER}",
            body=MARK.replace(STAMP, f"{time.monotonic():0{len(STAMP)}.6f}"),
            message_id=f"bench-{next(_ids)}",
        )
        await services.commands.publish(message)
    return count


async def arrived(watcher: Watcher, name: str, sending: asyncio.Future[int]) -> tuple[Measured, int]:
    """Their latencies, and how many did not arrive."""
    seen = await asyncio.to_thread(watcher.seen)
    return summarise(name, seen.latencies), await sending - len(seen.latencies)


async def measure(
    system: System, watcher: Watcher, visitors: int, rate: float, seconds: float
) -> tuple[list[tuple[Measured, int]], Measured]:
    """Messages alone and meanwhile, and logins."""
    loop, logins = asyncio.get_running_loop(), list[float]()
    crowded = login_of(system, f"bob.{CROWDED}")
    async with domain_of(system) as services:
        watcher.expect(int(rate * seconds))
        alone = await arrived(watcher, "message, alone", asyncio.ensure_future(write(services, rate, seconds)))
        with ProcessPoolExecutor(1, get_context("spawn")) as operator:
            watcher.expect(int(rate * seconds))
            sending = asyncio.ensure_future(write(services, rate, seconds))
            while not sending.done():
                logins.append(await loop.run_in_executor(operator, login_seconds, crowded, visitors, _DEADLINE))
        meanwhile = await arrived(watcher, "message, meanwhile", sending)
    return [alone, meanwhile], summarise(f"login, {visitors} visitors shown", logins)


async def set_up(system: System, visitors: int) -> None:
    """Both tenants, the visitors of one of them, and a pool process that knows them."""
    await open_tenants(system, [CROWDED, OTHER], "bob")
    await seed(system, [CROWDED], 0, visitors)
    await system.kill("pool-0", signal.SIGTERM)


def run(system: System, visitors: int, rate: float, seconds: float) -> tuple[list[tuple[Measured, int]], Measured]:
    """Measure it on that system."""
    asyncio.run(set_up(system, visitors))
    with crowd([login_of(system, f"bob.{CROWDED}")]) as operators:
        # the pool process has begun
        operators.shown(visitors)
    with watching(login_of(system, f"bob.{OTHER}")) as watcher:
        return asyncio.run(measure(system, watcher, visitors, rate, seconds))


def main(
    visitors: Annotated[int, typer.Option(min=1, max=50_000, help="Visitors online of the operator's tenant.")] = 5000,
    rate: Annotated[float, typer.Option(min=1, help="Messages of the other tenant's visitor a second.")] = 100,
    seconds: Annotated[float, typer.Option(min=5, help="How long logins follow each other.")] = 15,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.POSTGRESQL,
) -> None:
    """Measure logins with many visitors online; prints a table and writes bench/results/login.json."""
    with own_system(database=database, pools=1) as system, console.status("Measuring …"):
        messages, logins = run(system, visitors, rate, seconds)
    table = Table("what", "samples", "p50 ms", "p99 ms", "max ms", "lost")
    for row, lost in [(logins, 0), *messages]:
        table.add_row(row.way, str(row.samples), str(row.p50_ms), str(row.p99_ms), str(row.max_ms), str(lost))
    console.print(table)
    keep(
        console,
        "login",
        options={"visitors": visitors, "rate": rate, "seconds": seconds, "database": database.value},
        logins=asdict(logins),
        messages=[{**asdict(row), "lost": lost} for row, lost in messages],
    )


if __name__ == "__main__":
    typer.run(main)
