"""docker-compose.yml says what the code knows: no Docker engine is needed to see that."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from config.settings import ENV_PREFIX, Settings
from orchestrator.cli import app as cli

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("image") == "lhc-xmpp-orchestrator"}
EXAMPLE = dict(line.split("=", 1) for line in (PROJECT / ".env.example").read_text().splitlines() if "=" in line)


def test_every_process_of_the_launcher_is_a_service() -> None:
    programs = re.findall(r"^programs=(.*)", (PROJECT / "config" / "supervisord.conf").read_text(), re.MULTILINE)[1]
    assert set(programs.split(",")) | {"migrate"} == set(OURS)


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_exists(name: str) -> None:
    program, *words = OURS[name]["command"].split()
    if program == "celery":
        assert words[:3] == ["-A", "orchestrator.app", name]
    else:
        assert program == "orchestrator"
        assert words[0] in typer.main.get_command(cli).commands  # type: ignore[attr-defined]  # a group of commands


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_one_that_exists(name: str) -> None:
    fields = {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}
    assert set(OURS[name]["environment"]) <= fields


def test_only_the_api_is_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api"}


def test_the_example_knows_every_variable_and_no_secret_has_a_default() -> None:
    assert {variable for variable, _ in re.findall(r"\$\{(\w+)(:[?-])", TEXT)} == set(EXAMPLE)
    secrets = {name for name in EXAMPLE if re.search("PASSWORD|SECRET|KEY|TOKEN", name)}
    assert {EXAMPLE[name] for name in secrets} == {""}
    assert {f"${{{name}:?}}" for name in secrets} <= set(re.findall(r"\$\{\w+:\?\}", TEXT))
