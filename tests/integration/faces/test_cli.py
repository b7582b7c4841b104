"""The command line as a person or a script uses it: the real program, against the running system."""

import itertools
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.testbed.system import System
from tests.world import program
from tests.world.settings import SECOND_HOST

ORCHESTRATOR = str(Path(sys.executable).parent / "orchestrator")
NOT_FOUND, CONFLICT, USAGE, FAILED = 3, 4, 2, 1
_numbers = itertools.count(1)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def new_name() -> str:
    return f"cli{next(_numbers)}-{os.getpid()}"


def environment(system: System) -> dict[str, str]:
    return {**os.environ, "ORCHESTRATOR_STATE_DIR": str(system.state), "COLUMNS": "200", "TERM": "xterm"}


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    return program.forks()


@pytest.fixture
def run(system: System, forks: ForkServerContext) -> Run:
    def run(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        return program.run(forks, words, environment(system), given)

    return run


def data_of(done: "subprocess.CompletedProcess[str]") -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_says_which_version_it_is(run: Run) -> None:
    assert re.fullmatch(r"orchestrator \d+\.\d+\.\d+ \(schema \d{4}, bridge \d+\)\n", run("--version").stdout)


async def test_a_host_comes_and_goes_by_commands(run: Run, system: System) -> None:
    host = f"chat.{new_name()}.example"
    added = run("host", "add", host, "--certificate", "/nowhere/chat.pem")
    assert (added.returncode, f"_xmpp-client._tcp.{host}." in added.stdout) == (0, True)
    assert "reload_config" not in added.stdout
    (row,) = (one for one in data_of(run("host", "list", "--json")) if one["name"] == host)
    assert (row["is_up"], row["is_fixed"], row["tenants"]) == (True, False, 0)
    assert run("host", "remove", host).returncode == 0
    assert run("host", "remove", system.endpoints["xmpp_host"]).returncode == CONFLICT
    # those that the system was started with stay, though this terminal was not told of them
    assert "ORCHESTRATOR_XMPP_HOSTS" not in environment(system)
    assert SECOND_HOST in await system.ejabberd("registered_vhosts")


def test_where_ejabberd_is_configured_by_hand_its_lines_are_shown(run: Run, system: System) -> None:
    host = f"chat.{new_name()}.example"
    words = [ORCHESTRATOR, "host", "add", host, "--certificate", "/etc/ssl/chat.pem"]
    env = environment(system) | {"ORCHESTRATOR_EJABBERD_HOSTS_FILE": ""}
    by_hand = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    shown = json.loads(by_hand[by_hand.index("{") :])
    assert (host in shown["hosts"], "/etc/ssl/chat.pem" in shown["certfiles"]) == (True, True)
    assert run("host", "remove", host).returncode == 0


async def test_a_whole_life_at_the_console(run: Run, system: System) -> None:
    name = new_name()
    words = ("tenant", "create", name, "--set", "online_seconds=60", "--operator", "bob", "--password-stdin")
    created = data_of(run(*words, "--wait", "--json", given="kraftwerk-1974\n"))
    assert len(created["secret_key"]) >= 40
    assert created["operation"]["state"] == "succeeded"
    host = system.endpoints["xmpp_host"]
    assert await system.ejabberd("check_password", user=f"bob.{name}", host=host, password="kraftwerk-1974") == 0

    shown = data_of(run("tenant", "show", name, "--json"))
    assert (shown["state"], shown["online_seconds"], shown["accounts"]["operator"]) == ("active", 60, 1)
    assert created["secret_key"] not in json.dumps(shown)
    assert [line["instance_name"] for line in data_of(run("tenant", "list", "--search", name, "--json"))] == [name]

    suspended = data_of(run("tenant", "suspend", name, "--reason", "bill not paid", "--wait", "--json"))
    assert (suspended[0]["operation"]["kind"], suspended[0]["operation"]["state"]) == ("suspend", "succeeded")
    assert data_of(run("tenant", "suspend", name, "--json"))[0]["operation"] is None, "nothing to do"
    assert f"resume of {name}: " in run("tenant", "resume", name).stdout
    data_of(run("reconcile", "--dry-run", "--wait", "--json"))
    data_of(run("drift", name, "--json"))

    destroyed = run("tenant", "destroy", name, "--yes", "--wait")
    assert (destroyed.returncode, f"destroy of {name}: succeeded" in destroyed.stdout) == (0, True)
    assert await system.users_of(name) == []
    log = data_of(run("audit", name, "--json"))
    assert ("bill not paid", "suspending") in {(entry["reason"], entry["new_state"]) for entry in log}
    assert {entry["actor"].partition(":")[0] for entry in log} == {"cli"}


def test_exit_codes_and_messages_tell_what_is_wrong(run: Run) -> None:
    name = new_name()
    data_of(run("tenant", "create", name, "--wait", "--json"))
    for words, code, message in (
        (("tenant", "show", "nobody"), NOT_FOUND, "there is no tenant 'nobody'"),
        (("tenant", "suspend", "nobody", "--json"), NOT_FOUND, "there is no tenant 'nobody'"),
        (("tenant", "create", name), CONFLICT, f"there is a tenant '{name}' already"),
        (("tenant", "create", "Chat.X"), USAGE, "instance_name: must be lower case"),
        (("tenant", "update", name, "--set", "colour=red"), USAGE, "colour: Extra inputs are not permitted"),
        (("operation", "show", "none"), NOT_FOUND, "there is no operation 'none'"),
        (("tenant", "fly", name), USAGE, "No such command"),
        (("token", "create", "x", "--scope", "tenant"), USAGE, "instance_name: "),
    ):
        done = run(*words)
        assert (done.returncode, message in done.stderr) == (code, True), (words, done.stderr)


def test_nothing_is_destroyed_without_a_confirmation(run: Run, system: System) -> None:
    name = new_name()
    data_of(run("tenant", "create", name, "--wait", "--json"))
    refused = run("tenant", "destroy", name)
    assert (refused.returncode, "give --yes" in refused.stderr) == (USAGE, True)
    code, seen = in_a_terminal(system, "tenant", "destroy", name, typed="yes\n")
    assert (code, "not destroyed" in seen) == (USAGE, True)
    assert data_of(run("tenant", "show", name, "--json"))["state"] == "active"
    code, seen = in_a_terminal(system, "tenant", "destroy", name, "--wait", typed=f"{name}\n")
    assert code == 0, seen
    # the bar of each step, to its end
    assert "remove_accounts" in seen
    assert "100%" in seen
    assert run("tenant", "show", name).returncode == NOT_FOUND


def test_tenants_that_nobody_named_are_counted_and_confirmed(run: Run, system: System, tmp_path: Path) -> None:
    first, second = names = [new_name(), new_name()]
    for name in names:
        data_of(run("tenant", "create", name, "--wait", "--json"))
    listed = tmp_path / "names"
    listed.write_text("\n".join(names))

    # as a script
    for words in (
        *(("tenant", action, "--all-in-state", "active") for action in ("suspend", "resume", "destroy")),
        ("tenant", "suspend", first, "--names-from", str(listed)),
    ):
        refused = run(*words)
        assert (refused.returncode, f"this would {words[1]} " in refused.stderr) == (USAGE, True), refused.stderr
        assert "give --yes" in refused.stderr
    code, seen = in_a_terminal(system, "tenant", "suspend", "--names-from", str(listed), typed="y\n")
    assert (code, f"{first}, {second}" in seen, "suspend these 2 tenants" in seen) == (USAGE, True, True), seen
    for name in names:
        assert data_of(run("tenant", "show", name, "--json"))["state"] == "active"

    code, seen = in_a_terminal(system, "tenant", "suspend", "--names-from", str(listed), typed="2\n")
    assert code == 0, seen
    destroyed = run("tenant", "destroy", "--names-from", "-", "--yes", "--wait", given=listed.read_text())
    assert destroyed.returncode == 0, destroyed.stderr


def in_a_terminal(system: System, *words: str, typed: str) -> tuple[int, str]:
    """Run it under a pseudo-terminal, type, and give its exit code and all that was seen."""
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [ORCHESTRATOR, *words], env=environment(system), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen, asked, deadline = "", False, time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # its last user has closed the terminal
                break
            if not asked and "Type" in seen:
                os.write(terminal, typed.encode())
                asked = True
        os.close(terminal)
        return process.wait(60), seen


def test_watching_an_operation_in_a_pipe(run: Run) -> None:
    name = new_name()
    operation = data_of(run("tenant", "create", name, "--json"))["operation"]
    watched = run("operation", "watch", operation["id"], "--json")
    data = data_of(watched)
    assert (data["state"], {step["state"] for step in data["steps"]}) == ("succeeded", {"succeeded"})
    listed = data_of(run("operation", "list", "--instance", name, "--json"))
    assert [one["id"] for one in listed] == [operation["id"]]
    assert run("operation", "retry", operation["id"]).returncode == CONFLICT
    assert "create_visitors_roster" in run("operation", "show", operation["id"]).stdout


def test_tokens_are_made_and_revoked(run: Run) -> None:
    made = data_of(run("token", "create", "dashboard", "--scope", "panel:read", "--json"))
    assert made["token"].startswith(f"lhc_{made['id']}_")
    listed = data_of(run("token", "list", "--json"))
    assert made["id"] in {line["id"] for line in listed}
    assert made["token"] not in json.dumps(listed)
    assert run("token", "revoke", made["id"]).returncode == 0
    assert made["id"] not in {line["id"] for line in data_of(run("token", "list", "--json"))}


def test_messages_are_json_as_well(run: Run) -> None:
    name = new_name()
    data_of(run("tenant", "create", name, "--wait", "--json"))
    deliveries = data_of(run("deliveries", name, "--json"))
    assert (deliveries["deliveries"], deliveries["circuit"]["state"]) == ([], "closed")
    assert data_of(run("returned", name, "--json")) == []
    assert data_of(run("replay", name, "--all", "--json")) == {"replayed": 0}


def test_keys_are_rotated_and_addresses_changed(run: Run) -> None:
    name = new_name()
    first = data_of(run("tenant", "create", name, "--wait", "--json"))["secret_key"]
    second = data_of(run("tenant", "rotate-keys", name, "--overlap", "0", "--wait", "--json"))["secret_key"]
    assert second != first
    assert (
        data_of(run("tenant", "address", name, "https://chat.example.com", "--wait", "--json"))["state"] == "succeeded"
    )
    assert data_of(run("tenant", "show", name, "--json"))["callback_url"] == "https://chat.example.com/"


def test_a_shell_completes_commands() -> None:
    asked = {"_ORCHESTRATOR_COMPLETE": "complete_bash", "COMP_WORDS": "orchestrator tenant su", "COMP_CWORD": "2"}
    done = subprocess.run(
        [ORCHESTRATOR], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["suspend"]


async def test_who_may_log_in_at_the_web_console(run: Run) -> None:
    link = data_of(run("console", "link", "--role", "support", "--json"))["link"]
    async with httpx.AsyncClient(follow_redirects=True, timeout=20) as browser:
        page = await browser.get(link)
        assert "lets you in once, as support" in page.text
        form = {"csrftoken": browser.cookies["starlette_admin_csrftoken"]}
        assert (await browser.post(link, data=form)).url.path == "/console/"
        assert (await browser.get(link)).status_code == 410, "it is used up"
    name = f"{new_name()} at the console"
    assert run("console", "user", name, "--role", "viewer", given="long enough one\nlong enough one\n").returncode == 0
    assert "password: must have" in run("console", "user", name, "--role", "admin", given="short\nshort\n").stderr
    assert [one["role"] for one in data_of(run("console", "users", "--json")) if one["name"] == name] == ["viewer"]
    assert run("console", "remove", name).returncode == 0
    assert run("console", "remove", name).returncode == 3
