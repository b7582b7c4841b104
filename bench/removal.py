"""How fast accounts go and come, beside the limit of ejabberd's own admin commands, on one private ejabberd.

* limit: one account to a call, through the lightest client there can be: sockets that stay open, ten at once.
* ours: the commands of the bridge module, through the client that the workflows use.
* one by one: what the workflows did before, through httpx, ten at once.

An account is a visitor of a tenant with both rosters. The ways take turns, each with accounts of its own.
"""

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import httpx
import typer
from rich.table import Table

from bench.lib.harness import PASSWORD, console
from bench.lib.measured import keep
from bench.testbed.chat_server import ChatServer
from orchestrator.launcher.local import LISTEN_IP
from tenants.core import scram
from tenants.core.chunks import chunks
from tenants.ejabberd.admin_api import call_headers
from tenants.ejabberd.bulk import BATCH, Kind

LIMIT, OURS, ONE_BY_ONE = "limit", "ours", "one by one (httpx)"
AT_ONCE = 10
"""Calls under way, where one call is for one account."""
BATCHES_AT_ONCE = 2
Thing = TypeVar("Thing")
Call = Callable[..., Awaitable[Any]]
"""An admin command by its name and arguments."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Accounts per second of one way: the median of its rounds, and each of them."""

    what: str
    way: str
    per_second: int
    of_limit: float
    rounds: tuple[int, ...]


class Bench:
    """Both things that are measured, each in its ways.

    Args:
        operators: members of the operators' roster who are not logged in. Already the first makes ejabberd's own
            commands compute their whole roster for each visitor.
        tenants: others on the same host. ejabberd looks through all shared rosters for each account.
    """

    def __init__(self, server: ChatServer, accounts: int, operators: int, tenants: int) -> None:
        self._server = server
        self._accounts = accounts
        self._operators = operators
        self._tenants = tenants
        self._ejabberd = server.client()
        self._seconds: dict[tuple[str, str], list[float]] = {}
        self._number = 0

    async def run(self, rounds: int) -> None:
        """Measure the ways `rounds` times in turn; the old one, which takes minutes, once."""
        with console.status("other tenants …"):
            await _at_once(AT_ONCE, [f"other-{number}" for number in range(self._tenants)], self._make_rosters)
        for number in range(rounds):
            with console.status(f"round {number + 1} of {rounds} …"):
                await self._measure("removal", LIMIT, self._remove_at_the_limit)
                await self._measure("removal", OURS, self._remove)
                await self._measure("registration", LIMIT, self._register_at_the_limit, prepared=False)
                await self._measure("registration", OURS, self._register, prepared=False)
        with console.status("one by one …"):
            await self._measure("removal", ONE_BY_ONE, self._remove_one_by_one)
        await self._ejabberd.close()

    def results(self) -> list[Measured]:
        """Of each way, beside the limit of its kind."""
        rates = {key: [self._accounts / seconds for seconds in all_] for key, all_ in self._seconds.items()}
        return [
            Measured(
                what=what,
                way=way,
                per_second=round(statistics.median(rounds)),
                of_limit=round(statistics.median(rounds) / statistics.median(rates[what, LIMIT]), 2),
                rounds=tuple(map(round, rounds)),
            )
            for (what, way), rounds in rates.items()
        ]

    async def _measure(
        self, what: str, way: str, work: Callable[[str, list[str]], Awaitable[None]], *, prepared: bool = True
    ) -> None:
        """Time the work with a tenant of its own, whose accounts are there or are to be made."""
        self._number += 1
        tenant = f"{what}-{self._number}"
        users = [f"visitor.{number}.{tenant}" for number in range(1, self._accounts + 1)]
        await self._make_rosters(tenant)
        if prepared:
            await self._register(tenant, users)
            await self._ejabberd.bulk.add_to_roster(users, f"visitors.{tenant}")
        started = time.monotonic()
        await work(tenant, users)
        self._seconds.setdefault((what, way), []).append(time.monotonic() - started)
        left = await self._ejabberd.bulk.tenant_left(f".{tenant}", [])
        of_visitors = left[Kind.ACCOUNTS].count - self._operators if Kind.ACCOUNTS in left else 0
        expected = 0 if prepared else self._accounts
        if of_visitors != expected:
            raise RuntimeError(f"{what}, {way}: {of_visitors} accounts are there, not {expected}")
        await self._ejabberd.bulk.remove_users(await self._ejabberd.bulk.usernames(f".{tenant}"))
        for group in (f"operators.{tenant}", f"visitors.{tenant}"):
            await self._ejabberd.delete_roster(group)

    async def _make_rosters(self, tenant: str) -> None:
        visitors, operators = f"visitors.{tenant}", f"operators.{tenant}"
        await self._server.make_roster(visitors)
        await self._server.make_roster(operators, operators, visitors)
        names = [f"operator-{number}.{tenant}" for number in range(self._operators)]
        await self._register(tenant, names)
        await self._ejabberd.bulk.add_to_roster(names, operators)

    async def _remove_at_the_limit(self, tenant: str, users: list[str]) -> None:
        async with light_clients(self._server) as call:
            await self._each(users, lambda user: self._del_and_unregister(call, tenant, user))

    async def _del_and_unregister(self, call: Call, tenant: str, user: str) -> None:
        host = self._server.host
        await call("srg_user_del", user=user, host=host, group=f"visitors.{tenant}", grouphost=host)
        await call("unregister", user=user, host=host)

    async def _remove(self, _tenant: str, users: list[str]) -> None:
        await _at_once(BATCHES_AT_ONCE, list(chunks(users, BATCH)), self._remove_batch)

    async def _remove_batch(self, users: Sequence[str]) -> None:
        left = await self._ejabberd.bulk.remove_users(users)
        if left:
            raise RuntimeError(f"left: {left}")

    async def _remove_one_by_one(self, tenant: str, users: list[str]) -> None:
        host = self._server.host
        headers = call_headers(host, self._server.api_secret)
        async with httpx.AsyncClient(base_url=self._server.api_url, headers=headers, timeout=10) as http:

            async def remove(user: str) -> None:
                for kind in ("visitors", "operators"):
                    group = f"{kind}.{tenant}"
                    await http.post(
                        "srg_user_del", json={"user": user, "host": host, "group": group, "grouphost": host}
                    )
                await http.post("unregister", json={"user": user, "host": host})
                await http.post("check_account", json={"user": user, "host": host})

            await self._each(users, remove)

    async def _register_at_the_limit(self, _tenant: str, users: list[str]) -> None:
        async with light_clients(self._server) as call:
            await self._each(users, lambda user: call("register", user=user, host=self._server.host, password=PASSWORD))

    async def _register(self, _tenant: str, users: list[str]) -> None:
        await _at_once(BATCHES_AT_ONCE, list(chunks(users, BATCH)), self._register_batch)

    async def _register_batch(self, users: Sequence[str]) -> None:
        verifiers = await asyncio.gather(*(scram.make_verifier(PASSWORD) for _ in users))
        await self._ejabberd.bulk.register(dict(zip(users, verifiers, strict=True)))

    async def _each(self, users: Sequence[str], work: Callable[[str], Awaitable[Any]]) -> None:
        await _at_once(AT_ONCE, users, work)


async def _at_once(count: int, things: Sequence[Thing], work: Callable[[Thing], Awaitable[Any]]) -> None:
    """Do the work for each thing, `count` at a time."""
    waiting = iter(things)

    async def go_on() -> None:
        for thing in waiting:
            await work(thing)

    await asyncio.gather(*(go_on() for _ in range(count)))


@asynccontextmanager
async def light_clients(server: ChatServer) -> AsyncIterator[Call]:
    """HTTP as cheap as can be: connections that stay open, requests without a header too many."""
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    named = call_headers(server.host, server.api_secret) | {"Content-Type": "application/json"}
    headers = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    for _ in range(AT_ONCE):
        free.put_nowait(await asyncio.open_connection(LISTEN_IP, server.ports["ejabberd_api"]))

    async def call(command: str, **arguments: str) -> None:
        body = json.dumps(arguments).encode()
        head = f"POST /api/{command} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        reader, writer = connection = await free.get()
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{command}: {answer!r}")
        length = answer.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
        free.put_nowait(connection)

    yield call
    while not free.empty():
        free.get_nowait()[1].close()


async def measure(accounts: int, operators: int, tenants: int, rounds: int) -> list[Measured]:
    """Measure on an ejabberd of its own."""
    state = Path(tempfile.mkdtemp(prefix="lhc-removal-"))
    server = ChatServer(state, {})
    try:
        await server.start()
        bench = Bench(server, accounts, operators, tenants)
        await bench.run(rounds)
        return bench.results()
    finally:
        await server.kill()
        shutil.rmtree(state)


def main(
    *,
    accounts: Annotated[int, typer.Option(min=100, help="Of each way, in each round.")] = 2000,
    operators: Annotated[int, typer.Option(min=0, help="Of each tenant, not logged in.")] = 0,
    tenants: Annotated[int, typer.Option(min=0, help="Others on the host.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, max=20)] = 3,
) -> None:
    """Measure removal and registration; prints a table and writes bench/results/removal.json."""
    measured = asyncio.run(measure(accounts, operators, tenants, rounds))
    table = Table("", "way", "accounts/s", "of the limit", "rounds", title=f"{accounts} accounts each")
    for row in measured:
        table.add_row(row.what, row.way, str(row.per_second), f"{row.of_limit:.0%}", ", ".join(map(str, row.rounds)))
    console.print(table)
    keep(
        console,
        "removal",
        options={"accounts": accounts, "operators": operators, "tenants": tenants, "rounds": rounds},
        results=[asdict(row) for row in measured],
    )


if __name__ == "__main__":
    typer.run(main)
