"""How long a tenant is without service when the pool process that serves it is killed.

Again and again a process is killed (SIGKILL), and at the same moment a visitor of each tenant that it served writes to
the operator; the time until the operator's client has the last of these messages is the takeover. An operator's answer
to each goes the other way at once, until LHC's receiver has it. On a system of its own, everything on one machine.
"""

import asyncio
import os
import re
import signal
import time
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import select

from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.measured import FULL_SPEED, keep
from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tenants.shards.commands import shard_of
from tenants.store.database import Database
from tenants.store.models import ShardLease

TENANTS = 8
SHARDS = 64
DEADLINE = 60.0


class Bench:
    """The running system, its tenants, and who serves them."""

    def __init__(self, system: System, database: Database, receiver: Receiver, pools: int) -> None:
        self._system = system
        self._database = database
        self._receiver = receiver
        self._pools = pools
        self._tenants: list[tuple[Lhc, Operator]] = []

    async def begin(self, panel: Panel, stack: AsyncExitStack) -> None:
        """Create the tenants, each with an operator and a visitor online."""
        endpoints = self._system.endpoints
        for number in range(TENANTS):
            name = f"takeover{number}"
            created = await panel.create(name)
            base = f"{endpoints['api']}/t/{name}"
            lhc = Lhc(name, base=base, secret_key=created["secret_key"], host=endpoints["xmpp_host"])
            await lhc.new_operator("bob", PASSWORD)
            await lhc.new_visitor("visitor.1", PASSWORD)
            address = (endpoints["c2s_host"], endpoints["c2s_port"])
            bob = await stack.enter_async_context(Operator(lhc.name("bob"), lhc.host, PASSWORD, address))
            await bob.sees(lhc.name("visitor.1"))
            self._tenants.append((lhc, bob))

    async def kill_one(self, number: int) -> tuple[float, float]:
        """Kill a process that serves tenants. Returns the seconds until they have service, each way."""
        await until_async(self._shared_out, "the shards are shared out", DEADLINE)
        holders = await self._holders()
        victims = [holders[shard_of(lhc.instance_name, SHARDS)] for lhc, _ in self._tenants]
        victim = victims[number % len(victims)]
        struck = [pair for pair, holder in zip(self._tenants, victims, strict=True) if holder == victim]
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        times = await asyncio.gather(*(self._talk(lhc, bob, number) for lhc, bob in struck))
        return max(one[0] for one in times) - killed_at, max(one[1] for one in times) - killed_at

    async def _talk(self, lhc: Lhc, bob: Operator, number: int) -> tuple[float, float]:
        question, answer = f"question {number} {lhc.instance_name}", f"answer {number} {lhc.instance_name}"
        bob.write(lhc.name("visitor.1"), answer)
        response = await lhc.visitor_writes("visitor.1", PASSWORD, "bob", question)
        if response.text != "ok":
            raise AssertionError(f"not accepted: {response.text}")
        read = await bob.reads(question, seconds=DEADLINE)
        posted = await self._receiver.message(answer, seconds=DEADLINE)
        return read.at, posted.at

    async def _holders(self) -> dict[int, int]:
        async with self._database.read() as session:
            rows = await session.execute(
                select(ShardLease.shard, ShardLease.owner).where(ShardLease.expires_at > time.time())
            )
        return {shard: int(re.findall(r"-(\d+)-\w+$", owner)[0]) for shard, owner in rows.all() if owner}

    async def _shared_out(self) -> bool:
        pids = list((await self._holders()).values())
        counts = [pids.count(pid) for pid in set(pids)]
        return len(pids) == SHARDS and len(counts) == self._pools and max(counts) <= -(-SHARDS // self._pools)


async def run(system: System, kills: int, pools: int) -> list[tuple[float, float]]:
    """Kill and measure."""
    endpoints = system.endpoints
    database = Database(endpoints["database_url"])
    try:
        async with (
            AsyncExitStack() as stack,
            Receiver(endpoints["callback_port"]) as receiver,
            Panel(endpoints["api"], endpoints["panel_token"]) as panel,
        ):
            bench = Bench(system, database, receiver, pools)
            await bench.begin(panel, stack)
            measured = []
            for number in range(kills):
                to_operator, to_lhc = await bench.kill_one(number)
                measured.append((to_operator, to_lhc))
                console.print(f"  kill {number + 1}: to the operator {to_operator:.1f} s, to LHC {to_lhc:.1f} s")
            return measured
    finally:
        await database.close()


def main(
    kills: Annotated[int, typer.Option(min=1, max=100)] = 10,
    broker: Annotated[str, typer.Option(help="redis or rabbitmq")] = "redis",
    database: Annotated[str, typer.Option(help="sqlite or postgresql")] = "sqlite",
    pools: Annotated[int, typer.Option(min=2, max=8, help="Pool processes.")] = 2,
) -> None:
    """Measure takeovers of killed pool processes; prints a table and writes bench/results/takeover-BROKER.json."""
    with own_system(broker=broker, database=database, pools=pools, env=FULL_SPEED) as system:
        measured = asyncio.run(run(system, kills, pools))
    table = Table("seconds", "visitor -> operator", "operator -> LHC", title=f"Takeover after SIGKILL, {kills} kills")
    ways = [sorted(times) for times in zip(*measured, strict=True)]
    for name, index in (("shortest", 0), ("median", kills // 2), ("longest", -1)):
        table.add_row(name, *(f"{times[index]:.2f}" for times in ways))
    console.print(table)
    keep(
        console,
        "takeover",
        file=f"takeover-{broker}",
        options={"broker": broker, "database": database, "pools": pools},
        seconds=[{"to_operator": to_operator, "to_lhc": to_lhc} for to_operator, to_lhc in measured],
    )


if __name__ == "__main__":
    typer.run(main)
