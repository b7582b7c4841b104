"""Messages on the command line: what became of operators' messages, what visitors wrote and came back, and replay."""

from typing import Annotated

import typer

from orchestrator.cli.running import (
    InstanceArgument,
    JsonOption,
    cause,
    data_of,
    run,
    show_json,
    show_limit,
    show_line,
    show_table,
)
from tenants.conversations import bounces
from tenants.delivery import circuits, history
from tenants.process.services import Services
from tenants.store.models import MAX_ID, CallbackMessage, MessageState, ReturnedMessage

_MESSAGE = ("id", "sender", "receiver", "state", "attempts", "last_error", "created_at", "finished_at")
_RETURNED = ("id", "visitor", "operator", "condition", "reason", "created_at", "replayed_at")
_CIRCUIT = ("state", "failures", "opened_at", "next_probe_at")


def deliveries(
    instance_name: InstanceArgument,
    *,
    state: Annotated[MessageState | None, typer.Option(help="Only messages in this state.")] = None,
    after: Annotated[int, typer.Option(min=0, max=MAX_ID, help="Only messages with an id above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show what became of a tenant's operators' messages, oldest first, and the circuit breaker of its LHC."""

    async def read(services: Services) -> tuple[list[CallbackMessage], circuits.CircuitSummary]:
        found = await history.messages(services.database, instance_name, state=state, after=after, limit=limit)
        return found, await circuits.view(services, instance_name)

    found, circuit = run(read)
    if as_json:
        messages = [data_of(message, _MESSAGE) for message in found]
        show_json({"deliveries": messages, "circuit": data_of(circuit, _CIRCUIT)})
    else:
        show_table(found, _MESSAGE)
        show_line(f"{len(found)} shown; the circuit is {circuit.state.value}")
        show_limit(found, limit)


def replay(
    instance_name: InstanceArgument,
    *,
    message_id: Annotated[int | None, typer.Option("--message", min=1, max=MAX_ID, help="Id of the message.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead messages of the tenant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Try dead messages again, and close the tenant's circuit: for when its LHC has been mended."""
    if (message_id is None) != everything:
        raise typer.BadParameter("give one of --message ID and --all")

    async def start(services: Services) -> int:
        if message_id is None:
            return await history.replay_all(services, instance_name, cause(None))
        await history.replay(services, instance_name, message_id, cause(None))
        return 1

    count = run(start)
    if as_json:
        show_json({"replayed": count})
    else:
        show_line(f"{count} to be delivered again")


def returned_messages(
    instance_name: InstanceArgument,
    *,
    send: Annotated[int | None, typer.Option("--replay", min=1, max=MAX_ID, help="Send this one again.")] = None,
    send_all: Annotated[bool, typer.Option("--replay-all", help="Send all again that were not yet.")] = False,
    after: Annotated[int, typer.Option(min=0, max=MAX_ID, help="Only messages with an id above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show visitors' messages that ejabberd gave back, oldest first, or send them to their operators again."""

    async def work(services: Services) -> list[ReturnedMessage]:
        if send is not None:
            await bounces.replay(services, instance_name, send, cause(None))
        if send_all:
            await bounces.replay_all(services, instance_name, cause(None))
        return await bounces.find(services.database, instance_name, after=after, limit=limit)

    found = run(work)
    if as_json:
        show_json([data_of(message, _RETURNED) for message in found])
    else:
        show_table(found, _RETURNED)
        show_limit(found, limit)
