"""The units of systemd: it understands them, they are shut in, and they run what docker-compose.yml runs."""

import os
import re
import shlex
import stat
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from config.settings import ENV_PREFIX, Settings
from orchestrator.launcher.units import Units
from tests.world.containers import seconds

PROJECT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
OURS = {name for name, service in SERVICES.items() if service["image"] == "lhc-xmpp-orchestrator"}
EXPOSED = {False: 20, True: 50}
"""What `systemd-analyze security` may say of a unit of the machine, and of a person, out of 100."""

both = pytest.mark.parametrize("user", [False, True], ids=["machine", "user"])


def written(folder: Path, *, user: bool = False, pools: int = 2) -> Units:
    units = Units(folder / "units", folder / "config", user=user, pools=pools)
    units.write()
    return units


def lines(units: Units, name: str) -> dict[str, list[str]]:
    """Each directive of the unit with its values, in their order."""
    found = defaultdict(list)
    for directive, value in re.findall(r"^(\w+)=(.*)$", (units.folder / name).read_text(), re.MULTILINE):
        found[directive].append(value)
    return found


def services(units: Units) -> dict[str, dict[str, list[str]]]:
    """The units by the names that docker-compose.yml has for them."""
    names = [path.name for path in units.folder.glob("*.service")]
    return {name.removeprefix("lhc-xmpp-").removesuffix(".service").rstrip("@"): lines(units, name) for name in names}


def analyze(units: Units, *words: str) -> "subprocess.CompletedProcess[str]":
    manager = ["--user"] if units.user else []
    return subprocess.run(
        ["systemd-analyze", *manager, *words], env={**os.environ, "XDG_RUNTIME_DIR": str(units.config)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def complaints(units: Units) -> list[str]:
    """What systemd says of them; of other units of this machine it may say what it likes."""
    told = analyze(units, "verify", "--man=no", *paths(units))
    return [line for line in told.stderr.splitlines() if "lhc-xmpp" in line or str(units.folder) in line]


def paths(units: Units) -> list[str]:
    """The units as systemd-analyze wants to have them: an instance of each template."""
    return [str(path).replace("@.", "@1.") for path in sorted(units.folder.iterdir())]


@both
def test_systemd_understands_them(tmp_path: Path, user: bool) -> None:
    units = written(tmp_path, user=user)
    assert complaints(units) == []
    (units.folder / "lhc-xmpp-beat.service").write_text("[Service]\nExecStart=/nowhere\nNoNewPrivilege=yes\n")
    assert len(complaints(units)) > 1, "it was looked at"


@both
def test_they_are_shut_in(tmp_path: Path, user: bool) -> None:
    units = written(tmp_path, user=user)
    of_services = [path for path in paths(units) if path.endswith(".service")]
    told = analyze(units, "security", "--offline=yes", f"--threshold={EXPOSED[user]}", "--no-pager", *of_services)
    assert told.returncode == 0, told.stdout + told.stderr


def test_there_is_one_for_each_process_of_the_containers(tmp_path: Path) -> None:
    assert set(services(written(tmp_path))) == OURS | {"ejabberd"}


def test_they_run_the_same_commands(tmp_path: Path) -> None:
    for name, unit in services(written(tmp_path)).items():
        if name in OURS - {"migrate"}:
            (command,) = unit["ExecStart"]
            program, *words = shlex.split(command.replace("%%", "%"))
            wanted = SERVICES[name]["command"].replace("--host 0.0.0.0", "--host 127.0.0.1")
            assert [Path(program).name, *words] == shlex.split(wanted)


def test_each_has_its_own_secrets_alone_and_the_same_bounds(tmp_path: Path) -> None:
    units = written(tmp_path)
    for name, unit in services(units).items():
        service = SERVICES[name]
        # what belongs to a database of ejabberd's own: under systemd it keeps its data in Mnesia
        secrets = [secret for secret in service["secrets"] if secret != "orchestrator_ejabberd_database_password"]
        wanted = [f"{secret}:{units.secrets}/{secret}" for secret in secrets]
        assert unit["LoadCredential"] == wanted, name
        assert int(unit["TimeoutStopSec"][-1]) >= seconds(service["stop_grace_period"]), name
        assert unit["MemoryMax"][-1] == service["mem_limit"], name
        assert unit["StartLimitIntervalSec"] == ["0"], f"{name} is started again without end"
        assert int(unit["TasksMax"][-1]) == service["pids_limit"], name


@both
def test_the_target_starts_them_all(tmp_path: Path, user: bool) -> None:
    units = written(tmp_path, user=user, pools=3)
    (wants,) = lines(units, "lhc-xmpp.target")["Wants"]
    pools = {f"lhc-xmpp-pool@{number}.service" for number in (1, 2, 3)}
    assert set(wants.split()) == pools | {f"lhc-xmpp-{name}.service" for name in services(units) if name != "pool"}
    assert all(unit["PartOf"] == ["lhc-xmpp.target"] for unit in services(units).values())
    assert lines(units, "lhc-xmpp.target")["WantedBy"] == ["default.target" if user else "multi-user.target"]


def test_the_settings_are_written_once_and_are_their_owners(tmp_path: Path) -> None:
    units = written(tmp_path)
    assert stat.S_IMODE(units.settings.stat().st_mode) == 0o600
    assert stat.S_IMODE(units.config.stat().st_mode) == 0o700
    named = {line.partition("=")[0] for line in units.settings.read_text().splitlines() if line[:1] not in {"", "#"}}
    assert named <= {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    units.settings.write_text("ORCHESTRATOR_XMPP_HOST=chat.example\n")
    written(tmp_path, pools=4)
    assert units.settings.read_text() == "ORCHESTRATOR_XMPP_HOST=chat.example\n"
    assert "pool@4" in (units.folder / "lhc-xmpp.target").read_text()


def test_no_secret_is_in_a_unit_or_in_the_settings(tmp_path: Path) -> None:
    units = written(tmp_path)
    text = "".join(path.read_text() for path in [*units.folder.iterdir(), units.settings])
    assert re.findall(r"(?:PASSWORD|SECRET|KEY|TOKEN)=", text) == []
