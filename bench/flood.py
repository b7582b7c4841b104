"""Whether a hostile tenant takes time or memory from others: latency of a calm tenant, quiet and beside each flood.

* a hostile operator: two connections write to visitors and colleagues as fast as they are read; nine read nothing;
* a hostile visitor: a browser on `/ws` does the same, while LHC is made to send what the visitor writes in its page;
* a hostile LHC: eight connections make calls one after another, and its server hangs on every callback, of which there
  are as many as the operator wrote before;
* all of them at once.

The calm tenant's visitor writes to its operator (until the operator's client has it), and the operator to the visitor
(until LHC's receiver has the callback), one after another, all the time. Everything runs on this one machine. The
floods come from processes of their own, which send bytes that were made before and look at nothing that comes back;
still they take processor time from the system, and so does the calm tenant's client.
"""

import asyncio
import logging
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import Annotated, Any

import typer
from rich.table import Table

from bench.chaos.memory import Memory
from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.measured import Measured, keep, summarise
from bench.testbed.browser import Browser
from bench.testbed.lhc import Lhc, php_json
from bench.testbed.light_client import LightClient
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Callback, Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until
from orchestrator.launcher.local import Broker, DatabaseServer

CALM, HOSTILE = "calm", "hostile"
TO_OPERATOR, TO_LHC = "visitor -> operator", "operator -> callback"
PROCESSES = ("ejabberd", "api", "worker", "pool-0", "pool-1", "lifecycle", "beat", "redis")
MOST_EJABBERD, MOST_OTHERS = 256, 128
"""MiB that a flood may add to what a process has when all is quiet: what may wait for a tenant's connections (64 MB) as
bytes and as terms, its share of the bridge's queue (16 MB) likewise, and what Erlang keeps for later."""
FACTOR = 3
"""How many times longer the slowest of a hundred may take."""
WARM_UP = 10
_AN_OPERATOR_WRITES = 0.1
"""Seconds between two of its messages, at least: twice as many are refused (`operator_rate` of the bridge module)."""
_AT_ONCE = 50
_PIPELINED = 10
"""Requests on a connection that wait for their answers."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a flood goes; passed to its process."""

    host: str
    clients: tuple[str, int]
    websocket: str
    api: str
    key: str
    password: str

    def jid(self, local: str) -> str:
        return f"{local}.{HOSTILE}@{self.host}"


async def flood_operator(target: Target, sent: "Synchronized[int]") -> None:
    """Two connections write, nine of a colleague read nothing."""

    def client(local: str, resource: str) -> LightClient:
        return LightClient(f"{local}.{HOSTILE}", target.host, target.password, target.clients, resource)

    chunk = b"".join(
        f"<message type='chat' to='{target.jid(to)}'><body>{'flood ' * 40}</body></message>".encode()
        for number in range(_AT_ONCE)
        for to in (f"visitor.{number + 1}", "eve")
    )
    for number in range(9):
        deaf = await client("eve", f"deaf{number}").__aenter__()
        deaf.stop_reading()

    async def write(resource: str) -> None:
        while True:
            with suppress(OSError):  # disconnected: it comes again
                async with client("bob", resource) as writer:
                    reading = asyncio.create_task(writer.read_for_ever())
                    while not reading.done():
                        writer.send(chunk)
                        await writer.drain()
                        sent.value += 2 * _AT_ONCE
                        await asyncio.sleep(0)

    await asyncio.gather(write("one"), write("two"))


async def flood_visitor(target: Target, sent: "Synchronized[int]") -> None:
    """A browser, and calls for the same visitor."""

    async def browse() -> None:
        while True:
            with suppress(Exception):  # disconnected, in whichever way: it comes again
                async with Browser(target.websocket, f"visitor.7.{HOSTILE}", target.host, target.password) as browser:
                    while True:
                        await browser.write(f"bob.{HOSTILE}", "flood " * 40)
                        browser.stanzas.clear()
                        sent.value += 1

    said = {"operator_username": target.jid("bob"), "message": "flood " * 40}
    await asyncio.gather(browse(), _call(target, "/xmpp-send-message", sent, **said), _view(target, 2, sent))


async def flood_lhc(target: Target, sent: "Synchronized[int]") -> None:
    """Page views, each with news, on eight connections."""
    await asyncio.gather(*(_view(target, number, sent) for number in range(8)))


async def _view(target: Target, number: int, sent: "Synchronized[int]") -> None:
    await _call(target, "/xmpp", sent, nick="Flood", status=f"page {number}")


async def _call(target: Target, endpoint: str, sent: "Synchronized[int]", **keys: Any) -> None:
    """Make the same call over and over on one connection, some at once; those that succeed count."""
    keys = {"jid": target.jid("visitor.7"), "pass": target.password, "host": "localhost", **keys}
    body = php_json({**keys, "secret_key": target.key}).encode()
    address, _, port = target.api.removeprefix("http://").partition(":")
    head = (
        f"POST /t/{HOSTILE}{endpoint} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    requests = (head.encode() + body) * _PIPELINED
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(address, int(port))
            answered = _PIPELINED
            while True:
                if answered >= _PIPELINED:
                    writer.write(requests)
                    answered -= _PIPELINED
                more = await reader.read(65536)
                if not more:
                    break
                answered += more.count(b"HTTP/1.1 ")
                sent.value += more.count(b"HTTP/1.1 200")
            writer.close()


FLOODS: dict[str, tuple[Callable[[Target, Any], Awaitable[None]], ...]] = {
    "quiet": (),
    "hostile operator": (flood_operator,),
    "hostile visitor": (flood_visitor,),
    "hostile LHC": (flood_lhc,),
    "all at once": (flood_operator, flood_visitor, flood_lhc),
    "quiet again": (),
}


def _run(flood: Callable[[Target, Any], Awaitable[None]], target: Target, sent: "Synchronized[int]") -> None:
    logging.disable()

    async def main() -> None:
        await flood(target, sent)

    asyncio.run(main())


@contextmanager
def flooding(
    floods: tuple[Callable[[Target, Any], Awaitable[None]], ...], target: Target
) -> Iterator[list["Synchronized[int]"]]:
    """The floods, in processes of their own, until the end of the block. Gives how much each has sent."""
    context = multiprocessing.get_context("spawn")
    sent: list[Synchronized[int]] = [context.Value("q", 0) for _ in floods]
    processes = [
        context.Process(target=_run, args=(flood, target, count), daemon=True)
        for flood, count in zip(floods, sent, strict=True)
    ]
    for process in processes:
        process.start()
    try:
        yield sent
    finally:
        for process in processes:
            process.kill()
            process.join()


@dataclass(frozen=True, slots=True)
class Phase:
    """What was measured beside a flood."""

    name: str
    sent: int
    ways: dict[str, Measured]
    most_kib: dict[str, int]


class Calm:
    """The calm tenant."""

    def __init__(self, lhc: Lhc, bob: Operator, receiver: Receiver) -> None:
        self._lhc, self._bob, self._receiver = lhc, bob, receiver
        self._number = 0

    async def talk(self, seconds: float) -> dict[str, list[float]]:
        """Both ways, one after another. How long each took, after some that do not count."""
        took: dict[str, list[float]] = {TO_OPERATOR: [], TO_LHC: []}
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(took[TO_LHC]) <= WARM_UP:
            self._number += 1
            body = f"calm {self._number}"
            started = time.monotonic()
            await self._lhc.visitor_writes("visitor.1", PASSWORD, "bob", body)
            took[TO_OPERATOR].append((await self._bob.reads(body, 60)).at - started)
            started = time.monotonic()
            self._bob.write(self._lhc.name("visitor.1"), body)
            took[TO_LHC].append((await self._receiver.message(body, 60)).at - started)
            await asyncio.sleep(_AN_OPERATOR_WRITES - (time.monotonic() - started))
            # what was seen is looked through for each
            self._bob.messages.clear()
            self._receiver.callbacks.clear()
        return {way: seconds[WARM_UP:] for way, seconds in took.items()}


async def run(system: System, seconds: float) -> list[Phase]:
    """Measure all phases."""
    ends = system.endpoints
    clients = (str(ends["c2s_host"]), int(ends["c2s_port"]))
    memory = Memory(system)
    phases: list[Phase] = []
    async with (
        Receiver(int(ends["callback_port"])) as receiver,
        Panel(ends["api"], ends["panel_token"]) as panel,
    ):
        tenants: dict[str, Lhc] = {}
        for name in (CALM, HOSTILE):
            created = await panel.create(name)
            base = f"{ends['api']}/t/{name}"
            tenants[name] = Lhc(name, base=base, secret_key=created["secret_key"], host=ends["xmpp_host"])
            await tenants[name].new_operator("bob", PASSWORD)
        await tenants[HOSTILE].new_operator("eve", PASSWORD)
        await tenants[CALM].new_visitor("visitor.1", PASSWORD)
        await tenants[HOSTILE].new_visitor("visitor.7", PASSWORD)
        target = Target(ends["xmpp_host"], clients, ends["websocket"], ends["api"], created["secret_key"], PASSWORD)

        let_go = asyncio.Event()

        async def hang(_callback: Callback) -> int:
            with suppress(TimeoutError):
                await asyncio.wait_for(let_go.wait(), 60)
            return 200

        receiver.behaviours[f"{HOSTILE}.localhost"] = hang
        async with Operator(tenants[CALM].name("bob"), ends["xmpp_host"], PASSWORD, clients) as bob:
            calm = Calm(tenants[CALM], bob, receiver)
            sampling = asyncio.create_task(memory.sample())
            for name, floods in FLOODS.items():
                console.print(f"{name}, {seconds:.0f} s …")
                with flooding(floods, target) as sent:
                    await until(lambda one=sent: all(count.value for count in one), "each flood is under way", 120)  # type: ignore[misc] # mypy knows no such lambda
                    memory.most.clear()
                    took = await calm.talk(seconds)
                    ways = {way: summarise(f"{name}: {way}", one) for way, one in took.items()}
                    phases.append(Phase(name, sum(count.value for count in sent), ways, dict(memory.most)))
            let_go.set()
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling
    return phases


def show(phases: list[Phase]) -> bool:
    """Print two tables. Whether all is within its bounds."""
    quiet = phases[0]
    latency = Table("", "sent", title="A calm tenant's messages, ms (p50 / p99), and p99 as a multiple of quiet")
    memory = Table("most MiB", *(phase.name for phase in phases), "bound", title="Resident memory")
    for way in quiet.ways:
        latency.add_column(way)
    within = True
    for phase in phases:
        cells = []
        for way, measured in phase.ways.items():
            times = measured.p99_ms / quiet.ways[way].p99_ms
            within &= times <= FACTOR
            cells.append(f"{measured.p50_ms} / {measured.p99_ms} ({times:.1f})")
        latency.add_row(phase.name, str(phase.sent), *cells)
    for name in PROCESSES:
        most = [phase.most_kib.get(name, 0) // 1024 for phase in phases]
        bound = most[0] + (MOST_EJABBERD if name == "ejabberd" else MOST_OTHERS)
        within &= max(most) <= bound
        memory.add_row(name, *map(str, most), str(bound))
    console.print(latency)
    console.print(memory)
    return within


def main(
    *,
    seconds: Annotated[float, typer.Option(min=5, help="Of each phase.")] = 20,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.SQLITE,
) -> None:
    """Measure a calm tenant beside a hostile one; prints two tables and writes bench/results/flood.json."""
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL)
    with own_system(broker=broker, database=database, pools=2) as system:
        phases = asyncio.run(run(system, seconds))
    within = show(phases)
    console.print(f"p99 at most {FACTOR} times quiet, and memory within its bound: {'yes' if within else 'no'}")
    keep(
        console,
        "flood",
        options={"seconds": seconds, "broker": broker.value, "database": database.value},
        within_bounds=within,
        bounds={"times_quiet": FACTOR, "mib_beyond_quiet": {"ejabberd": MOST_EJABBERD, "others": MOST_OTHERS}},
        phases=[asdict(phase) for phase in phases],
    )


if __name__ == "__main__":
    typer.run(main)
