"""What all commands share: the domain's services, output for people or programs, and exit codes."""

import asyncio
import getpass
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Any, TypeVar

import structlog
import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from config.settings import ENV_PREFIX, Settings
from tenants.core.errors import (
    ConflictError,
    DomainError,
    InvalidInputError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)
from tenants.lifecycle import audit, registry
from tenants.lifecycle.audit import Cause
from tenants.outbound import callback_urls
from tenants.process.services import Services, open_services
from tenants.store.database import DATABASE_FAILED, first_line, sqlite_file

Result = TypeVar("Result")

_WHERE = f"is this the folder of the system ({ENV_PREFIX}STATE_DIR, .state by default)?"
_WIDE = 1000
"""Width of the output when it is no terminal: lines that a program reads must not be broken."""
_WHOLE = {"id", "kind", "state", "old_state", "new_state", "scope"}
"""Columns whose text stays on one line, because people copy it or it is one word. Others may be wrapped."""
_DATE = len("2026-01-01")
_COMPLETIONS = 50

console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
messages = Console(highlight=False, stderr=True, width=None if sys.stderr.isatty() else _WIDE)
"""Messages for people, apart from the output that a program may read."""


class Exit(IntEnum):
    """Exit codes of commands."""

    OK = 0
    FAILED = 1
    """What was asked for was tried, and did not succeed."""
    USAGE = 2
    """The command line makes no sense, or a value breaks a rule."""
    NOT_FOUND = 3
    CONFLICT = 4
    """The request contradicts the present state, or what is under way."""
    UNAVAILABLE = 5
    """A server behind us is away; the same may succeed later."""
    INTERRUPTED = 130
    """Ctrl-C, as shells count it."""


def complete_instance(incomplete: str) -> list[str]:
    """Names of tenants that begin so, for the shell; none when they cannot be read, and nothing is said."""
    messages.quiet = True
    try:
        found = run(lambda services: registry.search(services.database, part=incomplete, limit=_COMPLETIONS))
    except typer.Exit:
        return []
    return [tenant.instance_name for tenant in found if tenant.instance_name.startswith(incomplete)]


InstanceArgument = Annotated[
    str, typer.Argument(metavar="INSTANCE", help="The tenant's instance name.", autocompletion=complete_instance)
]
InstanceOption = Annotated[
    str | None, typer.Option("--instance", help="Of this tenant only.", autocompletion=complete_instance)
]
OptionalInstance = Annotated[
    str | None,
    typer.Argument(metavar="[INSTANCE]", help="This tenant only; all when left out.", autocompletion=complete_instance),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; it is kept in the audit log.", metavar="TEXT")]


def run(function: Callable[[Services], Awaitable[Result]]) -> Result:
    """Await `function(services)`. An error is shown in red, and decides the exit code."""
    # imported here: showing help needs no Celery

    from config.celery import make_celery  # noqa: PLC0415
    from config.wakeup import celery_wake  # noqa: PLC0415

    _log_to_standard_error()
    settings = load_settings()
    file = sqlite_file(settings.database_url.get_secret_value())
    if file is not None and not file.exists():
        # SQLite would create it
        raise fail(f"there is no database {file}; {_WHERE}", Exit.UNAVAILABLE)

    async def opened() -> Result:
        async with open_services(settings, celery_wake(make_celery(settings, "cli"))) as services:
            return await function(services)

    try:
        return asyncio.run(opened())
    except DomainError as error:
        raise fail(str(error), exit_of(error)) from None
    except DATABASE_FAILED as error:
        raise fail(f"the database cannot be used: {first_line(error)}; {_WHERE}", Exit.UNAVAILABLE) from None
    except KeyboardInterrupt:
        raise fail("interrupted; a workflow that was begun goes on", Exit.INTERRUPTED) from None


def load_settings() -> Settings:
    """The settings; what is wrong with them is told."""
    try:
        return Settings.load()
    except ValidationError as error:
        # without the values: some are secrets
        wrong = "; ".join(f"{ENV_PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        raise fail(wrong, Exit.USAGE) from None


def _log_to_standard_error() -> None:
    """Log errors only: repeated attempts, and wake-ups that the sweep replaces, do not matter to a person here."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def complain(message: str) -> None:
    """Tell what is wrong."""
    messages.print(plain(message, style="bold red"), soft_wrap=True)


def fail(message: str, code: Exit = Exit.FAILED) -> typer.Exit:
    """Tell what is wrong, and give what to raise."""
    complain(message)
    return typer.Exit(code)


def exit_of(error: DomainError) -> Exit:
    """The exit code that says what sort of error it is."""
    match error:
        case InvalidInputError():
            return Exit.USAGE
        case NotFoundError():
            return Exit.NOT_FOUND
        case ConflictError():
            return Exit.CONFLICT
        case UnavailableError() | QuotaExceededError():
            return Exit.UNAVAILABLE
    return Exit.FAILED


def cause(reason: str | None) -> Cause:
    """The user of this terminal, and the reason that was given."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return Cause(f"cli:{user}", reason[: audit.REASON_LIMIT] if reason else None)


def plain(text: object, style: str = "") -> Text:
    """What others wrote, as it is: no markup of ours, and nothing that steers a terminal."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text)), style)


def show_json(data: Any) -> None:
    """One JSON document; moments as in RFC 3339."""
    sys.stdout.write(json.dumps(data, indent=2, default=_instant) + "\n")
    sys.stdout.flush()


def _instant(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


def show_line(text: object) -> None:
    """A line that is not broken, whatever it holds: a key, or what a program may look for."""
    console.print(plain(text), soft_wrap=True)


def show_table(rows: Sequence[Any], columns: Iterable[str]) -> None:
    """Rows of the registry as a table, in 80 columns if need be; moments are told in UTC."""
    names = list(columns)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        at_least = _DATE if _is_moment(name) else None
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name in _WHOLE, min_width=at_least)
    for row in rows:
        table.add_row(*(_cell(value) for value in data_of(row, names).values()))
    console.print(table)


def _cell(value: Any) -> Text:
    if value is None:
        return Text()
    # a space, so that a moment is broken between date and time
    return plain(value.isoformat(" ", "seconds").removesuffix("+00:00") if isinstance(value, datetime) else value)


def show_lines(values: dict[str, Any]) -> None:
    """Values of one thing, a line for each."""
    width = max(map(len, values))
    for name, value in values.items():
        show_line(f"{name.replace('_', ' '):>{width}}  {_cell(value)}")


def show_limit(found: Sequence[Any], limit: int) -> None:
    """Tell that there may be more."""
    if len(found) == limit:
        messages.print(f"the first {limit}; more with --limit")


def data_of(row: Any, columns: Iterable[str]) -> dict[str, Any]:
    """The row's values, with moments instead of Unix seconds."""
    return {name: _value(name, getattr(row, name)) for name in columns}


def _value(name: str, value: Any) -> Any:
    if name == "callback_url" and value:
        return callback_urls.shown(value)
    return datetime.fromtimestamp(value, UTC) if _is_moment(name) and isinstance(value, float) else value


def _is_moment(name: str) -> bool:
    return name == "at" or name.endswith(("_at", "_until"))
