"""Messages on the command line: what became of operators' messages, what visitors wrote and came back, and replay."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake
from tenants import circuits, delivery_log, returned
from tenants.errors import DomainError
from tenants.models import MAX_ID, CallbackMessage, MessageState, ReturnedMessage
from tenants.services import Services, open_services

Result = TypeVar("Result")

console = Console(highlight=False)

InstanceArgument = Annotated[str, typer.Argument(metavar="INSTANCE", help="The tenant's instance name.")]


def deliveries(
    instance_name: InstanceArgument,
    state: Annotated[MessageState | None, typer.Option(help="Only messages in this state.")] = None,
    after: Annotated[int, typer.Option(min=0, max=MAX_ID, help="Only messages with an id above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> None:
    """Show what became of a tenant's operators' messages, oldest first."""

    async def read(services: Services) -> tuple[list[CallbackMessage], circuits.CircuitView]:
        found = await delivery_log.messages(services, instance_name, state=state, after=after, limit=limit)
        return found, await circuits.view(services, instance_name)

    found, circuit = _run(read)
    table = Table("id", "from", "to", "state", "attempts", "last error", "stored", "finished")
    for message in found:
        table.add_row(
            str(message.id),
            message.sender,
            message.receiver,
            message.state.value,
            str(message.attempts),
            message.last_error or "",
            _time(message.created_at),
            _time(message.finished_at),
        )
    console.print(table)
    console.print(f"{len(found)} shown; the circuit is {circuit.state.value}")


def replay(
    instance_name: InstanceArgument,
    *,
    message_id: Annotated[int | None, typer.Option("--message", min=1, max=MAX_ID, help="Id of the message.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead messages of the tenant.")] = False,
) -> None:
    """Try dead messages again, and close the tenant's circuit: for when its LHC has been mended."""
    if (message_id is None) != everything:
        raise typer.BadParameter("give one of --message ID and --all")

    async def start(services: Services) -> int:
        if message_id is None:
            return await delivery_log.replay_all(services, instance_name)
        await delivery_log.replay(services, instance_name, message_id)
        return 1

    console.print(f"{_run(start)} to be delivered again")


def returned_messages(
    instance_name: InstanceArgument,
    *,
    send: Annotated[int | None, typer.Option("--replay", min=1, max=MAX_ID, help="Send this one again.")] = None,
    send_all: Annotated[bool, typer.Option("--replay-all", help="Send all again that were not yet.")] = False,
    after: Annotated[int, typer.Option(min=0, max=MAX_ID, help="Only messages with an id above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
) -> None:
    """Show visitors' messages that ejabberd gave back, oldest first, or send them to their operators again."""

    async def work(services: Services) -> list[ReturnedMessage]:
        if send is not None:
            await returned.replay(services, instance_name, send)
        if send_all:
            await returned.replay_all(services, instance_name)
        return await returned.find(services, instance_name, after=after, limit=limit)

    found = _run(work)
    table = Table("id", "from", "to", "condition", "reason", "came back", "sent again")
    for message in found:
        table.add_row(
            str(message.id),
            message.visitor,
            message.operator,
            message.condition,
            message.reason or "",
            _time(message.created_at),
            _time(message.replayed_at),
        )
    console.print(table)


def _run(function: Callable[[Services], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        settings = Settings.load()
        async with open_services(settings, celery_wake(make_celery(settings, "cli"))) as services:
            return await function(services)

    try:
        return asyncio.run(run())
    except DomainError as error:
        console.print(f"[bold red]{error}[/]")
        raise typer.Exit(1) from None


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
