"""`script/chaos`: tenants talk in both directions while everything is killed in turn; then every message is counted.

Ends with 0 only if every message was accepted in the end, none was lost, left lying, swapped or out of order, and
operators and LHC came to know the truth. What waited on the disk of a node that was down may come late. Doubles are
counted, not condemned: who asks again after a lost answer may be heard twice.
"""

import asyncio
import json
import logging
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.chaos.load import Load, Shape
from bench.chaos.mayhem import Mayhem, victims
from bench.chaos.memory import Memory
from bench.chaos.report import Result, describe
from bench.chaos.schedule import Action, plan
from bench.lib.measured import FULL_SPEED
from bench.testbed.system import StartError, System, start_system
from orchestrator.launcher.local import Broker, DatabaseServer

RESULTS = Path(__file__).parents[1] / "results" / "chaos.json"
_QUIET = 3.0
"""Seconds without an arrival: what was to come twice has come twice."""
_NEXT_LOGIN = 10.0
"""Seconds for operators to log in anew and get what was left lying."""
_POLL = 0.25
_INTERRUPTED = 130

console = Console(highlight=False)


async def run(
    system: System, shape: Shape, actions: Sequence[Action], settle: float, options: dict[str, Any]
) -> tuple[Result, bool]:
    """Let the load and the mayhem run and settle. Returns the count, and whether somebody ended it early."""
    stop, interrupted = asyncio.Event(), asyncio.Event()
    load = Load(system, shape)
    mayhem = Mayhem(system, load.instances)
    memory = Memory(system)
    async with load.prepared(), asyncio.TaskGroup() as group:
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, interrupted.set)
        console.print("Everybody talks.")
        begun = time.monotonic()
        sampling = group.create_task(memory.sample())
        talking = group.create_task(load.talk(stop))
        hitting = group.create_task(mayhem.carry_out(actions))
        with suppress(TimeoutError):
            await asyncio.wait_for(interrupted.wait(), shape.seconds)
        stop.set()
        ended = time.monotonic()
        if interrupted.is_set():
            talking.cancel()
            hitting.cancel()
        else:
            console.print("The load has ended; waiting until everything has arrived …")
            await asyncio.wait({talking, hitting})
            await _settle(load, interrupted, settle)
        settled_after, wrong = time.monotonic() - ended, load.wrong()
        if not interrupted.is_set() and any(load.ledger.lost()):
            await load.log_in_anew()
            await _settle(load, interrupted, _NEXT_LOGIN)
        result = Result.of(
            options, load, mayhem.hits, memory.most, wrong=wrong, begun=begun, settled_after=settled_after
        )
        sampling.cancel()
    return result, interrupted.is_set()


async def _settle(load: Load, interrupted: asyncio.Event, seconds: float) -> None:
    """Wait until all that was accepted has arrived, everybody sees the truth, and nothing more comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not interrupted.is_set():
        quiet = time.monotonic() - load.ledger.last_arrival > _QUIET
        if quiet and load.short_windows_over() and not any(load.ledger.lost()) and not load.wrong():
            return
        await asyncio.sleep(_POLL)


def main(
    *,
    seed: Annotated[int | None, typer.Option(help="Of the schedule; random when not given.")] = None,
    seconds: Annotated[float, typer.Option(min=10, help="How long the load lasts.")] = 300,
    tenants: Annotated[int, typer.Option(min=2, help="The last one's visitors stay for a short time only.")] = 4,
    visitors: Annotated[int, typer.Option(min=1, help="Of each tenant.")] = 5,
    operators: Annotated[int, typer.Option(min=1, help="Of each tenant who talk; one more comes and goes.")] = 2,
    rate: Annotated[float, typer.Option(min=0.1, help="Messages per second, of all, in both directions.")] = 40,
    pause: Annotated[float, typer.Option(min=0.5, help="Mean seconds between two hits.")] = 8,
    victim: Annotated[
        str,
        typer.Option("--victims", help="Of pool,worker,lifecycle,api,beat,lhc and the servers; or all."),
    ] = "",
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.SQLITE,
    pools: Annotated[int, typer.Option(min=1, help="Pool processes.")] = 2,
    ejabberd_nodes: Annotated[int, typer.Option(min=1, help="Nodes of ejabberd; operators log in at each.")] = 1,
    settle: Annotated[float, typer.Option(min=1, help="Seconds that everything may take to arrive at the end.")] = 90,
    results: Annotated[Path, typer.Option(help="Where the JSON goes.")] = RESULTS,
) -> None:
    """Talk while processes and servers are killed, on a system started for this; then account for every message."""
    options = {name: str(value) if isinstance(value, Path) else value for name, value in locals().items()}
    options["seed"] = seed = random.randrange(2**32) if seed is None else seed
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL)  # connections are meant to break
    shape = Shape(tenants, visitors, operators, rate, seconds, seed)
    well = False
    servers = f"{broker}, {database}, {ejabberd_nodes} of ejabberd"
    console.print(f"Starting a system with {servers} and {pools} pool processes …")
    wanted = ("--broker", broker, "--database", database, "--pools", pools, "--ejabberd-nodes", ejabberd_nodes)
    try:
        with start_system(*map(str, wanted), env=FULL_SPEED, keep=lambda: not well) as system:
            chosen = victims(system, [name for name in victim.split(",") if name])
            actions = plan(seed, chosen, seconds, pause)
            console.print(f"It is in {system.state}, logs included; the folder stays if not all goes well.")
            console.print(f"Seed {seed}, {len(actions)} hits in {seconds:.0f} s:")
            for action in actions:
                console.print(f"  {action.at:6.1f} s  {describe(action.kind, action.victim, action.seconds)}")
            options["state"] = str(system.state)
            result, interrupted = asyncio.run(run(system, shape, actions, settle, options))
            well = (result.good and not result.doubled) or interrupted  # the logs say why something came twice
    except StartError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    result.print_to(console)
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    console.print(f"Written to {results}")
    if not well:
        console.print(f"Kept for you to look at: {system.state}")
    if interrupted:
        console.print("Interrupted: what was on its way is counted as lost.")
        raise typer.Exit(_INTERRUPTED)
    raise typer.Exit(0 if result.good else 1)


if __name__ == "__main__":
    typer.run(main)
