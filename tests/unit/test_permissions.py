"""ejabberd lets the orchestrator call what it calls, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
CLIENTS = sorted((PROJECT / "tenants" / "ejabberd").glob("*.py"))
CALLING = {"_call", "call_each", "_run", "_pages"}
"""How the client's methods call a command: by its name, as the first argument."""


def allowed() -> list[str]:
    template = Template((PROJECT / "config" / "ejabberd" / "ejabberd.yml").read_text())
    # what is put in says nothing of permissions
    values = dict.fromkeys(template.get_identifiers(), "1")
    config: dict[str, Any] = yaml.safe_load(template.substitute(values))
    (permission,) = config["api_permissions"].values()
    commands: list[str] = permission["what"]
    return commands


def called() -> Iterator[str]:
    for client in CLIENTS:
        for node in ast.walk(ast.parse(client.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLING:
                name = node.args[0]
                # one that is only passed on is a constant where it came from
                if isinstance(name, ast.Constant):
                    # a version may follow
                    yield str(name.value).partition("/")[0]


def test_every_command_that_is_allowed_is_called_and_the_other_way_round() -> None:
    commands = allowed()
    assert len(commands) == len(set(commands))
    assert set(commands) == set(called())
