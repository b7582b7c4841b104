"""docker-compose.yml says what the code knows: no Docker engine is needed to see that."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from celery.bin.celery import celery

from config.celery import make_celery
from config.settings import ENV_PREFIX, Settings
from orchestrator.cli import app as cli

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "lhc-xmpp-orchestrator"}
EXAMPLE = dict(line.split("=", 1) for line in (PROJECT / ".env.example").read_text().splitlines() if "=" in line)


def test_every_process_of_the_launcher_is_a_service() -> None:
    (programs,) = re.findall(r"^programs=(.*)", (PROJECT / "config" / "supervisord.conf").read_text(), re.MULTILINE)
    assert set(programs.split(",")) | {"migrate"} == set(OURS)


def test_there_is_more_than_one_pool_and_the_stores_keep_their_data() -> None:
    assert OURS["pool"]["deploy"]["replicas"] > 1
    assert {name for name, service in SERVICES.items() if "volumes" in service} == {"db", "rabbitmq"}


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_exists_with_options_that_exist(name: str) -> None:
    program, *words = shlex.split(OURS[name]["command"])
    if program == "celery":
        assert words[:3] == ["-A", "orchestrator.app", words[2]]
        commands, words = celery.commands, words[2:]
    else:
        assert program == "orchestrator"
        commands = typer.main.get_command(cli).commands  # type: ignore[attr-defined]  # a group of commands
    given = {word.split("=")[0] for word in words[1:] if word.startswith("-")}
    known = {spelling for option in commands[words[0]].params for spelling in option.opts}
    # Flower takes its options to itself: these are its own
    assert given <= known | ({"--address", "--port", "--tasks-columns"} if name == "flower" else set())


def test_each_queue_has_its_worker() -> None:
    named = [re.findall(r"--queues[ =](\S+)", OURS[name]["command"])[0] for name in ("worker", "lifecycle")]
    assert sorted(named) == sorted(queue.name for queue in make_celery(Settings()).conf.task_queues)


def test_a_container_is_given_longer_than_the_soft_shutdown() -> None:
    soft = make_celery(Settings()).conf.worker_soft_shutdown_timeout
    assert all(float(service["stop_grace_period"].removesuffix("s")) > soft for service in OURS.values())


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_that_exists(name: str) -> None:
    fields = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    assert set(OURS[name]["environment"]) <= fields


def test_only_the_api_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api"}
    assert all(service["networks"] == ["private"] and "network_mode" not in service for service in SERVICES.values())


def test_the_example_knows_every_variable_and_no_secret_has_a_default() -> None:
    uses = re.findall(r"(?<!\$)\$(?:\{(\w+)([^}]*)\}|(\w+))", TEXT)
    assert {braced or bare for braced, _, bare in uses} == set(EXAMPLE)
    secrets = {name for name in EXAMPLE if re.search("PASSWORD|SECRET|KEY|TOKEN", name)}
    assert {EXAMPLE[name] for name in secrets} == {""}
    # each use: a single one with a default would start a server that anybody can enter
    assert {(braced or bare, rest) for braced, rest, bare in uses if (braced or bare) in secrets} == {
        (name, ":?") for name in secrets
    }
