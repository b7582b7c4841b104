"""What page views and messages cost that LHC's extension tells of, through the JSON face of one API process.

* unchanged: page views of known visitors who are online, with nothing new in them; with connections that are kept, and
  with one for each call, as PHP makes it. Beside it, in the same run, the least that it can cost here: `lib/bare.py`.
* changed: each has a new status, and is over when one operator's client has the presence.
* new visitor: a page view of somebody who was never here, an account and a contact by then, over when one operator's
  client has the presence.
* message: from visitors in turn to one operator, over when the operator's client has it.

First as many as go, then at a steady rate: latencies count from the moment at which a call was due, whatever became of
those before. Senders and operator are processes of their own; all of them share this one machine with the system, so
the processor time that each part of the system took per call is told as well.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Annotated, Any

import typer
from rich.table import Table

from bench.lib import processor_time
from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.http_load import Load, Outcome, send
from bench.lib.measured import FULL_SPEED, Measured, keep, summarise
from bench.lib.watching import MARK, Login, Watcher, watching
from bench.testbed.lhc import Lhc, php_json
from bench.testbed.panel import Panel
from bench.testbed.system import System
from orchestrator.launcher.local import Broker, DatabaseServer

INSTANCE = "bench-pageviews"
OPERATOR = "bob"
_FIRST_NEW = 1_000_000
"""Numbers of new visitors begin there."""
_SET_UP_AT_ONCE = 10
_START_SECONDS = 30
_QUIET = 0.0005
"""Seconds of processor time per 1,000 calls below which a process is not named."""

_NAMED = 3
"""Processes in the table; the file has all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: how many a second over all, how long each took, what did not arrive, and what it cost."""

    name: str
    per_second: float
    latency: Measured
    lost: int
    processor_ms: dict[str, float]
    """Milliseconds of processor time per call."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent: calls of each measurement, over so many connections; the steady rates, per second."""

    visitors: int
    count: int
    connections: int
    rate_of_views: float
    rate_of_messages: float
    new_visitors: int
    rate_of_new: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that takes part."""

    system: System
    senders: ProcessPoolExecutor
    watcher: Watcher
    path: str
    keys: dict[str, str]
    visitors: list[str]
    plan: Plan

    def bodies(self, **further: str) -> list[str]:
        """One body per visitor, as the extension writes it."""
        return [self._body(visitor, **further) for visitor in self.visitors]

    def bodies_of_new(self, first: int, count: int) -> list[str]:
        """Page views of visitors who were never here, with numbers from `first` on."""
        numbers = range(first, first + count)
        return [self._body(f"visitor.{number}.{INSTANCE}", status=f"Page: {MARK}") for number in numbers]

    def _body(self, visitor: str, **further: str) -> str:
        host = str(self.system.endpoints["xmpp_host"])
        return php_json({"jid": f"{visitor}@{host}", **self.keys, **further}).replace(
            '"secret_key"', '"nick":"Online visitor","secret_key"'
        )

    def load(self, path: str, bodies: list[str], count: int, **wanted: Any) -> Load:
        """A load on the API."""
        port = int(str(self.system.endpoints["api"]).rpartition(":")[2])
        return Load(port, self.path + path, bodies, count, self.plan.connections, **wanted)


def answered(bench: Bench, name: str, load: Load) -> Row:
    """Calls that are over with their answer."""
    before = processor_time.taken(bench.system)
    outcome = bench.senders.submit(send, load).result()
    cost = _per_call(processor_time.since(before, bench.system), outcome.sent)
    done = len(outcome.latencies)
    return Row(name, done / outcome.seconds, summarise(name, outcome.latencies), outcome.sent - done, cost)


def arrived(bench: Bench, name: str, load: Load) -> Row:
    """Calls that are over when the operator's client has what they told."""
    before = processor_time.taken(bench.system)
    bench.watcher.expect(load.count)
    outcome: Outcome = bench.senders.submit(send, load).result()
    seen = bench.watcher.seen()
    cost = _per_call(processor_time.since(before, bench.system), outcome.sent)
    if outcome.refused:
        console.print(f"[red]{name}: {outcome.refused} calls were refused[/]")
    came = len(seen.latencies)
    per_second = came / (seen.last_arrival - seen.first_call)
    return Row(name, per_second, summarise(name, seen.latencies), outcome.sent - came, cost)


def measure(bench: Bench, bare_port: int) -> Iterator[Row]:
    """All of it, one after another."""
    count = bench.plan.count
    unchanged = bench.bodies(status="-")
    bare = Load(bare_port, "/xmpp", unchanged, count, bench.plan.connections)
    yield from _throughput_and_half(bench, "bare uvicorn", bare)
    yield from _throughput_and_half(bench, "unchanged", bench.load("/xmpp", unchanged, count))
    yield from _throughput_and_half(
        bench, "unchanged, a connection per call", bench.load("/xmpp", unchanged, count // 2, keep_alive=False)
    )
    changed = bench.bodies(status=f"Page: {MARK}")
    yield arrived(bench, "changed", bench.load("/xmpp", changed, count // 2))
    yield _steady(bench, arrived, "changed", bench.load("/xmpp", changed, count), bench.plan.rate_of_views)
    messages = bench.bodies(operator_username=f"{OPERATOR}.{INSTANCE}", message=MARK)
    yield arrived(bench, "message", bench.load("/xmpp-send-message", messages, count // 2))
    yield _steady(
        bench, arrived, "message", bench.load("/xmpp-send-message", messages, count), bench.plan.rate_of_messages
    )
    few = bench.plan.new_visitors
    yield arrived(bench, "new visitor", bench.load("/xmpp", bench.bodies_of_new(_FIRST_NEW, few), few))
    more = bench.bodies_of_new(_FIRST_NEW + few, few)
    yield _steady(bench, arrived, "new visitor", bench.load("/xmpp", more, few), bench.plan.rate_of_new)


def _throughput_and_half(bench: Bench, name: str, load: Load) -> Iterator[Row]:
    full = answered(bench, name, load)
    yield full
    yield _steady(bench, answered, name, load, full.per_second / 2)


def _steady(bench: Bench, how: Callable[[Bench, str, Load], Row], name: str, load: Load, rate: float) -> Row:
    """At a steady rate, for some ten seconds at most."""
    steady = Load(**{**_fields(load), "rate": rate, "count": min(load.count, round(rate * 10))})
    return how(bench, f"{name}, at {rate:.0f}/s", steady)


def _fields(load: Load) -> dict[str, Any]:
    return {name: getattr(load, name) for name in Load.__slots__}


def _per_call(seconds: dict[str, float], count: int) -> dict[str, float]:
    return {name: round(taken / count * 1000, 4) for name, taken in seconds.items() if taken / count * 1000 > _QUIET}


@contextmanager
def bare_server() -> Iterator[int]:
    """The bare application, with uvicorn as the API runs it. Gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "bench.lib.bare:app", "--port", str(port), "--lifespan", "off"]
    process = subprocess.Popen(
        [*command, "--loop", "uvloop", "--http", "httptools", "--log-level", "error", "--no-access-log"]
    )
    try:
        _wait_until_open(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_open(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


async def set_up(endpoints: dict[str, Any], visitors: list[str]) -> str:
    """A tenant with an operator, and its visitors. Returns the tenant's key."""
    api = str(endpoints["api"])
    async with Panel(api, str(endpoints["panel_token"])) as panel:
        created = await panel.create(INSTANCE)
    key = str(created["secret_key"])
    lhc = Lhc(INSTANCE, base=f"{api}/t/{INSTANCE}", secret_key=key, host=str(endpoints["xmpp_host"]))
    await lhc.new_operator(OPERATOR, PASSWORD)
    gate = asyncio.Semaphore(_SET_UP_AT_ONCE)

    async def come(visitor: str) -> None:
        async with gate:
            # the first makes the account, the second is judged by the database, the third by what is known
            for _ in range(3):
                answer = await lhc.page_view(visitor, PASSWORD, status="-")
                answer.raise_for_status()

    await asyncio.gather(*map(come, visitors))
    return key


def run(system: System, plan: Plan) -> list[Row]:
    """Measure it on that system."""
    endpoints = system.endpoints
    locals_ = [f"visitor.{number}" for number in range(1, plan.visitors + 1)]
    with console.status(f"{plan.visitors} visitors come …"):
        key = asyncio.run(set_up(endpoints, locals_))
    login = Login(f"{OPERATOR}.{INSTANCE}", str(endpoints["xmpp_host"]), PASSWORD, int(endpoints["c2s_port"]))
    rows: list[Row] = []
    with (
        bare_server() as bare_port,
        watching(login) as watcher,
        ProcessPoolExecutor(1, get_context("spawn")) as senders,
        console.status("Measuring …"),
    ):
        bench = Bench(
            system=system,
            senders=senders,
            watcher=watcher,
            path=f"/t/{INSTANCE}",
            keys={"pass": PASSWORD, "host": "localhost", "secret_key": key},
            visitors=[f"{local}.{INSTANCE}" for local in locals_],
            plan=plan,
        )
        for row in measure(bench, bare_port):
            console.print(f"{row.name}: {row.per_second:.0f}/s, p50 {row.latency.p50_ms} ms, {row.processor_ms}")
            rows.append(row)
    return rows


def main(
    *,
    visitors: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    count: Annotated[int, typer.Option(min=100, help="Calls of each measurement.")] = 20_000,
    connections: Annotated[int, typer.Option(min=1, max=500)] = 32,
    rate_of_views: Annotated[float, typer.Option(help="Changed page views a second, for latencies.")] = 500,
    rate_of_messages: Annotated[float, typer.Option(help="Messages a second, for latencies.")] = 200,
    new_visitors: Annotated[int, typer.Option(min=10, help="New visitors of each measurement.")] = 1_000,
    rate_of_new: Annotated[float, typer.Option(help="New visitors a second, for latencies.")] = 50,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.POSTGRESQL,
) -> None:
    """Measure page views and visitors' messages; prints a table and writes bench/results/pageviews.json."""
    plan = Plan(visitors, count, connections, rate_of_views, rate_of_messages, new_visitors, rate_of_new)
    with own_system(broker=broker, database=database, env=FULL_SPEED) as system:
        rows = run(system, plan)
    table = Table("what", "per second", "p50 ms", "p99 ms", "max ms", "lost", "processor, ms per call")
    for row in rows:
        latency, cost = row.latency, sorted(row.processor_ms.items(), key=lambda item: -item[1])[:_NAMED]
        table.add_row(
            *(row.name, f"{row.per_second:.0f}", str(latency.p50_ms), str(latency.p99_ms), str(latency.max_ms)),
            str(row.lost),
            ", ".join(f"{name} {milliseconds:.3f}" for name, milliseconds in cost),
        )
    console.print(table)
    keep(
        console,
        "pageviews",
        options={**asdict(plan), "broker": broker.value, "database": database.value},
        results=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    typer.run(main)
