"""One running system for all integration tests: real ejabberd, real Redis, every process as in `script/up`."""

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery

from orchestrator.launcher.up import control
from tenants.models import Base
from tests.world.lhc import Lhc
from tests.world.operator import Operator
from tests.world.panel import Panel
from tests.world.receiver import Receiver
from tests.world.registry import World, make_world, migrate

PROJECT = Path(__file__).resolve().parents[2]
PING_SECONDS = 2
PING_TIMEOUT = 3


@dataclass(frozen=True)
class System:
    """The running system, and how to reach it."""

    state: Path
    endpoints: dict[str, Any]
    env: dict[str, str]

    def pid(self, process: str) -> int:
        """The process id of one of the system's processes; 0 when it is not running."""
        with control(self.state) as supervisor:
            pids = {info["name"]: int(info["pid"]) for info in supervisor.getAllProcessInfo()}
        return pids[process]

    def send_task(self, name: str, **arguments: Any) -> None:
        """Send a Celery task by its name, as a panel with nothing but the broker's URL can."""
        with Celery(broker=self.endpoints["broker_url"]) as celery:
            celery.send_task(name, kwargs=arguments, queue="lifecycle")

    async def ejabberd(self, command: str, **arguments: Any) -> Any:
        """An admin command, asked of ejabberd itself."""
        async with httpx.AsyncClient(timeout=10, verify=False) as http:  # noqa: S501 - plain HTTP; loading CAs takes longer than the call
            response = await http.post(f"{self.endpoints['ejabberd_api']}/{command}", json=arguments)
        response.raise_for_status()
        return response.json()

    async def users_of(self, instance_name: str) -> list[str]:
        """The instance's accounts in ejabberd."""
        users = await self.ejabberd("registered_users", host=self.endpoints["xmpp_host"])
        return sorted(user for user in users if user.endswith(f".{instance_name}"))


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    # short, because the path of a unix socket is limited to some 100 characters
    state = Path(tempfile.mkdtemp(prefix="lhc-"))
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")},
        "ORCHESTRATOR_OPERATOR_PING_SECONDS": str(PING_SECONDS),
        "ORCHESTRATOR_OPERATOR_PING_TIMEOUT": str(PING_TIMEOUT),
    }
    orchestrator = Path(sys.executable).parent / "orchestrator"
    up = [str(orchestrator), "up", "--detach", "--state-dir", str(state)]
    done = subprocess.run(up, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in (state / "logs").glob("*.log"))
        pytest.fail(f"the system did not start:\n{done.stdout}{done.stderr}\n{logs}")
    yield System(state, json.loads((state / "endpoints.json").read_text()), env)
    subprocess.run([orchestrator, "down", "--state-dir", state], cwd=PROJECT, timeout=120, check=True)
    shutil.rmtree(state)


@pytest.fixture(scope="session")
async def receiver(system: System) -> AsyncIterator[Receiver]:
    async with Receiver(system.endpoints["callback_port"]) as receiver:
        yield receiver


@pytest.fixture(scope="session")
async def panel(system: System) -> AsyncIterator[Panel]:
    async with Panel(system.endpoints["api"], system.endpoints["panel_token"]) as panel:
        yield panel


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
        self.lhc = Lhc(self.name, base=f"{endpoints['api']}/t/{self.name}", secret_key=self.key, host=self.host)
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


_numbers = itertools.count(1)


@pytest.fixture
async def new_tenant(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[Any]:
    """Makes tenants with names of their own."""
    tenants: list[Tenant] = []

    async def make(**wanted: Any) -> Tenant:
        created = await panel.create(f"t{next(_numbers)}-{os.getpid()}", **wanted)
        tenants.append(Tenant(system, receiver, panel, created))
        return tenants[-1]

    yield make
    await asyncio.gather(*(tenant.close() for tenant in tenants))


@pytest.fixture
async def tenant(new_tenant: Any) -> Tenant:
    made: Tenant = await new_tenant()
    return made


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A private PostgreSQL on a unix socket of its own; gives the URL of its database."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="lhc-pg-"))
    # it refuses to run as root
    prefix: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(program: str, *words: str) -> None:
        command = [*prefix, str(binaries / program), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=folder)

    run("initdb", "-D", f"{folder}/data", "-U", "lhc", "--auth=trust")
    options = f"-k {folder} -c listen_addresses= -c max_connections=100"
    run("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-o", options, "start")
    yield f"postgresql+psycopg://lhc@/postgres?host={folder}"
    run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
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
    async with make_world(database_url) as made:
        yield made
        # each test begins with nothing
        async with made.services.database.write() as session:
            for table in reversed(Base.metadata.sorted_tables):
                await session.execute(table.delete())
