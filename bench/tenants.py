"""How long tenants take to come and to go, and what others feel of it.

* provision: so many tenants asked for at once through the API, until the last of them is active.
* destroy: one tenant with many accounts, from the request until nothing of it is left; and while that runs, the time
  from a page view to the presence at an operator of another tenant, beside its value in quiet just before.

The accounts are made straight in ejabberd and in the registry: that is not what is measured.
Everything runs on this one machine, the clients included.
"""

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.table import Table
from sqlalchemy import func, select

from bench.lib.harness import PASSWORD, console
from bench.lib.measured import Measured, keep, summarise
from bench.lib.running import running_system
from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.waiting import until_async
from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from tenants.core.chunks import chunks
from tenants.core.naming import AccountKind, RosterKind
from tenants.core.scram import make_verifier
from tenants.ejabberd.rosters import group_of
from tenants.process.services import Services, open_services
from tenants.store.models import Account, AccountState, Tenant, TenantState

OTHER, LARGE = "bench-other", "bench-large"
_AT_ONCE = 20
_PAGE_VIEW_PAUSE = 0.05
_ACCOUNTS_AT_ONCE = 200
_DEADLINE = 600


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What was measured, in seconds and numbers per second."""

    what: str
    count: int
    seconds: float
    per_second: float


async def provision(services: Services, panel: Panel, count: int) -> list[Lifecycle]:
    """Ask for many tenants at once and wait until the last is active; then the same for their end."""
    names = [f"bench-{number}" for number in range(count)]
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(method: str, name: str) -> None:
        async with gate:
            (await panel.http.request(method, f"/v1/tenants/{name}")).raise_for_status()

    measured: list[Lifecycle] = []
    for what, method, wanted in (
        ("tenants provisioned", "PUT", TenantState.ACTIVE),
        ("empty tenants destroyed", "DELETE", TenantState.DESTROYED),
    ):
        started = time.monotonic()
        await asyncio.gather(*(ask(method, name) for name in names))
        asked = time.monotonic() - started

        async def all_done(wanted: TenantState = wanted) -> bool:
            return await _count(services, names, wanted) == count

        await until_async(all_done, f"{count} {what}", _DEADLINE)
        seconds = time.monotonic() - started
        console.print(f"{what}: all asked for after {asked:.1f} s, all done after {seconds:.1f} s")
        measured.append(_rate(what, count, seconds))
    return measured


async def _count(services: Services, names: list[str], state: TenantState) -> int:
    async with services.database.read() as session:
        return (
            await session.scalar(
                select(func.count()).select_from(Tenant).where(Tenant.instance_name.in_(names), Tenant.state == state)
            )
            or 0
        )


async def destroy(
    services: Services, panel: Panel, endpoints: dict[str, str | int], accounts: int, quiet_seconds: float
) -> tuple[Lifecycle, list[Measured]]:
    """Destroy a large tenant while the visitor of another one walks from page to page."""
    host, api = str(endpoints["xmpp_host"]), str(endpoints["api"])
    address = (str(endpoints["c2s_host"]), int(endpoints["c2s_port"]))
    await _begin_anew(panel, LARGE)
    await _fill(services, LARGE, accounts)
    key = await _begin_anew(panel, OTHER)
    lhc = Lhc(OTHER, base=f"{api}/t/{OTHER}", secret_key=key, host=host)
    await lhc.new_operator("bob", PASSWORD)
    await lhc.new_visitor("visitor.1", PASSWORD)
    visitor = lhc.name("visitor.1")
    async with Operator(lhc.name("bob"), host, PASSWORD, address) as bob:
        await bob.sees(visitor)
        samples: list[float] = []

        async def walk() -> None:
            number = 0
            while True:
                number += 1
                started = time.monotonic()
                await lhc.page_view("visitor.1", PASSWORD, status=f"page {started}")
                samples.append((await bob.sees(visitor, status=f"page {started}")).at - started)
                await asyncio.sleep(_PAGE_VIEW_PAUSE)

        async with asyncio.TaskGroup() as tasks:
            walking = tasks.create_task(walk())
            await asyncio.sleep(quiet_seconds)
            quiet, samples[:] = summarise("page view -> presence, quiet", samples), []
            started = time.monotonic()
            await panel.destroy(LARGE, seconds=_DEADLINE)
            seconds = time.monotonic() - started
            during = summarise(f"page view -> presence, while {accounts} accounts go", samples)
            walking.cancel()
    await panel.destroy(OTHER)
    return _rate("accounts destroyed with their tenant", accounts, seconds), [quiet, during]


async def _begin_anew(panel: Panel, name: str) -> str:
    if (await panel.http.get(f"/v1/tenants/{name}")).is_success:
        await panel.destroy(name)
    return str((await panel.create(name))["secret_key"])


async def _fill(services: Services, name: str, count: int) -> None:
    """Visitors as if they had come long ago: accounts, roster members and rows."""
    usernames = [f"visitor.{number}{services.naming.username_suffix(name)}" for number in range(1, count + 1)]
    verifier = await make_verifier(PASSWORD)
    with console.status(f"making {count} accounts …"):
        for chunk in chunks(usernames, _ACCOUNTS_AT_ONCE):
            await services.ejabberd.bulk.register(dict.fromkeys(chunk, verifier))
            await services.ejabberd.bulk.add_to_roster(chunk, group_of(services.naming, name, RosterKind.VISITORS))
    now = services.clock()
    async with services.database.write() as session:
        session.add_all(
            Account(
                username=username,
                instance_name=name,
                kind=AccountKind.VISITOR,
                state=AccountState.ACTIVE,
                created_at=now,
                last_active_at=now,
            )
            for username in usernames
        )


def _rate(what: str, count: int, seconds: float) -> Lifecycle:
    return Lifecycle(what, count, round(seconds, 2), round(count / seconds, 1))


async def measure(
    endpoints: dict[str, str | int], tenants: int, accounts: int, quiet_seconds: float
) -> tuple[list[Lifecycle], list[Measured]]:
    """All of it, one after another."""
    settings = Settings.load()
    async with (
        open_services(settings, celery_wake(make_celery(settings, "bench"))) as services,
        Panel(str(endpoints["api"]), str(endpoints["panel_token"])) as panel,
    ):
        lifecycles = await provision(services, panel, tenants) if tenants else []
        gone, latencies = await destroy(services, panel, endpoints, accounts, quiet_seconds)
    return [*lifecycles, gone], latencies


def main(
    tenants: Annotated[int, typer.Option(min=0, help="Tenants that come and go at once.")] = 500,
    accounts: Annotated[int, typer.Option(min=1, help="Accounts of the tenant that is destroyed.")] = 10_000,
    quiet_seconds: Annotated[float, typer.Option(min=1, help="How long the quiet value is measured.")] = 20,
) -> None:
    """Measure how tenants come and go; prints tables and writes bench/results/tenants.json."""
    with running_system(console) as endpoints:
        lifecycles, latencies = asyncio.run(measure(endpoints, tenants, accounts, quiet_seconds))
    table = Table("what", "count", "seconds", "per second", title="Tenants")
    for row in lifecycles:
        table.add_row(*(str(value) for value in asdict(row).values()))
    console.print(table)
    table = Table("way", "samples", "p50 ms", "p90 ms", "p99 ms", "max ms", title="What another tenant feels")
    for latency in latencies:
        table.add_row(*latency.cells())
    console.print(table)
    quiet, during = latencies
    console.print(f"p99 while the tenant goes: {during.p99_ms / quiet.p99_ms:.1f} times the quiet one")
    keep(
        console,
        "tenants",
        results=[asdict(row) for row in lifecycles],
        latencies=[asdict(row) for row in latencies],
        p99_ratio=round(during.p99_ms / quiet.p99_ms, 2),
    )


if __name__ == "__main__":
    typer.run(main)
