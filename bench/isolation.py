"""Whether a dead tenant delays another: latency of one tenant's operator -> LHC callbacks.

* alone;
* while another tenant's operator writes in 50 conversations: what its mere load costs on this machine;
* and while that tenant's LHC hangs 30 s on every call.

Measured from the operator's client, which writes, to LHC's receiver, which has the callback; one message at a time, on
one machine, the clients included. The clock is one process's monotonic clock.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from bench.testbed.receiver import Callback, Receiver
from bench.testbed.waiting import until

MEASURED, BUSY = "bench-measured", "bench-busy"
CONVERSATIONS = 50
HANG_SECONDS = 30.0
WRITE_INTERVAL = 0.1
"""Seconds between two messages of the busy tenant's operator: each conversation has one every five."""


class Bench:
    """The running system and the actors of both tenants."""

    def __init__(self, endpoints: dict[str, str | int], receiver: Receiver, panel: Panel) -> None:
        self._endpoints = endpoints
        self._host = str(endpoints["xmpp_host"])
        self._receiver = receiver
        self._panel = panel
        self._let_go = asyncio.Event()
        self._hanging = 0
        self._written = 0

    @asynccontextmanager
    async def tenant(self, name: str) -> AsyncIterator[tuple[Lhc, Operator]]:
        """A new tenant with its operator online; destroyed in the end."""
        await self._remove(name)
        created = await self._panel.create(name)
        base = f"{self._endpoints['api']}/t/{name}"
        lhc = Lhc(name, base=base, secret_key=created["secret_key"], host=self._host)
        await lhc.new_operator("bob", PASSWORD)
        address = str(self._endpoints["c2s_host"]), int(self._endpoints["c2s_port"])
        async with Operator(lhc.name("bob"), self._host, PASSWORD, address) as bob:
            await self._receiver.status(f'{{"action":"connect","user":"{lhc.name("bob")}","server":"{self._host}"}}')
            yield lhc, bob
        await self._remove(name)

    async def _remove(self, name: str) -> None:
        if (await self._panel.http.get(f"/v1/tenants/{name}")).is_success:
            await self._panel.destroy(name)

    async def measure(self, what: str, lhc: Lhc, bob: Operator, samples: int) -> Measured:
        """Latency of the operator's messages to one visitor."""

        async def once(number: int) -> float:
            body = f"{what} {number}"
            started = time.monotonic()
            bob.write(lhc.name("visitor.1"), body)
            return (await self._receiver.message(body)).at - started

        with console.status(f"{what} …"):
            for number in range(WARM_UP):
                await once(number)
            return summarise(what, [await once(WARM_UP + number) for number in range(samples)])

    @asynccontextmanager
    async def busy_tenant(self) -> AsyncIterator[None]:
        """The other tenant, with an operator who goes on writing in all conversations."""
        async with self.tenant(BUSY) as (lhc, bob):
            for number in range(1, CONVERSATIONS + 1):
                await lhc.new_visitor(f"visitor.{number}", PASSWORD)
            writing = asyncio.create_task(self._write(lhc, bob))
            try:
                yield
            finally:
                writing.cancel()
                await asyncio.wait([writing])
                self._let_go.set()

    async def hang(self) -> None:
        """From now on the busy tenant's LHC hangs on every call. Returns when it does."""

        async def behaviour(_callback: Callback) -> int:
            self._hanging += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._let_go.wait(), HANG_SECONDS)
            self._hanging -= 1
            return 200

        self._receiver.behaviours[f"{BUSY.replace('-', '.')}.localhost"] = behaviour
        written = self._written
        await until(lambda: self._written >= written + CONVERSATIONS and self._hanging, "every conversation hangs", 30)

    async def _write(self, lhc: Lhc, bob: Operator) -> None:
        while True:
            bob.write(lhc.name(f"visitor.{self._written % CONVERSATIONS + 1}"), f"busy {self._written}")
            self._written += 1
            await asyncio.sleep(WRITE_INTERVAL)

    @property
    def load(self) -> dict[str, int]:
        """What the busy tenant has done up to this moment."""
        return {"messages_written": self._written, "requests_hanging": self._hanging}


async def run(endpoints: dict[str, str | int], samples: int) -> tuple[list[Measured], list[dict[str, int]]]:
    """Measure all three; with the other tenant's load before and after the third."""
    async with (
        Receiver(int(endpoints["callback_port"])) as receiver,
        Panel(str(endpoints["api"]), str(endpoints["panel_token"])) as panel,
    ):
        bench = Bench(endpoints, receiver, panel)
        async with bench.tenant(MEASURED) as (lhc, bob):
            await lhc.new_visitor("visitor.1", PASSWORD)
            measured = [await bench.measure("alone", lhc, bob, samples)]
            async with bench.busy_tenant():
                measured.append(await bench.measure("beside a busy tenant", lhc, bob, samples))
                await bench.hang()
                loads = [bench.load]
                measured.append(await bench.measure("whose LHC hangs", lhc, bob, samples))
                loads.append(bench.load)
    return measured, loads


def main(samples: Annotated[int, typer.Option(min=10, max=10_000, help="Samples of each.")] = 300) -> None:
    """Measure callbacks beside a dead tenant; prints a table and writes bench/results/isolation.json."""
    with running_system(console) as endpoints:
        measured, loads = asyncio.run(run(endpoints, samples))
    table = Table("ms", *(row.way for row in measured), title="Operator -> LHC callback of one tenant")
    for name in ("p50_ms", "p90_ms", "p99_ms", "max_ms"):
        table.add_row(name.removesuffix("_ms"), *(str(getattr(row, name)) for row in measured))
    console.print(table)
    for when, load in zip(("at the beginning", "at the end"), loads, strict=True):
        written, hanging = load["messages_written"], load["requests_hanging"]
        console.print(f"The hanging tenant {when}: {written} messages written, {hanging} requests hanging")
    keep(
        console,
        "isolation",
        busy_tenant={"conversations": CONVERSATIONS, "hang_seconds": HANG_SECONDS, "load_while_hanging": loads},
        results=[asdict(row) for row in measured],
    )


if __name__ == "__main__":
    typer.run(main)
