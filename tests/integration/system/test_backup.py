"""`orchestrator backup` and `restore`: all of a system is lost, and comes back with what nobody had got yet."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import ORCHESTRATOR, System, start_system
from bench.testbed.waiting import until_async
from orchestrator.launcher.backups import MANIFEST

VISITOR, VISITOR_PASSWORD = "visitor.7", "0123456789abcdef0123"


def run(system: System, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "ORCHESTRATOR_STATE_DIR": str(system.state)}
    command = [str(ORCHESTRATOR), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


async def people_begin(system: System) -> None:
    """Words wait on both sides: for bob, who is away, and for LHC, which is down."""
    where = system.endpoints
    async with Panel(where["api"], where["panel_token"]) as panel:
        created = await panel.create("acme")
        lhc = Lhc("acme", base=f"{where['api']}/t/acme", secret_key=created["secret_key"], host=where["xmpp_host"])
        await lhc.new_operator("bob", "bobs-own-password")
        await lhc.new_visitor(VISITOR, VISITOR_PASSWORD, nick="Ana")
        async with bob_of(system) as bob:
            await bob.sees(lhc.name(VISITOR))
            bob.write(lhc.name(VISITOR), "For when your server is back")

            async def waits() -> bool:
                answer = await panel.http.get("/v1/tenants/acme/deliveries", params={"state": "pending"})
                return bool(answer.json()["deliveries"])

            await until_async(waits, "the message waits for LHC")
        assert (await lhc.visitor_writes(VISITOR, VISITOR_PASSWORD, "bob", "For when you are back")).text == "ok"


def bob_of(system: System) -> Operator:
    where = system.endpoints
    address = (where["c2s_host"], where["c2s_port"])
    return Operator("bob.acme", where["xmpp_host"], "bobs-own-password", address)


def is_whole_and_private(backup: Path) -> None:
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]
    files = json.loads((backup / MANIFEST).read_text())["files"]
    assert {name.partition(".")[0] for name in files} >= {"database", "ejabberd", "settings/system"}
    assert {path.stat().st_mode & 0o077 for path in backup.rglob("*")} == {0}


def is_refused_when_damaged(system: System, backup: Path) -> None:
    damaged = backup.with_name("damaged")
    shutil.copytree(backup, damaged)
    with (damaged / "database").open("r+b") as file:
        file.write(b"?")
    refused = run(system, "restore", str(damaged))
    assert (refused.returncode, "is damaged: database" in refused.stderr) == (1, True)
    assert not system.state.exists()


@pytest.mark.parametrize("options", [(), ("--database", "postgresql")], ids=["sqlite", "postgresql"])
async def test_all_is_lost_and_comes_back(options: tuple[str, ...], tmp_path: Path) -> None:
    with start_system(*options) as system:
        await people_begin(system)
        inside = run(system, "backup", str(system.state / "backups"))
        assert (inside.returncode, "is in the folder that the backup protects" in inside.stderr) == (1, True)
        made = run(system, "backup", str(tmp_path))
        assert made.returncode == 0, made.stderr
        backup = Path(made.stdout.strip())
        is_whole_and_private(backup)

        running = run(system, "restore", str(backup))
        assert (running.returncode, running.stderr) == (1, "The system is running; stop it first: orchestrator down\n")
        assert run(system, "down").returncode == 0
        full = run(system, "restore", str(backup))
        assert (full.returncode, "is not empty: --replace moves it aside" in full.stderr) == (1, True)

        shutil.rmtree(system.state)
        is_refused_when_damaged(system, backup)
        restored = run(system, "restore", str(backup))
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert "reconcile of *: succeeded" in restored.stdout
        again = System(system.state, json.loads((system.state / "endpoints.json").read_text()), system.env)
        assert again.endpoints["panel_token"] == system.endpoints["panel_token"]
        async with Receiver(again.endpoints["callback_port"]) as receiver, bob_of(again) as bob:
            await bob.reads("For when you are back")
            await receiver.message("For when your server is back", seconds=60)
