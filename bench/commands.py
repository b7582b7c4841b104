"""How many commands a second one pool process carries out: from the shard queue to an operator's client.

Commands are handed to the broker many at once, without the API and the database before it, so that the pool process
and ejabberd are the limit, and they share this machine. Beside it, in the same run, the same stanzas through a bare
component stream, which does nothing else: what ejabberd and the machine can do at most.

* presence: page views in turn of some visitors, each with a new status; over when the operator's client has it.
* message: from visitors in turn, with the protection against loss and repetition.

Then at a steady rate, for latencies.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table

from bench.lib import processor_time
from bench.lib.component import Component
from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.http_load import STAMP
from bench.lib.measured import FULL_SPEED, Measured, keep, summarise
from bench.lib.watching import MARK, Login, Watcher, watching
from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System, domain_of
from orchestrator.launcher.local import Broker
from tenants.core.chunks import chunks
from tenants.process.services import Services
from tenants.shards.commands import AnyCommand, SendMessage, ShowVisitor
from xmpp_pool import stanzas

INSTANCE = "bench-commands"
OPERATOR = f"bob.{INSTANCE}"
_AT_ONCE = 200
_ONLINE_SECONDS = 3600.0
_SECONDS_OF_STEADY = 10.0


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; processor time in milliseconds per command, of the pool process and of ejabberd."""

    name: str
    per_second: float
    latency: Measured
    lost: int
    pool_ms: float
    ejabberd_ms: float


class Bench:
    """What is measured, on one running system."""

    def __init__(self, system: System, services: Services, watcher: Watcher, visitors: int) -> None:
        self._system = system
        self._services = services
        self._watcher = watcher
        self._host = str(system.endpoints["xmpp_host"])
        self._visitors = itertools.cycle([f"visitor.{number}.{INSTANCE}" for number in range(1, visitors + 1)])
        self._versions = itertools.count(1)
        self._messages = itertools.count(1)

    async def as_many_as_go(self, name: str, send: Callable[[int], Awaitable[None]], count: int) -> Row:
        """All of them at once."""

        async def all_at_once() -> None:
            for some in chunks(range(count), _AT_ONCE):
                await send(len(some))

        return await self._measure(name, all_at_once, count)

    async def steady(self, name: str, send: Callable[[int], Awaitable[None]], rate: float) -> Row:
        """One by one, each at its moment."""
        count = int(rate * _SECONDS_OF_STEADY)

        async def one_by_one() -> None:
            started = time.monotonic()
            for number in range(count):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                await send(1)

        return await self._measure(f"{name}, at {rate:.0f}/s", one_by_one, count)

    async def page_views(self, count: int) -> None:
        """That many commands, to the shard."""
        await self._services.commands.publish(*itertools.islice(self._shows(), count))

    async def visitors_write(self, count: int) -> None:
        """That many commands, to the shard."""
        await self._services.commands.publish(*itertools.islice(self._sends(), count))

    def presences_of(self, component: Component) -> Callable[[int], Awaitable[None]]:
        """The same presence, straight into a stream."""

        async def send(count: int) -> None:
            for show in itertools.islice(self._shows(), count):
                payload = stanzas.available_payload(show.nick, show.status)
                sender = f"{show.username}@{self._host}/lhc"
                component.write(stanzas.available(sender, f"{OPERATOR}@{self._host}", payload))
            await component.taken()

        return send

    async def _measure(self, name: str, work: Callable[[], Awaitable[None]], count: int) -> Row:
        before = processor_time.taken(self._system)
        self._watcher.expect(count)
        await work()
        seen = await asyncio.to_thread(self._watcher.seen)
        cost = {name: seconds / count * 1000 for name, seconds in processor_time.since(before, self._system).items()}
        came = len(seen.latencies)
        per_second = came / (seen.last_arrival - seen.first_call)
        row = Row(
            name,
            round(per_second),
            summarise(name, seen.latencies),
            count - came,
            round(cost["pool-0"], 4),
            round(cost["ejabberd"], 4),
        )
        console.print(row)
        return row

    def _shows(self) -> Iterator[ShowVisitor]:
        while True:
            yield ShowVisitor(
                instance_name=INSTANCE,
                username=next(self._visitors),
                nick="Online visitor",
                status=_marked("Page: "),
                online_until=time.time() + _ONLINE_SECONDS,
                version=next(self._versions),
            )

    def _sends(self) -> Iterator[AnyCommand]:
        while True:
            yield SendMessage(
                instance_name=INSTANCE,
                username=next(self._visitors),
                operator=OPERATOR,
                body=_marked(""),
                message_id=f"bench-{next(self._messages)}",
            )


def _marked(text: str) -> str:
    return text + MARK.replace(STAMP, f"{time.monotonic():0{len(STAMP)}.6f}")


async def measure(system: System, watcher: Watcher, count: int, visitors: int, rates: tuple[float, float]) -> list[Row]:
    """All of it, one after another."""
    host = str(system.endpoints["xmpp_host"])
    async with domain_of(system) as services:
        bench = Bench(system, services, watcher, visitors)
        settings = services.settings
        secret = settings.component_secret.get_secret_value()
        async with Component(settings.component_jid, secret, settings.component_port, host) as component:
            rows = [await bench.as_many_as_go("bare stream", bench.presences_of(component), count)]
        return [
            *rows,
            await bench.as_many_as_go("presence", bench.page_views, count),
            await bench.steady("presence", bench.page_views, rates[0]),
            await bench.as_many_as_go("message", bench.visitors_write, count),
            await bench.steady("message", bench.visitors_write, rates[1]),
        ]


async def set_up(system: System) -> None:
    """A tenant with an operator."""
    endpoints = system.endpoints
    async with Panel(endpoints["api"], endpoints["panel_token"]) as panel:
        created = await panel.create(INSTANCE)
    base = f"{endpoints['api']}/t/{INSTANCE}"
    lhc = Lhc(INSTANCE, base=base, secret_key=created["secret_key"], host=endpoints["xmpp_host"])
    await lhc.new_operator("bob", PASSWORD)


def main(
    count: Annotated[int, typer.Option(min=100, help="Commands of each measurement.")] = 20_000,
    visitors: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    rate_of_views: Annotated[float, typer.Option(help="Page views a second, for latencies.")] = 500,
    rate_of_messages: Annotated[float, typer.Option(help="Messages a second, for latencies.")] = 200,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
) -> None:
    """Measure commands through one pool process; prints a table and writes bench/results/commands.json."""
    with own_system(broker=broker, pools=1, env=FULL_SPEED) as system:
        asyncio.run(set_up(system))
        endpoints = system.endpoints
        login = Login(OPERATOR, str(endpoints["xmpp_host"]), PASSWORD, int(endpoints["c2s_port"]))
        with watching(login) as watcher, console.status("Measuring …"):
            rows = asyncio.run(measure(system, watcher, count, visitors, (rate_of_views, rate_of_messages)))
    table = Table("what", "per second", "p50 ms", "p99 ms", "max ms", "lost", "pool, ms each", "ejabberd, ms each")
    for row in rows:
        latency = row.latency
        table.add_row(
            *(row.name, str(row.per_second), str(latency.p50_ms), str(latency.p99_ms), str(latency.max_ms)),
            *(str(row.lost), str(row.pool_ms), str(row.ejabberd_ms)),
        )
    console.print(table)
    keep(
        console,
        "commands",
        options={"count": count, "visitors": visitors, "broker": broker.value},
        results=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    typer.run(main)
