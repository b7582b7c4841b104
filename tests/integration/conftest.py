"""The running systems of the integration tests: real servers, every process as in `script/up`."""

import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import jsonschema_rs
import pytest

from bench.testbed.database import running_postgresql
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System, migrate, start_system
from orchestrator.launcher import postgresql as server
from tests.world.console import Browser, OpenBrowser
from tests.world.registry import World, emptied_world
from tests.world.settings import SETTINGS
from tests.world.tenant import NewTenant, Tenant, tenants_of
from tests.world.tenant_api import TenantApi, api_of
from tests.world.told import Told

_SCHEMA = Path(__file__).parents[2] / "docs" / "events.schema.json"


@pytest.fixture(scope="session")
def production() -> Iterator[System]:
    """A second system, on the servers of production: RabbitMQ and PostgreSQL."""
    with start_system("--broker", "rabbitmq", "--database", "postgresql", env=SETTINGS) as system:
        yield system


_addresses = itertools.count()


@pytest.fixture
async def open_browser(system: System) -> AsyncIterator[OpenBrowser]:
    """Opens the console as somebody who is not logged in."""
    async with AsyncExitStack() as stack:

        def open_one() -> Browser:
            # from an address of its own: attempts to log in are counted by address
            high, low = divmod(next(_addresses), 250)
            transport = httpx.AsyncHTTPTransport(local_address=f"127.1.{high}.{low + 1}")
            http = httpx.AsyncClient(
                base_url=system.endpoints["api"], follow_redirects=True, timeout=20, transport=transport
            )
            stack.push_async_callback(http.aclose)
            return Browser(http)

        yield open_one


@pytest.fixture
async def admin(system: System, open_browser: OpenBrowser) -> Browser:
    """An administrator at the console, by the panel token of the settings."""
    browser = open_browser()
    assert (await browser.log_in("", system.endpoints["panel_token"])).url.path == "/console/"
    return browser


@pytest.fixture
async def api(new_tenant: NewTenant) -> AsyncIterator[TenantApi]:
    async with api_of(await new_tenant(routing="orchestrator")) as made:
        yield made


@pytest.fixture
async def hooked(api: TenantApi) -> AsyncIterator[Told]:
    """Each event of the test is held to the schema in the end."""
    tenant = api.tenant
    url = f"http://{tenant.callback_host}:{tenant.receiver.port}/events"
    changed = await tenant.panel.http.put(
        f"/v1/tenants/{tenant.name}", json={"event_format": "webhook", "callback_url": url}
    )
    assert changed.json()["event_format"] == "webhook", changed.text
    told = Told(api)
    yield told
    schema = jsonschema_rs.validator_for(json.loads(_SCHEMA.read_text()))
    for one in told.all():
        schema.validate(json.loads(one.raw))


@pytest.fixture
async def production_tenant(production: System) -> AsyncIterator[Tenant]:
    """A tenant of the system on RabbitMQ and PostgreSQL."""
    endpoints = production.endpoints
    async with (
        Receiver(endpoints["callback_port"]) as receiver,
        Panel(endpoints["api"], endpoints["panel_token"]) as panel,
        tenants_of(production, receiver, panel) as make,
    ):
        yield await make()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A private PostgreSQL as the launcher runs it; gives the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="lhc-pg-"))
    store = folder / "postgresql"
    with running_postgresql(store):
        yield server.url(store)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"], scope="session")
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database: SQLite as in development, PostgreSQL as in production."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('registry')}/registry.db"
    else:
        url = request.getfixturevalue("postgresql")
    migrate(url)
    return url


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with emptied_world(database_url) as made:
        yield made
