"""How long it takes to compare many tenants with ejabberd, and to mend what differs, on one private ejabberd.

* compare: a dry run; all is as it should be, and then a share of everything is not.
* mend: the same once more, and put right; and then again, which is to find nothing.

Tenants are made straight in ejabberd and in a registry of their own (SQLite). The operations run in this process, by
the engine that the workers use.
"""

import asyncio
import logging
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from bench.lib.harness import PASSWORD, console
from bench.lib.measured import keep
from bench.testbed.chat_server import ChatServer
from bench.testbed.system import migrate
from config.settings import Settings
from tenants.core.chunks import chunks
from tenants.core.naming import AccountKind, AccountName, RosterKind
from tenants.core.scram import make_verifier
from tenants.ejabberd import rosters
from tenants.lifecycle import engine, operations
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Next
from tenants.process.services import Services, open_services
from tenants.store.models import Account, AccountState, Tenant, TenantState
from tenants.workflows import reconcile
from tenants.workflows.workflows import WORKFLOWS

_AT_ONCE = 10
_ACCOUNTS_AT_ONCE = 1000
_OLD = 1000.0
"""Seconds: older than what reconciliation leaves alone."""
_MEGABYTE = 1024
"""In the units of `ru_maxrss`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `calls`: admin commands asked of ejabberd. `peak_mb`: the most memory of this process until then."""

    what: str
    found: int
    mended: int
    seconds: float
    calls: int
    peak_mb: int


class Calls(logging.Handler):
    """Counts requests: httpx logs each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, _record: logging.LogRecord) -> None:
        """One more."""
        self.count += 1


class Bench:
    """So many tenants with as many accounts each, the first of which is an operator's."""

    def __init__(self, services: Services, tenants: int, accounts: int) -> None:
        self._services = services
        self._naming = services.naming
        self._names = [f"tenant-{number}" for number in range(tenants)]
        self._accounts = accounts
        self._calls = Calls()
        logger = logging.getLogger("httpx")
        logger.setLevel(logging.INFO)
        logger.addHandler(self._calls)
        logger.propagate = False

    async def run(self, share: float) -> list[Measured]:
        """Measure all of it; `share` of everything is spoiled."""
        with console.status("making tenants …"):
            await self._make()
        measured = [await self._reconcile("compare, nothing differs", dry_run=True)]
        with console.status("spoiling …"):
            await self._spoil(share)
        return [
            *measured,
            await self._reconcile(f"compare, {share:.0%} differ", dry_run=True),
            await self._reconcile(f"compare and mend, {share:.0%} differ", dry_run=False),
            await self._reconcile("once more", dry_run=False),
        ]

    async def _reconcile(self, what: str, *, dry_run: bool) -> Measured:
        self._calls.count = 0
        started = time.monotonic()
        operation = await reconcile.start(self._services, Cause("bench"), dry_run=dry_run)
        while await engine.advance(self._services, WORKFLOWS, operation.id) is not Next.NOTHING:
            pass
        seconds = time.monotonic() - started
        ended = await operations.get(self._services.database, operation.id)
        if ended.error or ended.result is None:
            raise RuntimeError(f"{what}: {ended.error}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MEGABYTE
        found, mended = ended.result["found"], ended.result.get("mended", 0)
        return Measured(what, found, mended, round(seconds, 2), self._calls.count, peak)

    def _usernames(self, name: str, kind: RosterKind) -> list[str]:
        if kind is RosterKind.OPERATORS:
            return [self._naming.username(AccountName(AccountKind.OPERATOR, "bob", name))]
        idents = map(str, range(1, self._accounts))
        return [self._naming.username(AccountName(AccountKind.VISITOR, ident, name)) for ident in idents]

    async def _make(self) -> None:
        waiting = iter(self._names)

        async def go_on() -> None:
            for name in waiting:
                await self._make_one(name)

        await asyncio.gather(*(go_on() for _ in range(_AT_ONCE)))
        usernames = [
            username for name in self._names for kind in RosterKind for username in self._usernames(name, kind)
        ]
        verifier = await make_verifier(PASSWORD)
        for chunk in chunks(usernames, _ACCOUNTS_AT_ONCE):
            await self._services.ejabberd.bulk.register(dict.fromkeys(chunk, verifier))
            async with self._services.database.write() as session:
                session.add_all(self._row(username) for username in chunk)

    async def _make_one(self, name: str) -> None:
        old = self._services.clock() - _OLD
        for kind in RosterKind:
            group = rosters.group_of(self._naming, name, kind)
            await self._services.ejabberd.create_roster(group, rosters.wanted(self._naming, name, kind))
            await self._services.ejabberd.bulk.add_to_roster(self._usernames(name, kind), group)
        async with self._services.database.write() as session:
            session.add(
                Tenant(
                    instance_name=name,
                    state=TenantState.ACTIVE,
                    online_seconds=300,
                    idle_hours=24,
                    created_at=old,
                    updated_at=old,
                )
            )

    def _row(self, username: str) -> Account:
        name, old = self._naming.parse_username(username), self._services.clock() - _OLD
        return Account(
            username=username,
            instance_name=name.instance,
            kind=name.kind,
            state=AccountState.ACTIVE,
            created_at=old,
            last_active_at=old,
        )

    async def _spoil(self, share: float) -> None:
        """A quarter each: accounts that went, memberships that went, accounts and members of nobody; and rosters."""
        ejabberd = self._services.ejabberd
        spoiled = max(int(len(self._names) * self._accounts * share) // 4, 1)
        step = max(len(self._names) // spoiled, 1)
        some = [self._names[number * step % len(self._names)] for number in range(spoiled)]
        await ejabberd.bulk.remove_users([f"visitor.{self._of(number)}.{name}" for number, name in enumerate(some)])
        verifier = await make_verifier(PASSWORD)
        strangers = [f"visitor.{100_000 + number}.{name}" for number, name in enumerate(some)]
        await ejabberd.bulk.register(dict.fromkeys(strangers, verifier))
        for number, name in enumerate(some):
            group = rosters.group_of(self._naming, name, RosterKind.VISITORS)
            await ejabberd.bulk.remove_from_roster([f"visitor.{self._of(number + 1)}.{name}"], group)
            await ejabberd.bulk.add_to_roster([f"visitor.{200_000 + number}.{name}"], group)
        for name in self._some(share):
            for group in (rosters.group_of(self._naming, name, kind) for kind in reversed(RosterKind)):
                await ejabberd.delete_roster(group)

    def _of(self, number: int) -> int:
        return number % (self._accounts - 1) + 1

    def _some(self, share: float) -> Sequence[str]:
        return self._names[: max(int(len(self._names) * share), 1)]


@asynccontextmanager
async def _services(state: Path, server: ChatServer) -> AsyncIterator[Services]:
    url = f"sqlite+aiosqlite:///{state / 'registry.db'}"
    await asyncio.to_thread(migrate, url)
    settings = Settings(
        _env_file=None,
        database_url=url,
        xmpp_host=server.host,
        ejabberd_api_url=server.api_url,
        ejabberd_api_secret=server.api_secret,
    )

    async def no_wake(task: str, **arguments: str | int) -> None:
        """This process advances the operations itself."""

    async with open_services(settings, no_wake) as services:
        yield services


async def measure(tenants: int, accounts: int, share: float) -> list[Measured]:
    """Measure on an ejabberd and a registry of its own."""
    state = Path(tempfile.mkdtemp(prefix="lhc-reconcile-"))
    server = ChatServer(state, {})
    try:
        await server.start()
        async with _services(state, server) as services:
            return await Bench(services, tenants, accounts).run(share)
    finally:
        await server.kill()
        shutil.rmtree(state)


def main(
    *,
    tenants: Annotated[int, typer.Option(min=1)] = 1000,
    accounts: Annotated[int, typer.Option(min=3, help="Of each tenant.")] = 20,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of accounts, and of tenants' rosters, that differ.")
    ] = 0.01,
) -> None:
    """Measure reconciliation; prints a table and writes bench/results/reconcile.json."""
    measured = asyncio.run(measure(tenants, accounts, share))
    table = Table(
        "run", "found", "mended", "seconds", "calls", "peak MB", title=f"{tenants} tenants of {accounts} accounts"
    )
    for row in measured:
        table.add_row(*(str(value) for value in asdict(row).values()))
    console.print(table)
    keep(
        console,
        "reconcile",
        options={"tenants": tenants, "accounts": accounts, "share": share},
        results=[asdict(row) for row in measured],
    )


if __name__ == "__main__":
    typer.run(main)
