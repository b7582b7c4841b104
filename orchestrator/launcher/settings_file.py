"""The file that tells every command of a private system's settings."""

import os
from collections.abc import Mapping

from config.settings import ENV_PREFIX, Settings


def text(values: Mapping[str, object]) -> str:
    """The settings as python-dotenv reads them.

    Those of the environment that the system is started in are among them, and win: who calls a command from another
    terminal must not act on less, such as on the default host alone.
    """
    said = {name: os.environ.get(_variable(name)) for name in Settings.model_fields}
    all_values = dict(values) | {name: value for name, value in said.items() if value is not None}
    lines = (f"{_variable(name)}={_quoted(str(value))}" for name, value in all_values.items())
    return "# Written by script/up; the environment wins over it.\n" + "\n".join(lines) + "\n"


def _variable(name: str) -> str:
    return f"{ENV_PREFIX}{name.upper()}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
