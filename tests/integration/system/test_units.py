"""docs/as-a-service.md as it is written, on a machine of its own: units of systemd, Debian's servers, and the demo."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.testbed import deployed
from bench.testbed.waiting import until
from tests.world.machine import Machine, machine
from tests.world.page import steps

PROJECT = Path(__file__).resolve().parents[3]
PAGE = PROJECT / "docs" / "as-a-service.md"
DONE = ("apt-get ", "git clone ", "python3 -m venv ", ".venv/bin/pip ")
"""What begins like this has been done already, for this machine's own tests."""
PROCESSES = ("ejabberd", "api", "worker", "lifecycle", "beat", "flower", "pool@1", "pool@2")
HERE = f"""
# where the programs are, which elsewhere are in no folder of root's own
[Service]
ProtectHome=tmpfs
BindReadOnlyPaths={PROJECT} {sys.base_prefix}
"""
CERTIFICATE = "/etc/lhc-xmpp/secrets/ejabberd.pem"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can start a systemd of its own")


def blocks() -> list[str]:
    """The page's commands, for this machine's folder of the project."""
    found = [step.text for step in steps(PAGE) if step.kind == "sh"]
    kept = ("".join(line for line in text.splitlines(keepends=True) if not line.startswith(DONE)) for text in found)
    return [text.replace("/opt/lhc-xmpp", str(PROJECT)) for text in kept]


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Machine]:
    """The machine, after all that the page says."""
    folder = Path(tempfile.mkdtemp(prefix="lhc-"))
    files = folder / "files"
    for name in (*PROCESSES, "migrate"):
        # of a template's instance: the template's folder
        own = files / "etc" / "systemd" / "system" / f"lhc-xmpp-{name.rstrip('12')}.service.d"
        own.mkdir(parents=True, exist_ok=True)
        (own / "here.conf").write_text(HERE)
    (folder / "machine").mkdir()
    async with machine(folder / "machine", files) as booted:
        run(booted, "systemctl start postgresql rabbitmq-server")
        for text in blocks():
            if "orchestrator doctor" in text:
                await ready(booted)
            run(booted, text)
            if "orchestrator systemd" in text:
                lines = "".join(f"{name}={value}\n" for name, value in deployed.SETTINGS.items())
                run(booted, f"cat >>/etc/lhc-xmpp/settings.env <<'END'\n{lines}END")
        yield booted
    shutil.rmtree(folder)


async def ready(booted: Machine) -> None:
    """Wait until every part works."""
    url = f"{deployed.API}/readyz"
    await until(lambda: booted.run("curl", "-sf", url).returncode == 0, "it is ready", 90)


def run(booted: Machine, text: str) -> str:
    """Run commands, each of which must succeed; gives what they write."""
    done = booted.run("env", f"PATH={os.environ['PATH']}", "bash", "-euc", f"set -o pipefail; cd {PROJECT}\n{text}")
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}{booted.run('journalctl', '-n200').stdout}"
    return done.stdout


@pytest.mark.parametrize("name", PROCESSES)
def test_it_runs_without_any_power_and_shows_no_secret(served: Machine, name: str) -> None:
    shown = served.shown(f"lhc-xmpp-{name}", "ActiveState", "MainPID", "NRestarts")
    assert (shown["ActiveState"], shown["NRestarts"]) == ("active", "0"), run(served, f"journalctl -u lhc-xmpp-{name}")
    status = dict(line.split(":\t") for line in run(served, f"cat /proc/{shown['MainPID']}/status").splitlines())
    assert "0" not in status["Uid"].split()
    assert (int(status["CapBnd"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")
    seen = run(
        served, f"tr '\\0' ' ' </proc/{shown['MainPID']}/environ; tr '\\0' ' ' </proc/{shown['MainPID']}/cmdline"
    )
    secrets = run(served, "cat /etc/lhc-xmpp/secrets/orchestrator_*").split()
    assert len(secrets) == 11
    assert [secret for secret in secrets if secret in seen + run(served, f"journalctl -u lhc-xmpp-{name}")] == []


def test_the_demo_is_played_to_its_end(served: Machine) -> None:
    def secret(name: str) -> str:
        return run(served, f"cat /etc/lhc-xmpp/secrets/orchestrator_{name}").strip()

    run(served, f"cat >/run/endpoints.json <<'END'\n{json.dumps(deployed.endpoints(CERTIFICATE, secret))}\nEND")
    assert "Every step was seen." in run(served, "script/demo --endpoints /run/endpoints.json")


async def test_what_is_killed_comes_again(served: Machine) -> None:
    run(served, "systemctl kill --signal=KILL lhc-xmpp-pool@1")
    again = {"NRestarts": "1", "ActiveState": "active"}
    await until(lambda: served.shown("lhc-xmpp-pool@1", *again) == again, "it is there again", 60)


async def test_they_stop_in_good_order(served: Machine) -> None:
    """The last one: nothing runs after it."""
    run(served, "systemctl stop lhc-xmpp.target")
    over = {"ActiveState": "inactive", "Result": "success"}
    for name in PROCESSES:
        unit = f"lhc-xmpp-{name}"
        await until(lambda unit=unit: served.shown(unit, *over) == over, f"{name} has ended", 60)  # type: ignore[misc]
