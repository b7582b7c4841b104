"""How long the pages of the web console take with a thousand tenants and fifty thousand accounts.

The registry is filled by rows written straight into the database: to have ejabberd make the accounts would take half an
hour, and a page reads the registry. Of operators the page of a tenant asks ejabberd as well, which looks for their
sessions and finds none. Nothing that was seeded is due, so nobody works on it meanwhile.

Every page and each part that a page fetches again is fetched in turn, round by round, as an administrator's browser
does it. `/healthz`, in the same rounds, says what a call costs that does nothing.
"""

import asyncio
import re
import time
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Annotated

import httpx
import typer
from rich.table import Table

from bench.lib.console_rows import LARGE, Size, fill
from bench.lib.harness import console, own_system
from bench.lib.measured import Measured, keep, summarise
from bench.testbed.system import System
from orchestrator.launcher.local import Broker, DatabaseServer

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Page:
    """What is fetched; with a form it is sent, which is how a table is exported."""

    name: str
    path: str
    form: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One page: its first time, when the process had never made one, and all the others; its size uncompressed."""

    name: str
    first_ms: float
    latency: Measured
    kilobytes: float


def pages(operation_id: str, delivery_id: str, tenants: int) -> list[Page]:
    """All of the console, and `/healthz`."""
    last = tenants // 25
    return [
        Page("healthz", "/healthz"),
        Page("overview", "/console/"),
        Page("overview, live part", "/console/live/overview"),
        Page("tenants", "/console/tenants/list"),
        Page("tenants, 50 to a page", "/console/tenants/list?page_size=50"),
        Page("tenants, last page", f"/console/tenants/list?page={last}"),
        Page("tenants, searched", "/console/tenants/list?q=shop-07"),
        Page("tenants, by state", "/console/tenants/list?filter=state__eq=suspended"),
        Page("tenants, newest first", "/console/tenants/list?sort=created_at__desc"),
        Page("the large tenant", f"/console/tenants/detail?pk={LARGE}"),
        Page("the large tenant, live part", f"/console/tenant/{LARGE}/live"),
        Page("a tenant like the others", "/console/tenants/detail?pk=shop-0500"),
        Page("a tenant, its form", f"/console/tenants/edit?pk={LARGE}"),
        Page("a new tenant, its form", "/console/tenants/create"),
        Page("operations", "/console/operations/list"),
        Page("operations, last page", f"/console/operations/list?page={3 * tenants // 25}"),
        Page("operations, searched", "/console/operations/list?q=shop-07"),
        Page("operations, failed", "/console/operations/list?filter=state__eq=failed"),
        Page("an operation", f"/console/operations/detail?pk={operation_id}"),
        Page("an operation, live part", f"/console/operation/{operation_id}/live"),
        Page("deliveries", "/console/deliveries/list"),
        Page("deliveries, searched", "/console/deliveries/list?q=shop-07"),
        Page("deliveries, dead", "/console/deliveries/list?filter=state__eq=dead"),
        Page("deliveries, newest first", "/console/deliveries/list?sort=id__desc"),
        Page("a delivery", f"/console/deliveries/detail?pk={delivery_id}"),
        Page("audit log", "/console/audit/list"),
        Page("audit log, 50 to a page", "/console/audit/list?page_size=50"),
        Page("audit log, page 400", "/console/audit/list?page=400"),
        Page("audit log, searched", f"/console/audit/list?q={LARGE}"),
        Page("audit log, nothing found", "/console/audit/list?q=nobody-did-this"),
        Page("people", "/console/users/list"),
        Page("a person, the form", "/console/users/edit?pk=person-07"),
        Page("a new person, the form", "/console/users/create"),
        Page("export of a page", "/console/_api/audit/action?name=export", {"format": "csv", "scope": "page"}),
        Page("export of all tenants", _export("tenants"), {"format": "csv", "scope": "selected"}),
    ]


def _export(key: str) -> str:
    return f"/console/_api/{key}/action?name=export&all=1"


async def log_in(http: httpx.AsyncClient, token: str) -> None:
    """Log in as the panel's token does, which is an administrator's."""
    await http.get("/console/login")
    form = {"csrftoken": http.cookies["starlette_admin_csrftoken"], "username": "", "password": token}
    answer = await http.post("/console/login", data=form)
    if answer.url.path != "/console/":
        raise RuntimeError(f"the console did not let us in: {answer.status_code}")


async def fetch(http: httpx.AsyncClient, page: Page) -> tuple[float, int]:
    """Fetch it. Returns seconds until all of it was here, and bytes.

    Raises:
        RuntimeError: it is not the page.
    """
    began = time.perf_counter()
    if page.form is None:
        answer = await http.get(page.path)
    else:
        headers = {"X-CSRFToken": http.cookies["starlette_admin_csrftoken"]}
        answer = await http.post(page.path, data=page.form, headers=headers)
    seconds = time.perf_counter() - began
    if answer.status_code != HTTPStatus.OK or answer.history:
        raise RuntimeError(f"{page.name}: {answer.status_code} of {answer.url}")
    return seconds, len(answer.content)


async def measure(system: System, size: Size, rounds: int) -> list[Row]:
    """Fetch every page that often."""
    base = str(system.endpoints["api"])
    async with httpx.AsyncClient(base_url=base, follow_redirects=True, timeout=_SECONDS) as http:
        await log_in(http, str(system.endpoints["panel_token"]))
        operation_id = await _first_of(http, "operations")
        wanted = pages(operation_id, await _first_of(http, "deliveries"), size.tenants)
        taken: dict[str, list[float]] = {page.name: [] for page in wanted}
        sizes: dict[str, int] = {}
        for _ in range(rounds + 1):
            for page in wanted:
                seconds, sizes[page.name] = await fetch(http, page)
                taken[page.name].append(seconds)
    return [
        Row(name, round(seconds[0] * 1000, 2), summarise(name, seconds[1:]), round(sizes[name] / 1000, 1))
        for name, seconds in taken.items()
    ]


async def _first_of(http: httpx.AsyncClient, key: str) -> str:
    """The first row of a table, as its page links to it."""
    text = (await http.get(f"/console/{key}/list")).text
    found = re.search(rf"/{key}/detail\?pk=([\w-]+)", text)
    if found is None:
        raise RuntimeError(f"{key}: no row was found")
    return found[1]


def main(
    *,
    tenants: Annotated[int, typer.Option(min=100)] = 1_000,
    accounts: Annotated[int, typer.Option(min=1_000, help="Of all tenants; a fifth of them are the large one's.")] = (
        50_000
    ),
    audit_entries: Annotated[int, typer.Option(min=1_000)] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each page is fetched, beside the first time.")] = 20,
    broker: Annotated[Broker, typer.Option()] = Broker.REDIS,
    database: Annotated[DatabaseServer, typer.Option()] = DatabaseServer.POSTGRESQL,
) -> None:
    """Measure the pages of the console; prints a table and writes bench/results/console.json."""
    size = Size(tenants, accounts, audit_entries)
    with own_system(broker=broker, database=database) as system:
        with console.status(f"{tenants} tenants come …"):
            asyncio.run(fill(str(system.endpoints["database_url"]), size))
        with console.status("Measuring …"):
            rows = asyncio.run(measure(system, size, rounds))
    table = Table("page", "first, ms", "p50 ms", "max ms", "KB", title=f"{tenants} tenants, {accounts} accounts")
    for row in rows:
        table.add_row(
            *(row.name, str(row.first_ms), str(row.latency.p50_ms), str(row.latency.max_ms), str(row.kilobytes))
        )
    console.print(table)
    keep(
        console,
        "console",
        options={**asdict(size), "rounds": rounds, "broker": broker.value, "database": database.value},
        results=[asdict(row) for row in rows],
    )


if __name__ == "__main__":
    typer.run(main)
