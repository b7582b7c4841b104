"""The documentation names what there is. Its links and anchors among its own pages are checked by `script/docs`."""

import base64
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from config import task_names
from config.settings import ENV_PREFIX, Settings
from orchestrator.cli import app as cli
from tenants.core import scram
from tenants.core.scram import Verifier
from tenants.lifecycle.tenant_settings import check_first_operator

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
PAGES = [README, *sorted((PROJECT / "docs").glob("*.md"))]
EJABBERD = PROJECT / "config" / "ejabberd" / "ejabberd.yml"
COMMANDS: dict[str, Any] = typer.main.get_command(cli).commands  # type: ignore[attr-defined]  # a group of commands
FOLDERS = {f"{ENV_PREFIX}{name}_DIR" for name in ("STATE", "SECRETS")} | {f"{ENV_PREFIX}SCREENSHOTS"}  # no settings

of_each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code(page: Path) -> list[str]:
    """What is code on the page: spans within a line, and lines of blocks."""
    text = page.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    indented = re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)
    return lines + indented + re.findall(r"`([^`\n]+)`", text)


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text())
    assert [link for link in links if "://" not in link and not (PROJECT / link).exists()] == []


@of_each_page
def test_every_script_is_there(page: Path) -> None:
    scripts = {found for line in code(page) for found in re.findall(r"(?<![\w/])(?:script|\.ci)/\w+", line)}
    assert [script for script in scripts if not os.access(PROJECT / script, os.X_OK)] == []


@of_each_page
def test_every_command_is_there_with_its_options(page: Path) -> None:
    for words in _calls(page):
        name, *rest = words
        assert name in COMMANDS, words
        commands = [COMMANDS[name]]
        if rest and (group := getattr(COMMANDS[name], "commands", None)):
            # `create|list`: several at once
            commands = [group[one] for one in re.split(r"\\?\|", rest[0])]
        given = {word.partition("=")[0] for word in rest if word.startswith("--")}
        params = [parameter for command in commands for parameter in command.params]
        known = {option for parameter in params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert given <= known, words


def _calls(page: Path) -> Iterator[list[str]]:
    """The command lines of `orchestrator`, without the brackets of what may be left out."""
    for line in code(page):
        for call in re.findall(r"(?<![\w-])orchestrator ([a-z][^;…)>]*)", line):
            yield re.sub(r"[\[\]]", " ", call).split(" | ")[0].split()


@of_each_page
def test_every_setting_is_one_that_exists(page: Path) -> None:
    named = set(re.findall(rf"{ENV_PREFIX}[A-Z_]*[A-Z]", page.read_text()))
    assert named - FOLDERS <= {f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields}


@of_each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    folders = "config|tenants|xmpp_pool|tasks|orchestrator|bench|tests|docs"
    file = re.compile(rf"(?<![\w./-])(?:{folders})/[\w./-]+\.[a-z]+\b")
    named = {found for span in code(page) for found in file.findall(span)}
    assert [one for one in sorted(named) if not (PROJECT / one).exists()] == []


def test_every_celery_task_is_on_its_page() -> None:
    page = (PROJECT / "docs" / "celery.md").read_text()
    names = [value for name, value in vars(task_names).items() if name.isupper()]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_the_verifier_that_the_page_makes_is_the_passwords() -> None:
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "celery.md").read_text(), re.DOTALL)
        if "scram =" in block
    )
    made: dict[str, Any] = {"base64": base64, "hashlib": hashlib, "hmac": hmac, "secrets": secrets}
    exec(example, made)  # noqa: S102 - our own page
    verifier = Verifier.read(check_first_operator(made["operator"])["scram"], "scram")
    assert verifier == scram.derive("a long one", verifier.salt)


def test_every_line_of_the_ejabberd_configuration_is_on_its_page() -> None:
    named = {word for span in code(PROJECT / "docs" / "ejabberd.md") for word in re.findall(r"[\w/]+", span)}
    assert set(_keys(yaml.safe_load(EJABBERD.read_text()))) - named == set()


def _keys(part: Any) -> Iterator[str]:
    match part:
        case dict():
            for key, value in part.items():
                # the component's own name is a value here
                yield from () if "$" in key else (key,)
                yield from _keys(value)
        case list():
            for value in part:
                yield from _keys(value)
