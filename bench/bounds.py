"""What memory each process takes while tenants talk, beside a dead LHC, and beside a dead broker.

The same load all the time, in phases of the same length: all well; every callback hangs; the broker is stopped. What is
bounded must not grow with the length of a phase: compare two runs with different `--seconds`. On a system of its own.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Annotated

import typer
from rich.table import Table

from bench.chaos.load import Load, Shape
from bench.chaos.memory import Memory
from bench.chaos.schedule import Kind
from bench.lib.harness import console, own_system
from bench.lib.measured import FULL_SPEED, keep
from bench.testbed.system import System
from orchestrator.launcher.local import Broker, DatabaseServer
from orchestrator.launcher.up import control

WELL, DEAD_LHC, DEAD_BROKER = "all well", "dead LHC", "dead broker"
PROCESSES = ("api", "worker", "pool-0", "pool-1", "ejabberd")


async def run(system: System, broker: Broker, seconds: float, rate: float) -> dict[str, dict[str, int]]:
    """Measure. Returns of each phase the most KiB that each process had."""
    load = Load(system, Shape(tenants=4, visitors=5, operators=2, rate=rate, seconds=3 * seconds, seed=1))
    memory = Memory(system)
    stop = asyncio.Event()
    measured: dict[str, dict[str, int]] = {}
    async with load.prepared():
        sampling = asyncio.create_task(memory.sample())
        talking = asyncio.create_task(load.talk(stop))
        for phase in (WELL, DEAD_LHC, DEAD_BROKER):
            console.print(f"{phase}, {seconds:.0f} s …")
            memory.most.clear()
            if phase == DEAD_LHC:
                await load.instances.fail(Kind.HANGING, seconds)
            else:
                if phase == DEAD_BROKER:
                    await asyncio.to_thread(_stop_server, system, broker.value)
                await asyncio.sleep(seconds)
            measured[phase] = dict(memory.most)
        stop.set()
        for task in (sampling, talking):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return measured


def _stop_server(system: System, name: str) -> None:
    with control(system.state) as supervisor:
        (group,) = (info["group"] for info in supervisor.getAllProcessInfo() if info["name"] == name)
        supervisor.stopProcess(f"{group}:{name}")


def main(
    *,
    seconds: Annotated[float, typer.Option(min=10, help="Of each phase.")] = 60,
    rate: Annotated[float, typer.Option(min=1, help="Messages per second, of all, in both directions.")] = 40,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.SQLITE,
) -> None:
    """Measure memory beside dead servers; prints a table and writes bench/results/bounds.json."""
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL)
    with own_system(broker=broker, database=database, pools=2, env=FULL_SPEED) as system:
        measured = asyncio.run(run(system, broker, seconds, rate))
    table = Table("most MiB", *measured, title=f"Resident memory, {rate:.0f} messages per second")
    for name in PROCESSES:
        table.add_row(name, *(f"{phase.get(name, 0) / 1024:.0f}" for phase in measured.values()))
    console.print(table)
    keep(
        console,
        "bounds",
        options={"seconds": seconds, "rate": rate, "broker": broker.value, "database": database.value},
        most_kib=measured,
    )


if __name__ == "__main__":
    typer.run(main)
