"""How long a chat's messages take under load, through the tenant's own API and as webhooks.

So many tenants, each with one operator online and one chat that he owns; so many messages a second over all of them, in
turn from a visitor (a call of the API, until the operator's client has the message) and from an operator (his client
writes, until the webhook is at the tenant's receiver). The load is open: each message has its moment, whatever became
of those before, and its latency counts from that moment, so that what waits anywhere is seen. The first seconds are
left out. A message that was accepted and did not arrive is counted as lost, one that the API did not accept as refused.

Everything runs on this one machine, the clients included: they take about as much of it as the system does.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import httpx
import typer
from rich.table import Table

from bench.lib.harness import PASSWORD, console, own_system
from bench.lib.measured import FULL_SPEED, Measured, keep, summarise
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from orchestrator.launcher.local import Broker, DatabaseServer

TO_OPERATOR, TO_WEBHOOK = "visitor -> operator", "operator -> webhook"


class Only(StrEnum):
    """Which way alone."""

    OPERATOR = "operator"
    WEBHOOK = "webhook"


_WAYS = {None: (TO_OPERATOR, TO_WEBHOOK), Only.OPERATOR: (TO_OPERATOR,), Only.WEBHOOK: (TO_WEBHOOK,)}
CHAT = "1"
_SET_UP_AT_ONCE = 10
_QUIET_SECONDS = 3
_SETTLE_SECONDS = 30
"""How long the last messages may take."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A tenant's operator, and the chat that he owns."""

    http: httpx.AsyncClient
    operator: Operator
    visitor: str


class Load:
    """The conversations, what was said in them and when, and what arrived."""

    def __init__(self, conversations: list[Conversation], receiver: Receiver, ways: Sequence[str]) -> None:
        self._conversations = conversations
        self._ways = ways
        self._receiver = receiver
        self._due: dict[str, dict[str, float]] = {way: {} for way in ways}
        self._calls: set[asyncio.Task[None]] = set()
        self.refused = 0
        """Of the last rate."""

    async def talk(self, rate: float, seconds: float) -> None:
        """So many messages a second, each at its moment; returns when all have arrived, or should have."""
        await self._be_quiet()
        self._receiver.callbacks.clear()
        self.refused = 0
        for due in self._due.values():
            due.clear()
        started = time.monotonic()
        for number in range(int(rate * seconds)):
            at = started + number / rate
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            conversation = self._conversations[number // len(self._ways) % len(self._conversations)]
            way = self._ways[number % len(self._ways)]
            body = f"{way} {rate} {number}"
            self._due[way][body] = at
            if way == TO_WEBHOOK:
                conversation.operator.write(conversation.visitor, body)
            else:
                self._call(conversation, body)
        # looked for seldom: the looking takes time, which the last messages would seem to take
        for _ in range(_SETTLE_SECONDS):
            await asyncio.sleep(1)
            if all(due.keys() <= self._arrived(way).keys() for way, due in self._due.items()):
                return

    async def _be_quiet(self) -> None:
        """Wait until nothing more comes of what was done before."""
        seen = -1
        while seen != len(self._receiver.callbacks):
            seen = len(self._receiver.callbacks)
            await asyncio.sleep(_QUIET_SECONDS)

    def latencies(self, way: str, skip: float) -> tuple[list[float], int]:
        """Of the messages after the first `skip` seconds; and how many of all are lost."""
        due, arrived = self._due[way], self._arrived(way)
        first = min(due.values()) + skip
        return [arrived[body] - at for body, at in due.items() if at >= first and body in arrived], len(
            due.keys() - arrived.keys()
        )

    def _call(self, conversation: Conversation, body: str) -> None:
        async def call() -> None:
            try:
                answer = await conversation.http.post(f"/chats/{CHAT}/messages", json={"message": body})
                answer.raise_for_status()
            except httpx.HTTPError:
                self.refused += 1
                self._due[TO_OPERATOR].pop(body, None)

        task = asyncio.create_task(call())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def _arrived(self, way: str) -> dict[str, float]:
        """When each message was there."""
        if way == TO_OPERATOR:
            return {seen.body: seen.at for one in self._conversations for seen in reversed(one.operator.messages)}
        events = ((json.loads(one.raw), one.at) for one in reversed(self._receiver.callbacks))
        return {event["data"]["message"]: at for event, at in events if event["type"] == "message.created"}


@asynccontextmanager
async def conversations(endpoints: dict[str, str | int], panel: Panel, count: int) -> AsyncIterator[list[Conversation]]:
    """New tenants with their chats, on a system that is thrown away."""
    gate = asyncio.Semaphore(_SET_UP_AT_ONCE)
    names = [f"bench-chats-{number}" for number in range(count)]
    async with AsyncExitStack() as stack:

        async def begin(name: str) -> Conversation:
            async with gate:
                return await _begin(endpoints, panel, name, stack)

        with console.status(f"{count} tenants come …"):
            talking = await asyncio.gather(*map(begin, names))
        yield talking


async def _begin(endpoints: dict[str, str | int], panel: Panel, name: str, stack: AsyncExitStack) -> Conversation:
    host, api = str(endpoints["xmpp_host"]), str(endpoints["api"])
    events = f"http://127.0.0.1:{endpoints['callback_port']}/{name}"
    await panel.create(name, routing="orchestrator", event_format="webhook", callback_url=events)
    token = await panel.http.post("/v1/tokens", json={"name": "bench", "scope": "tenant", "instance_name": name})
    http = await stack.enter_async_context(
        httpx.AsyncClient(
            base_url=f"{api}/v1/tenants/{name}",
            headers={"Authorization": f"Bearer {token.json()['token']}"},
            timeout=_SETTLE_SECONDS,
        )
    )
    (await http.put("/operators/bob", json={"password": PASSWORD})).raise_for_status()
    address = str(endpoints["c2s_host"]), int(endpoints["c2s_port"])
    operator = await stack.enter_async_context(Operator(f"bob.{name}", host, PASSWORD, address))
    chat = await http.post("/chats", json={"chat_id": CHAT, "message": "hello?"})
    await operator.reads("hello?", seconds=60)
    (await http.put(f"/chats/{CHAT}/owner", json={"operator": "bob"})).raise_for_status()
    return Conversation(http, operator, chat.json()["username"])


async def run(
    endpoints: dict[str, str | int], tenants: int, rates: list[float], seconds: float, ways: Sequence[str]
) -> list[tuple[float, Measured, int]]:
    """Measure these ways at each rate. Returns the rate, the latencies, and how many messages were lost."""
    measured: list[tuple[float, Measured, int]] = []
    async with (
        Receiver(int(endpoints["callback_port"])) as receiver,
        Panel(str(endpoints["api"]), str(endpoints["panel_token"])) as panel,
        conversations(endpoints, panel, tenants) as talking,
    ):
        load = Load(talking, receiver, ways)
        for rate in rates:
            with console.status(f"{rate:.0f} messages per second, {seconds:.0f} s …"):
                await load.talk(rate, seconds)
            for way in ways:
                latencies, lost = load.latencies(way, seconds / 5)
                measured.append((rate, summarise(way, latencies), lost))
            if load.refused:
                console.print(f"[red]{rate:.0f}/s: {load.refused} calls were refused[/]")
    return measured


def main(
    *,
    tenants: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    rate: Annotated[list[float] | None, typer.Option(help="Messages per second, of all; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(min=5, help="Of each rate; the first fifth is left out.")] = 30,
    only: Annotated[Only | None, typer.Option(help="Messages of one way alone, not in turn.")] = None,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.POSTGRESQL,
) -> None:
    """Measure chats under load; prints a table and writes bench/results/chats.json."""
    with own_system(broker=broker, database=database, env=FULL_SPEED) as system:
        measured = asyncio.run(run(system.endpoints, tenants, rate or [50, 100, 200], seconds, _WAYS[only]))
    table = Table("rate", "way", "samples", "p50 ms", "p90 ms", "p99 ms", "max ms", "lost", title=f"{tenants} tenants")
    for at_rate, row, lost in measured:
        table.add_row(f"{at_rate:.0f}/s", *row.cells(), str(lost))
    console.print(table)
    keep(
        console,
        "chats",
        file=f"chats-{only}" if only else None,
        options={
            "tenants": tenants,
            "seconds": seconds,
            "only": only,
            "broker": broker.value,
            "database": database.value,
        },
        results=[{"rate": at_rate, **asdict(row), "lost": lost} for at_rate, row, lost in measured],
    )


if __name__ == "__main__":
    typer.run(main)
