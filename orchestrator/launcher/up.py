"""Starts and stops the whole system on one machine: supervisord runs the processes, this orders and reports."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from xmlrpc.client import ServerProxy

from rich.console import Console
from supervisor.xmlrpc import SupervisorTransport

from config.ejabberd_storage import EjabberdStorage
from config.settings import ENV_PREFIX, Settings
from orchestrator.launcher import backups, servers
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import Broker, Choice, DatabaseServer, LocalSystem, write_private
from tenants.store.models import Role

_SERVER_DEADLINE = 120.0
_READY_DEADLINE = 120.0
_STOP_DEADLINE = 60.0


@contextmanager
def control(state: Path) -> Iterator[Any]:
    """The XML-RPC interface of the folder's supervisord, on its unix socket."""
    transport = SupervisorTransport(None, None, f"unix://{state}/supervisor.sock")
    with ServerProxy("http://localhost", transport=transport) as proxy:
        yield proxy.supervisor


class Launcher:
    """The system of one state folder."""

    def __init__(self, state: Path, console: Console) -> None:
        self._state = state
        self._console = console
        self._bin = Path(sys.executable).parent

    def running(self) -> bool:
        """Whether a supervisord of this folder is there."""
        pidfile = self._state / "supervisord.pid"
        try:
            pid = int(pidfile.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False
        return str(self._state).encode() in command

    def up(
        self,
        *,
        detach: bool,
        broker: Broker | None = None,
        database: DatabaseServer | None = None,
        pools: int | None = None,
        ejabberd_nodes: int | None = None,
        backup: Path | None = None,
        move_storage: EjabberdStorage | None = None,
    ) -> None:
        """Start everything that is not running; without `detach`, stay until Ctrl-C and then stop everything.

        Args:
            detach: return when it is ready.
            broker: see `LocalSystem.open`, as for the others.
            database: the same.
            pools: the same.
            ejabberd_nodes: the same.
            backup: whose data are put back first (`backups.begin_restore`).
            move_storage: where ejabberd's data is to be, from wherever it is; before anything is started.

        Raises:
            LaunchError: it did not become ready, or runs otherwise than wanted; or the data could not be moved.
        """
        os.environ[f"{ENV_PREFIX}STATE_DIR"] = str(self._state)
        if self.running():
            if move_storage is not None:
                raise LaunchError(
                    "Already running; stop it first (script/down): nobody may be served while data is moved."
                )
            wanted = Choice.of(self._state, broker, database, pools, ejabberd_nodes)
            self._say_running(as_wanted=wanted == Choice.of(self._state))
            return
        started = time.monotonic()
        if move_storage is not None:
            self._move(move_storage)
        system = LocalSystem.open(
            self._state, broker=broker, database=database, pools=pools, ejabberd_nodes=ejabberd_nodes
        )
        settings = Settings.load()
        if warning := servers.judge_ejabberd(settings):
            self._console.print(f"[bold red]{warning}[/]")
        self._step("Preparing the servers, and ejabberd's bridge module", lambda: servers.prepare(system, settings))
        if backup is not None:
            self._step("Putting files back", lambda: backups.restore_files(system, backup))
        supervisor = self._start_supervisor(detach=detach)
        try:
            self._start(system, settings, backup)
            endpoints = system.endpoints(settings)
            write_private(self._state / "endpoints.json", json.dumps(endpoints, indent=2) + "\n")
        except BaseException:
            self.down()
            raise
        self._console.print(f"[bold green]Ready[/] after {time.monotonic() - started:.0f} s.")
        self._say_where(endpoints)
        if supervisor is not None:
            self._stay(supervisor)

    def _move(self, target: EjabberdStorage) -> None:
        """Have ejabberd move its data, with no other process running; a folder that has them there is left alone."""
        if Choice.storage_of(self._state) in (None, target):
            return
        system = LocalSystem.open(self._state, storage=target.other, moving_to=target)
        settings = Settings.load()
        self._step("Preparing the servers of both storages", lambda: servers.prepare(system, settings))
        self._start_supervisor(detach=True)
        try:
            self._start_servers(system, servers.storages(system, settings))
            self._step(f"Moving ejabberd's data to {target}", lambda: self._say_moved(servers.move(settings, target)))
        finally:
            self.down()
        LocalSystem.open(self._state, storage=target, moved=True)

    def _say_moved(self, counts: dict[str, int]) -> None:
        self._console.print("    " + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items()))

    def _say_running(self, *, as_wanted: bool) -> None:
        if not as_wanted:
            raise LaunchError("Already running with another number of pool processes; stop it first.")
        self._console.print("Already running.")
        self._say_where(json.loads((self._state / "endpoints.json").read_text()))

    def down(self) -> None:
        """Stop everything that was started from this folder, and nothing else.

        Raises:
            LaunchError: something is still running.
        """
        if not self.running():
            return
        with control(self._state) as supervisor:
            supervisor.shutdown()
        deadline = time.monotonic() + _STOP_DEADLINE
        while self.running():
            if time.monotonic() > deadline:
                raise LaunchError(f"still running after {_STOP_DEADLINE:.0f} s; see {self._state}/logs/supervisord.log")
            time.sleep(0.1)

    def _start(self, system: LocalSystem, settings: Settings, backup: Path | None) -> None:
        self._start_servers(system, servers.chosen(system, settings), backup)
        if system.choice.ejabberd_nodes > 1:
            self._step("Joining ejabberd's nodes", lambda: servers.join_nodes(system, settings))
        self._step("Migrating the database", self._migrate)
        self._start_group("processes")
        self._wait(
            "API, worker, beat and pools", lambda: servers.url_answers(f"{system.api_url}/readyz"), _READY_DEADLINE
        )
        if not settings.hosting:
            self._wait("the one tenant", lambda: servers.tenant_is_made(settings, system.api_url), _READY_DEADLINE)
        flower = f"http://127.0.0.1:{system.ports['flower']}/healthcheck"
        self._wait("Flower", lambda: servers.url_answers(flower), _READY_DEADLINE)

    def _start_servers(self, system: LocalSystem, wanted: list[servers.Server], backup: Path | None = None) -> None:
        others, started = [], set[str]()
        for server in wanted:
            holds_backup = backup is not None and "postgresql" in server.programs
            for program in (program for program in server.programs if program not in started):
                self._start_group(program)
                started.add(program)
            if server.prepare is None and not holds_backup:
                others.append(server)
                continue
            self._wait(server.title, server.answers, _SERVER_DEADLINE)
            if server.prepare is not None:
                server.prepare()
            if backup is not None and holds_backup:
                # before ejabberd, which is the next one, reads its own
                restore = functools.partial(backups.restore_postgresql, system, backup)
                self._step("Putting PostgreSQL's databases back", restore)
        for server in others:
            self._wait(server.title, server.answers, _SERVER_DEADLINE)

    def _start_supervisor(self, *, detach: bool) -> "subprocess.Popen[bytes] | None":
        command = [str(self._bin / "supervisord"), "-c", str(self._state / "supervisord.conf")]
        log = (self._state / "logs" / "launcher.log").open("ab")
        # A session of its own: Ctrl-C is for us, and we stop the processes in good order.
        if detach:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=30)
            supervisor = None
        else:
            supervisor = subprocess.Popen([*command, "-n"], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not self._supervisor_answers():
            if time.monotonic() > deadline:
                raise LaunchError(f"supervisord did not start; see {self._state}/logs/launcher.log")
            time.sleep(0.1)
        return supervisor

    def _stay(self, supervisor: "subprocess.Popen[bytes]") -> None:
        """Until a signal, or the end of supervisord."""

        def stop(_signum: int, _frame: FrameType | None) -> None:
            raise KeyboardInterrupt

        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, stop)
        self._console.print("Ctrl-C stops everything.")
        try:
            supervisor.wait()
        except KeyboardInterrupt:
            self._console.print("Stopping …")
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)
            self.down()
            supervisor.wait(_STOP_DEADLINE)
            self._console.print("Stopped.")

    def _start_group(self, group: str) -> None:
        with control(self._state) as supervisor:
            supervisor.startProcessGroup(group, False)  # False: do not wait

    def _supervisor_answers(self) -> bool:
        try:
            with control(self._state) as supervisor:
                return bool(supervisor.getPID())
        except (OSError, HTTPException):
            return False

    def _migrate(self) -> None:
        from orchestrator.cli import upkeep  # noqa: PLC0415 - the command line imports this module

        umask = os.umask(0o077)
        try:
            upkeep.migrate()
        finally:
            os.umask(umask)

    def _login_link(self) -> str:
        from orchestrator.cli import people  # noqa: PLC0415 - the command line imports this module

        return people.make_link(Role.ADMIN)

    def _wait(self, what: str, ready: Callable[[], bool], seconds: float) -> None:
        def poll() -> None:
            deadline = time.monotonic() + seconds
            while not ready():
                if time.monotonic() > deadline:
                    raise LaunchError(f"{what} not ready after {seconds:.0f} s; see {self._state}/logs")
                time.sleep(0.1)

        self._step(f"Starting {what}", poll)

    def _step(self, what: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        with self._console.status(f"{what} …"):
            work()
        self._console.print(f"  [green]✓[/] {what} [dim]{time.monotonic() - started:.1f} s[/]")

    def _say_where(self, endpoints: dict[str, str | int]) -> None:
        say, hosts = self._console.print, endpoints.get("xmpp_hosts", endpoints["xmpp_host"])
        say(f"  Console  {self._login_link()}  (once, within 15 minutes)", soft_wrap=True)
        if not endpoints.get("hosting", True):
            say("  Mode     standalone: one LHC, whose names bear no instance")
        say(f"  API      {endpoints['api']}  (OpenAPI: {endpoints['api']}/docs)")
        say(f"  Flower   {endpoints['flower']}  (user {endpoints['flower_user']}, password in endpoints.json)")
        say(
            f"  XMPP     {hosts} at {endpoints['c2s_host']} port {endpoints['c2s_port']}"
            f" (with TLS: port {endpoints['c2s_tls_port']})"
        )
        say(f"  Keys and addresses for programs: {self._state}/endpoints.json, logs: {self._state}/logs")
        say("Next: [bold]script/demo[/] lets a visitor and an operator talk; [bold]script/down[/] stops it all.")
