"""`orchestrator up` as a person uses it: says what it does, keeps its state, and one Ctrl-C stops all of it.

The system of this test is a standalone one, whose names bear no instance.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from rich.console import Console

from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.waiting import until
from config import ejabberd_versions
from config.settings import Settings
from orchestrator.launcher import postgresql, servers
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import LocalSystem
from orchestrator.launcher.up import Launcher

ORCHESTRATOR = Path(sys.executable).parent / "orchestrator"
PASSWORD = "0123456789abcdef0123"
KEYS = {
    "api", "panel_token", "hosting_key", "rpc", "rpc_user", "rpc_password", "rpc_account_host", "xmpp_host",
    "c2s_host", "c2s_port", "ejabberd_api", "flower", "flower_user", "flower_password", "broker_url", "database_url",
}  # fmt: skip


class Up:
    """`orchestrator up` in the foreground, as from a terminal."""

    def __init__(self, state: Path, *options: str, **settings: str) -> None:
        self.state = state
        self.lines: list[str] = []
        # a session of its own, as a terminal gives it
        self.process = subprocess.Popen(
            [ORCHESTRATOR, "up", "--state-dir", state, *options],
            env={**os.environ, "COLUMNS": "200", **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(90)
        self._reader.join()

    async def ready(self) -> dict[str, Any]:
        await until(lambda: self._said("Ctrl-C stops everything.") or self.process.poll() is not None, "it is up", 400)
        assert self.process.poll() is None, "".join(self.lines)
        endpoints: dict[str, Any] = json.loads((self.state / "endpoints.json").read_text())
        return endpoints

    def _said(self, words: str) -> bool:
        return any(words in line for line in self.lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            self.lines.extend(iter(output.readline, ""))


@pytest.fixture
def state() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lhc-up-"))
    yield folder
    subprocess.run([ORCHESTRATOR, "down", "--state-dir", folder], timeout=120, check=True)
    shutil.rmtree(folder)


def processes_of(state: Path) -> list[str]:
    """Command lines and environments that name the folder, this test's own process aside."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in told and int(process.name) != os.getpid():
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.parametrize(
    "options", [(), ("--broker", "rabbitmq", "--database", "postgresql")], ids=["plain", "production"]
)
async def test_up_and_ctrl_c_and_up_again_with_a_standalone_tenant(state: Path, options: tuple[str, ...]) -> None:
    with Up(state, *options, ORCHESTRATOR_HOSTING="false") as up:
        first = await up.ready()
        assert set(first) >= KEYS
        assert stat.S_IMODE((state / "endpoints.json").stat().st_mode) == 0o600
        again = await asyncio.create_subprocess_exec(
            ORCHESTRATOR, "up", "--state-dir", state, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        told, _ = await asyncio.wait_for(again.communicate(), 60)
        assert told.startswith(b"Already running."), told
        await talk(first)

        os.killpg(up.process.pid, signal.SIGINT)
        await until(lambda: up.process.poll() is not None, "Ctrl-C ends it", 60)
        assert up.process.returncode == 0
        assert up.lines[-1] == "Stopped.\n"
    assert processes_of(state) == []
    for port in json.loads((state / "system.json").read_text())["ports"].values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"

    with Up(state) as up:
        second = await up.ready()
        assert second == first, "ports, keys and the mode are kept"
        doctor = await asyncio.create_subprocess_exec(
            *(ORCHESTRATOR, "doctor"), env={**os.environ, "ORCHESTRATOR_STATE_DIR": str(state)}, stdout=subprocess.PIPE
        )
        told, _ = await asyncio.wait_for(doctor.communicate(), 60)
        assert b"standalone: one instance" in told, told
        assert doctor.returncode == 0, told
        async with Panel(second["api"], second["panel_token"]) as panel:
            tenant = (await panel.http.get("/v1/tenants/standalone")).json()
            assert tenant["state"] == "active"
            assert tenant["accounts"] == {"operator": 1, "visitor": 1, "chat": 0}
        # what ejabberd held is there, too
        lhc = Lhc("", base=second["api"], secret_key=second["hosting_key"], host=second["xmpp_host"])
        address = (second["c2s_host"], second["c2s_port"])
        async with Operator("bob", second["xmpp_host"], "operator-pw", address) as bob:
            await bob.has_contact("visitor.1")
            assert (await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "are you back?")).text == "ok"
            await bob.reads("are you back?")


@pytest.mark.parametrize(
    ("options", "hosting", "told"),
    [
        (("--database", "postgresql"), "true", "was begun with redis and sqlite, which hold its data"),
        (("--broker", "rabbitmq"), "true", "was begun with redis and sqlite, which hold its data"),
        ((), "false", "was begun with ORCHESTRATOR_HOSTING=true, which all names in it are made for"),
    ],
    ids=["database", "broker", "mode"],
)
def test_a_folder_keeps_what_it_was_begun_with(state: Path, options: tuple[str, ...], hosting: str, told: str) -> None:
    LocalSystem.open(state)
    kept = (state / "settings.env").read_text()
    refused = subprocess.run(
        [ORCHESTRATOR, "up", "--detach", "--state-dir", state, *options],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "1000", "ORCHESTRATOR_HOSTING": hosting},
    )  # fmt: skip
    assert refused.returncode == 1
    assert told in refused.stderr
    assert (state / "settings.env").read_text() == kept
    assert not Launcher(state, Console()).running()


@pytest.mark.skipif(os.getuid() != 0, reason="only root's PostgreSQL belongs to another user")
def test_a_folder_that_postgresql_cannot_enter_is_named(state: Path) -> None:
    closed = state / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(LaunchError, match=f"may not enter {state}:"):
        postgresql.create(closed / "postgresql")


async def talk(endpoints: dict[str, Any]) -> None:
    """A standalone LHC: the panel's one tenant, names without an instance, callbacks to the one address."""
    host = endpoints["xmpp_host"]
    async with (
        Receiver(endpoints["callback_port"]) as receiver,
        Panel(endpoints["api"], endpoints["panel_token"]) as panel,
    ):
        tenant = (await panel.http.get("/v1/tenants/standalone")).json()
        assert (tenant["state"], tenant["rosters"]) == ("active", ["visitors", "operators"])
        refused = await panel.http.put("/v1/tenants/acme")
        assert refused.status_code == 422
        assert "one instance, 'standalone'" in refused.json()["detail"]
        lhc = Lhc("", base=endpoints["api"], secret_key=endpoints["hosting_key"], host=host)
        await lhc.new_operator("bob", "operator-pw")
        address = (endpoints["c2s_host"], endpoints["c2s_port"])
        async with Operator("bob", host, "operator-pw", address) as bob:
            await receiver.status(f'{{"action":"connect","user":"bob","server":"{host}"}}')
            await lhc.new_visitor("visitor.1", PASSWORD, status="start page")
            await bob.sees("visitor.1", status="start page")
            await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "hello")
            await bob.reads("hello")
            bob.write("visitor.1", "good day")
            callback = await receiver.message("good day")
            assert callback.host == "localhost"
            assert callback.raw == f"body=good%20day&sender=bob&receiver=visitor.1&server={host}&type=chat".encode()
    async with httpx.AsyncClient(base_url=endpoints["api"]) as http:
        assert (await http.get("/")).text == "ok"


def test_an_ejabberd_that_was_not_tested_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert servers.judge_ejabberd(Settings()) == ""
    monkeypatch.setattr(ejabberd_versions, "TESTED", {(22, 5): "nowhere"})
    with pytest.raises(LaunchError, match=r"which was not tested: install one that was \(22.05\)") as refused:
        servers.judge_ejabberd(Settings())
    accepted = str(refused.value).split()[2].rstrip(",")
    assert "NOT TESTED" in servers.judge_ejabberd(Settings(ejabberd_untested=accepted))
