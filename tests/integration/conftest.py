"""The running systems of the integration tests: real servers, every process as in `script/up`."""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.launcher import postgresql as server
from tests.conftest import SETTINGS
from tests.world.console import Browser
from tests.world.lhc import Lhc
from tests.world.operator import Operator
from tests.world.panel import Panel
from tests.world.receiver import Receiver
from tests.world.registry import World, emptied_world, migrate
from tests.world.rpc import Encode, Rpc, library_request
from tests.world.system import System, start_system
from tests.world.waiting import until_async


@pytest.fixture(scope="session")
def production() -> Iterator[System]:
    """A second system, on the servers of production: RabbitMQ and PostgreSQL."""
    with start_system("--broker", "rabbitmq", "--database", "postgresql", env=SETTINGS) as system:
        yield system


class Tenant:
    """A tenant of its own for one test: its LHC with its own key, and operators that log in."""

    def __init__(self, system: System, receiver: Receiver, panel: Panel, created: dict[str, Any]) -> None:
        self.name: str = created["instance_name"]
        self.key: str = created["secret_key"]
        self.system = system
        self.receiver = receiver
        self.panel = panel
        self.callback_host = f"{self.name.replace('-', '.')}.localhost"
        endpoints = system.endpoints
        self.host: str = endpoints["xmpp_host"]
        self.lhc_url = f"{endpoints['api']}/t/{self.name}"
        self.lhc = Lhc(self.name, base=self.lhc_url, secret_key=self.key, host=self.host)
        self._stack = AsyncExitStack()

    def operator(self, local: str, *, resource: str = "desk", password: str = "operator-pw") -> Operator:
        """A client of an operator, not yet logged in."""
        address = (self.system.endpoints["c2s_host"], self.system.endpoints["c2s_port"])
        return Operator(self.lhc.name(local), self.host, password, address, resource)

    async def online(self, local: str, *, resource: str = "desk") -> Operator:
        """An operator who is logged in and available; logged out at the end of the test."""
        operator = self.operator(local, resource=resource)
        await self._stack.enter_async_context(operator)
        return operator

    async def operator_online(self, local: str = "bob", *, resource: str = "desk") -> Operator:
        """A new operator account, logged in, and known to be online."""
        await self.lhc.new_operator(local, "operator-pw")
        operator = await self.online(local, resource=resource)
        await self.receiver.status(self.connect_body(local))
        return operator

    def connect_body(self, local: str, action: str = "connect") -> str:
        return f'{{"action":"{action}","user":"{self.lhc.name(local)}","server":"{self.host}"}}'

    async def close(self) -> None:
        await self._stack.aclose()


def rpc_of(tenant: Tenant, encode: Encode = library_request) -> Rpc:
    """XML-RPC with the tenant's own credentials, at its own address."""
    return Rpc(f"{tenant.lhc_url}/rpc", tenant.name, tenant.host, tenant.key, encode)


OPERATOR_PASSWORD = "operator-pw"


class TenantApi:
    """The tenant's API with the tenant's own token."""

    def __init__(self, tenant: Tenant, token: str) -> None:
        self.tenant = tenant
        self.token = token
        base = f"{tenant.system.endpoints['api']}/v1/tenants/{tenant.name}"
        self.http = httpx.AsyncClient(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    async def operator(self, username: str, **wanted: Any) -> Operator:
        """A new operator, logged in, whom the orchestrator knows to be online."""
        made = await self.http.put(f"/operators/{username}", json={"password": OPERATOR_PASSWORD, **wanted})
        assert made.status_code == 201, made.text
        return await self.login(username)

    async def login(self, username: str) -> Operator:
        operator = await self.tenant.online(username)
        await until_async(lambda: self._is_told(username), f"{username} is known to be online")
        return operator

    async def _is_told(self, username: str) -> bool:
        return any(
            f'"connect","user":"{self.tenant.lhc.name(username)}"' in callback.raw.decode()
            for callback in self.tenant.receiver.callbacks
            if callback.host == self.tenant.callback_host
        )

    async def chat(self, chat_id: str, **wanted: Any) -> dict[str, Any]:
        answer = await self.http.post("/chats", json={"chat_id": chat_id, "nick": f"John #{chat_id}", **wanted})
        assert answer.status_code in {200, 201}, answer.text
        return dict(answer.json())

    async def write(self, chat_id: str, message: str, **wanted: Any) -> dict[str, Any]:
        answer = await self.http.post(f"/chats/{chat_id}/messages", json={"message": message, **wanted})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def owner(self, chat_id: str) -> str | None:
        return (await self.http.get(f"/chats/{chat_id}")).json()["owner"]  # type: ignore[no-any-return]


@asynccontextmanager
async def api_of(tenant: Tenant) -> AsyncIterator[TenantApi]:
    """The tenant's API, opened by a token made for it."""
    token = await tenant.panel.http.post(
        "/v1/tokens", json={"name": "lhc", "scope": "tenant", "instance_name": tenant.name}
    )
    made = TenantApi(tenant, token.json()["token"])
    yield made
    await made.http.aclose()


NewTenant = Callable[..., Awaitable[Tenant]]
_numbers = itertools.count(1)


@asynccontextmanager
async def tenants_of(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[NewTenant]:
    """Makes tenants with names of their own; their operators are logged out at the end."""
    tenants: list[Tenant] = []

    async def make(**wanted: Any) -> Tenant:
        created = await panel.create(f"t{next(_numbers)}-{os.getpid()}", **wanted)
        tenants.append(Tenant(system, receiver, panel, created))
        return tenants[-1]

    yield make
    await asyncio.gather(*(tenant.close() for tenant in tenants))


@pytest.fixture
async def new_tenant(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[NewTenant]:
    async with tenants_of(system, receiver, panel) as make:
        yield make


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> Tenant:
    return await new_tenant()


OpenBrowser = Callable[[], Browser]
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
    server.create(store)
    process = subprocess.Popen(
        server.command(store), user=int(server.user()), cwd=store, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not server.answers(store):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield server.url(store)
    process.send_signal(signal.SIGINT)
    process.wait(30)
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
