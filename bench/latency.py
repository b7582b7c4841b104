"""How long the ways of a conversation take, one after another on a quiet system.

* page view -> presence: LHC's request leaves, until the operator's client has the presence.
* visitor -> operator: LHC's request leaves, until the operator's client has the message.
* visitor who was away -> operator: the same, of a visitor with an account who is not online yet.
* operator -> LHC: the operator's client writes, until LHC's receiver has the callback.

Everything runs on this one machine, the clients included; the clock is one process's monotonic clock.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from bench.lib.harness import PASSWORD, WARM_UP, console
from bench.lib.measured import Measured, keep, summarise
from bench.lib.running import running_system
from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver

INSTANCE = "bench"


async def measure(endpoints: dict[str, str | int], samples: int) -> list[Measured]:
    """Measure all ways."""
    host, api = str(endpoints["xmpp_host"]), str(endpoints["api"])
    address = (str(endpoints["c2s_host"]), int(endpoints["c2s_port"]))
    async with (
        Receiver(int(endpoints["callback_port"])) as receiver,
        Panel(api, str(endpoints["panel_token"])) as panel,
    ):
        if (await panel.http.get(f"/v1/tenants/{INSTANCE}")).is_success:
            await panel.destroy(INSTANCE)
        created = await panel.create(INSTANCE)
        lhc = Lhc(INSTANCE, base=f"{api}/t/{INSTANCE}", secret_key=created["secret_key"], host=host)
        await lhc.new_operator("bob", PASSWORD)
        visitor = lhc.name("visitor.1")
        await lhc.new_visitor("visitor.1", PASSWORD)
        async with Operator(lhc.name("bob"), host, PASSWORD, address) as bob:
            await bob.sees(visitor)

            async def page_view(number: int) -> float:
                started = time.monotonic()
                await lhc.page_view("visitor.1", PASSWORD, status=f"page {number}")
                return (await bob.sees(visitor, status=f"page {number}")).at - started

            async def visitor_writes(number: int) -> float:
                started = time.monotonic()
                await lhc.visitor_writes("visitor.1", PASSWORD, "bob", f"question {number}")
                return (await bob.reads(f"question {number}")).at - started

            async def stranger_writes(number: int) -> float:
                local = f"visitor.{number + 2}"
                (
                    await lhc.call("/xmpp-register", user=lhc.name(local), host=host, password=PASSWORD)
                ).raise_for_status()
                started = time.monotonic()
                await lhc.visitor_writes(local, PASSWORD, "bob", f"first {number}")
                return (await bob.reads(f"first {number}")).at - started

            async def operator_writes(number: int) -> float:
                started = time.monotonic()
                bob.write(visitor, f"answer {number}")
                took = (await receiver.message(f"answer {number}")).at - started
                # more than twenty in a second are refused (`operator_rate` of the bridge module)
                await asyncio.sleep(0.1 - took)
                return took

            measured = [
                await _run("page view -> presence", page_view, samples),
                await _run("visitor -> operator", visitor_writes, samples),
                await _run("visitor who was away -> operator", stranger_writes, samples),
                await _run("operator -> LHC callback", operator_writes, samples),
            ]
        await panel.destroy(INSTANCE)
    return measured


async def _run(way: str, once: Callable[[int], Awaitable[float]], samples: int) -> Measured:
    with console.status(f"{way} …"):
        for number in range(WARM_UP):
            await once(number)
        return summarise(way, [await once(WARM_UP + number) for number in range(samples)])


def main(samples: Annotated[int, typer.Option(min=10, max=10_000, help="Samples of each way.")] = 300) -> None:
    """Measure the latency of page views and messages; prints a table and writes bench/results/latency.json."""
    with running_system(console) as endpoints:
        measured = asyncio.run(measure(endpoints, samples))
    table = Table("way", "samples", "p50 ms", "p90 ms", "p99 ms", "max ms", title="Latency, one at a time")
    for row in measured:
        table.add_row(*row.cells())
    console.print(table)
    keep(
        console,
        "latency",
        results=[asdict(row) for row in measured],
    )


if __name__ == "__main__":
    typer.run(main)
