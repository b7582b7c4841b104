"""What one, two and four pool processes carry: how evenly they share the work, and what it costs all of them together.

Page views of as many visitors, of tenants in turn, are handed to the broker at once; over when each tenant's operator
was shown all of them. All processes, ejabberd and the operators included, share this machine's cores, so the rate says
when *they* are used up. What the pool alone would allow with a core for each process follows from processor time: the
busiest process is the limit.
"""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table

from bench.lib import processor_time
from bench.lib.crowd import Crowd, crowd
from bench.lib.harness import console, own_system
from bench.lib.measured import FULL_SPEED, keep
from bench.lib.seeding import login_of, open_tenants
from bench.testbed.system import System, domain_of
from orchestrator.launcher.local import Broker
from tenants.core.chunks import chunks
from tenants.shards.commands import ShowVisitor

_AT_ONCE = 500
_ONLINE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """So many pool processes.

    Attributes:
        per_second: page views that were shown, everything on this machine.
        pool_ms: processor time of a page view, of all pool processes together.
        busiest: the largest share of one of them; 1 / processes is even.
        alone_per_second: page views of all of them, had each a core.
    """

    pools: int
    per_second: int
    pool_ms: float
    busiest: float
    alone_per_second: int


async def measure(system: System, operators: Crowd, instance_names: list[str], pools: int, count: int) -> Row:
    """Show that many visitors."""
    await asyncio.to_thread(operators.forget)
    before = processor_time.taken(system)
    async with domain_of(system) as services:
        began = time.monotonic()
        for numbers in chunks(range(count), _AT_ONCE):
            await services.commands.publish(*(_show(number, instance_names) for number in numbers))
        ended = await asyncio.to_thread(operators.shown, count)
    taken = processor_time.since(before, system)
    each = [seconds for name, seconds in taken.items() if name.startswith("pool-")]
    return Row(
        pools,
        round(count / (ended - began)),
        round(sum(each) / count * 1000, 4),
        round(max(each) / sum(each), 3),
        round(count / max(each)),
    )


def _show(number: int, instance_names: list[str]) -> ShowVisitor:
    name = instance_names[number % len(instance_names)]
    return ShowVisitor(
        instance_name=name,
        username=f"visitor.{number}.{name}",
        nick="Online visitor",
        status=f"Page: {number}",
        online_until=time.time() + _ONLINE_SECONDS,
        version=1,
    )


def run(broker: Broker, pools: int, tenants: int, count: int) -> Row:
    """Measure it on a system of its own."""
    with own_system(broker=broker, pools=pools, env=FULL_SPEED) as system:
        instance_names = [f"bench-scale-{number}" for number in range(tenants)]
        asyncio.run(open_tenants(system, instance_names, "bob"))
        with crowd([login_of(system, f"bob.{name}") for name in instance_names]) as operators:
            return asyncio.run(measure(system, operators, instance_names, pools, count))


def main(
    tenants: Annotated[int, typer.Option(min=1, max=1000)] = 64,
    count: Annotated[int, typer.Option(min=100, help="Visitors of each measurement.")] = 30_000,
    pools: Annotated[str, typer.Option(help="Pool processes, one measurement after another.")] = "1,2,4",
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
) -> None:
    """Measure page views through several pool processes; prints a table and writes bench/results/scale.json."""
    rows: list[Row] = []
    for processes in pools.split(","):
        rows.append(run(broker, int(processes), tenants, count))
        console.print(rows[-1])
    table = Table(
        *("pools", "per second", "pool, ms each", "busiest", "with a core each, per second"),
        title=f"{count} page views of {tenants} tenants",
    )
    for row in rows:
        table.add_row(*(str(value) for value in asdict(row).values()))
    console.print(table)
    keep(
        console,
        "scale",
        options={"tenants": tenants, "count": count, "broker": broker.value},
        results=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    typer.run(main)
