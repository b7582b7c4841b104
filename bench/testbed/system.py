"""A whole running system of a test's or benchmark's own: real servers, every process as in `script/up`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from celery import Celery
from rich.console import Console

from bench.testbed.rosters import find_roster, make_roster
from bench.testbed.waiting import until, until_async
from config.settings import ENV_PREFIX, Settings
from orchestrator.launcher.up import Launcher, control
from tenants.ejabberd.admin_api import call_headers
from tenants.ejabberd.client import Ejabberd, Roster
from tenants.process.services import Services, open_services

PROJECT = Path(__file__).resolve().parents[2]
_ALL = 10_000
"""Names in one answer, as many as there may be."""
ORCHESTRATOR = Path(sys.executable).parent / "orchestrator"
_HANDED_ON = (f"{ENV_PREFIX}EJABBERD_STORAGE", f"{ENV_PREFIX}PORTS")
"""Any suite and any benchmark can be run on either storage; and who starts several systems gives each its ports."""


class StartError(Exception):
    """The system did not become ready; holds what it said, and the ends of its logs."""


@dataclass(frozen=True)
class System:
    """The running system, and how to reach it."""

    state: Path
    endpoints: dict[str, Any]
    env: dict[str, str]

    def pids(self) -> dict[str, int]:
        """The process ids of the system's processes and servers by name; 0 for one that is not running."""
        with control(self.state) as supervisor:
            return {info["name"]: int(info["pid"]) for info in supervisor.getAllProcessInfo()}

    def pid(self, process: str) -> int:
        """The process id of one of them; 0 when it is not running."""
        return self.pids()[process]

    async def kill(self, process: str, signum: int = signal.SIGKILL) -> None:
        """End a process, and wait until its successor runs."""
        old = self.pid(process)
        os.kill(old, signum)
        await until(lambda: self.pid(process) not in {0, old}, f"{process} is started again", 60)

    def pools(self) -> list[str]:
        """The names of the pool processes."""
        return sorted(name for name in self.pids() if name.startswith("pool-"))

    async def kill_pools(self) -> None:
        """End all of them at once, and wait until their successors run."""
        await asyncio.gather(*(self.kill(name) for name in self.pools()))

    async def readiness(self) -> dict[str, str]:
        """What `/readyz` says of each part; empty when the API does not answer."""
        async with httpx.AsyncClient(timeout=10, verify=False) as http:  # noqa: S501 - as below
            try:
                answer = await http.get(f"{self.endpoints['api']}/readyz")
            except httpx.TransportError:
                return {}
        parts: dict[str, str] = answer.json()["parts"] if answer.status_code in {200, 503} else {}
        return parts

    async def ready(self, seconds: float = 60) -> None:
        """Wait until every part works."""

        async def all_parts() -> bool:
            return set((await self.readiness()).values()) == {"ok"}

        await until_async(all_parts, "the system is ready", seconds)

    def send_task(self, name: str, **arguments: Any) -> None:
        """Send a Celery task by its name, as a panel with nothing but the broker's URL can."""
        # on RabbitMQ, who names a queue must name its type as well
        with Celery(broker=self.endpoints["broker_url"], task_create_missing_queue_type="quorum") as celery:
            celery.send_task(name, kwargs=arguments, queue="lifecycle")

    @property
    def ejabberd_headers(self) -> dict[str, str]:
        """What ejabberd's admin API asks for."""
        return call_headers(self.endpoints["xmpp_host"], self.endpoints["ejabberd_api_secret"])

    async def ejabberd(self, command: str, **arguments: Any) -> Any:
        """An admin command, asked of ejabberd itself."""
        async with httpx.AsyncClient(timeout=10, verify=False) as http:  # noqa: S501 - plain HTTP; loading CAs takes longer than the call
            response = await http.post(
                f"{self.endpoints['ejabberd_api']}/{command}", json=arguments, headers=self.ejabberd_headers
            )
        response.raise_for_status()
        return response.json()

    def client(self) -> Ejabberd:
        """The orchestrator's own client of ejabberd's admin API; to be closed."""
        endpoints = self.endpoints
        return Ejabberd(endpoints["ejabberd_api"], endpoints["xmpp_host"], endpoints["ejabberd_api_secret"])

    async def make_roster(self, group: str, *displayed: str, label: str = "-", description: str = "-") -> None:
        """A shared roster, or another one in its place, behind the orchestrator's back."""
        await make_roster(self.client(), group, *displayed, label=label, description=description)

    async def roster(self, group: str) -> Roster | None:
        """The shared roster as ejabberd holds it."""
        return await find_roster(self.client(), group)

    async def users_of(self, instance_name: str) -> list[str]:
        """The instance's accounts in ejabberd, sorted.

        As the bridge module's command has it, which `test_bulk` compares with ejabberd's own.
        """
        users: list[str] = await self._of_host("lhc_accounts", suffix=f".{instance_name}", after="", limit=_ALL)
        return users

    async def rosters(self) -> list[str]:
        """The shared rosters in ejabberd, as `users_of`."""
        return [roster["group"] for roster in await self._of_host("lhc_shared_rosters", after="", limit=_ALL)]

    async def sessions_of(self, instance_name: str) -> list[str]:
        """The full JIDs of the instance's connected clients."""
        sessions = await self.ejabberd("connected_users_info")
        return [session["jid"] for session in sessions if f".{instance_name}@" in session["jid"]]

    async def unregister(self, *users: str) -> None:
        """Remove accounts behind the orchestrator's back."""
        assert await self._of_host("lhc_remove_users", users=users) == []

    async def join(self, group: str, *users: str) -> None:
        """Make them members of the shared roster, with an account or without, behind the orchestrator's back."""
        assert await self._of_host("lhc_add_to_rosters", group=group, users=users) == []

    async def leave(self, group: str, *users: str) -> None:
        """The opposite of `join`."""
        assert await self._of_host("lhc_remove_from_rosters", group=group, users=users) == []

    async def _of_host(self, command: str, **arguments: Any) -> Any:
        return await self.ejabberd(command, host=self.endpoints["xmpp_host"], **arguments)


@contextmanager
def start_system(
    *options: str, env: Mapping[str, str] | None = None, keep: Callable[[], bool] = lambda: False
) -> Iterator[System]:
    """A system in a folder of its own that is ready; stopped and removed at the end.

    Args:
        options: of `orchestrator up`.
        env: settings of the system, beside this process's environment without the settings in it.
        keep: asked at the end whether the stopped system's folder stays, for somebody to look at.

    Raises:
        StartError: it did not become ready.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRATOR_")}
    environment |= {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    environment |= env or {}
    # short, because the path of a unix socket is limited to some 100 characters
    state = Path(tempfile.mkdtemp(prefix="lhc-"))
    up = [str(ORCHESTRATOR), "up", "--detach", "--state-dir", str(state), *options]
    try:
        done = subprocess.run(
            up, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            logs = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in (state / "logs").glob("*.log"))
            raise StartError(f"the system did not start:\n{done.stdout}{done.stderr}\n{logs}")
        yield System(state, json.loads((state / "endpoints.json").read_text()), environment)
    finally:
        # not as a program of its own, whose imports take two seconds of a processor
        Launcher(state, Console(quiet=True)).down()
        if not keep():
            shutil.rmtree(state)


def migrate(url: str) -> None:
    """Bring the database to the newest revision, as `orchestrator migrate` does."""
    env = {**os.environ, "ORCHESTRATOR_DATABASE_URL": url}
    subprocess.run([ORCHESTRATOR, "migrate"], env=env, check=True, timeout=60)


@asynccontextmanager
async def domain_of(system: System) -> AsyncIterator[Services]:
    """The domain's services on the stores of the running system: for what no face of it offers."""

    async def wake(task: str, **arguments: str | int) -> None:
        """The sweep finds it."""

    settings = Settings(_env_file=system.state / "settings.env")
    async with open_services(settings, wake) as services:
        yield services
