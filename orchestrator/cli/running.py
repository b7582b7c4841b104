"""What all commands share: the domain's services, output for people or programs, and exit codes."""

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from tenants import audit
from tenants.errors import ConflictError, DomainError, NotFoundError, QuotaExceededError, UnavailableError
from tenants.services import Services
from tenants.states import Cause

Result = TypeVar("Result")

console = Console(highlight=False)
messages = Console(highlight=False, stderr=True)
"""For people alone, beside what a program reads."""

InstanceArgument = Annotated[str, typer.Argument(metavar="INSTANCE", help="The tenant's instance name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why; it is kept in the audit log.", metavar="TEXT")]


class Exit(IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    """What was asked for was tried, and failed."""
    USAGE = 2
    """The command line makes no sense, or a value breaks a rule."""
    NOT_FOUND = 3
    CONFLICT = 4
    """It contradicts the present state, or what is under way."""
    UNAVAILABLE = 5
    """A server behind us is away; the same may succeed later."""


def run(function: Callable[[Services], Awaitable[Result]]) -> Result:
    """Await `function(services)`; what is wrong is told in red, and as the exit code."""
    # here: they take most of the time that the command line needs to start
    from config.celery import make_celery  # noqa: PLC0415
    from config.settings import Settings  # noqa: PLC0415
    from config.wakeup import celery_wake  # noqa: PLC0415
    from tenants.services import open_services  # noqa: PLC0415

    async def opened() -> Result:
        settings = Settings.load()
        async with open_services(settings, celery_wake(make_celery(settings, "cli"))) as services:
            return await function(services)

    try:
        return asyncio.run(opened())
    except DomainError as error:
        raise fail(str(error), exit_of(error)) from None


def fail(message: str, code: Exit = Exit.FAILED) -> typer.Exit:
    """Tell what is wrong, and give what to raise."""
    messages.print(f"[bold red]{message}[/]", soft_wrap=True)
    return typer.Exit(code)


def exit_of(error: DomainError) -> Exit:
    """The exit code that says what sort of error it is."""
    match error:
        case NotFoundError():
            return Exit.NOT_FOUND
        case ConflictError():
            return Exit.CONFLICT
        case UnavailableError() | QuotaExceededError():
            return Exit.UNAVAILABLE
    return Exit.USAGE


def cause(reason: str | None) -> Cause:
    """Who sits at the console, and why."""
    return Cause(f"cli:{getpass.getuser()}", reason[: audit.REASON_LIMIT] if reason else None)


def show_json(data: Any) -> None:
    """One JSON document."""
    sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def show(rows: Sequence[Any], columns: Iterable[str], *, as_json: bool, title: str | None = None) -> None:
    """Rows of the registry as a table, or as a JSON list; times are told as moments."""
    names = list(columns)
    lines = [{name: value_of(row, name) for name in names} for row in rows]
    if as_json:
        show_json(lines)
        return
    table = Table(*(name.replace("_", " ") for name in names), title=title)
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line.values()))
    console.print(table)


def value_of(row: Any, name: str) -> Any:
    """The value of a row's column, as people and programs read it."""
    value = getattr(row, name)
    if isinstance(value, float) and (name.endswith("_at") or name in {"at", "previous_key_until"}):
        return moment(value)
    return value


def moment(seconds: float) -> str:
    """Unix seconds as people write them, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
