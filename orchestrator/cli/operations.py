"""`orchestrator operation`: workflows watched, retried, paused and cancelled."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from orchestrator.cli.running import (
    InstanceOption,
    JsonOption,
    ReasonOption,
    cause,
    data_of,
    fail,
    run,
    show_json,
    show_limit,
    show_line,
    show_lines,
    show_table,
)
from orchestrator.cli.watching import follow
from tenants.lifecycle import engine, operations
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import Operation, OperationKind, OperationState

app = typer.Typer(no_args_is_help=True, help="Operations: the runs of workflows.")

OperationArgument = Annotated[str, typer.Argument(metavar="OPERATION", help="The operation's id.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Show how far it is until it has ended.")]

_LINE = ("id", "instance_name", "kind", "state", "created_at")
_STEP_LINE = ("name", "state", "attempts", "done", "total", "finished_at", "error")
_STEP = ("name", "state", "attempts", "done", "total", "error", "started_at", "finished_at")
_DETAILS = (
    *("id", "instance_name", "kind", "state", "wanted", "requested_by", "reason", "bulk_id", "error", "result"),
    *("celery_id", "created_at", "started_at", "finished_at"),
)


@app.command("list")
def list_operations(
    *,
    instance_name: InstanceOption = None,
    kind: Annotated[OperationKind | None, typer.Option(help="Of this kind only.")] = None,
    state: Annotated[OperationState | None, typer.Option(help="In this state only.")] = None,
    bulk: Annotated[str | None, typer.Option(help="Begun together, with this bulk id.")] = None,
    after: Annotated[str | None, typer.Option(help="Older than the one of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List operations, newest first."""
    found = run(
        lambda services: operations.find(
            services.database,
            instance_name=instance_name,
            kind=kind,
            state=state,
            bulk_id=bulk,
            after=after,
            limit=limit,
        )
    )
    if as_json:
        show_json([as_data(operation) for operation in found])
    else:
        show_table(found, _LINE)
        show_limit(found, limit)


@app.command("show")
def show_operation(operation_id: OperationArgument, *, as_json: JsonOption = False) -> None:
    """Show an operation and its steps."""
    operation = run(lambda services: operations.get(services.database, operation_id))
    if as_json:
        show_json(as_data(operation))
    else:
        show_lines(data_of(operation, _DETAILS))
        show_table(operation.steps, _STEP_LINE)


@app.command()
def watch(operation_id: OperationArgument, *, as_json: JsonOption = False) -> None:
    """Show how far an operation is until it has ended, or rests; exit code 0 when it has succeeded."""
    (operation,) = follow([operation_id])
    show_operation_state(operation, as_json=as_json)
    expect(operation, OperationState.SUCCEEDED)


async def _retry(services: Services, operation_id: str, why: Cause) -> Operation:
    # here: the workflows bring most of the domain with them
    from tenants.workflows.workflows import WORKFLOWS  # noqa: PLC0415

    return await engine.retry(services, WORKFLOWS, operation_id, why)


def _add_command(
    name: str,
    action: Callable[[Services, str, Cause], Awaitable[Operation]],
    text: str,
    wanted: OperationState = OperationState.SUCCEEDED,
) -> None:
    """A command that changes the course of an operation.

    Args:
        name: of the command.
        action: what it does to the operation of that id.
        text: its help.
        wanted: the state that is a success when somebody waits for the end.
    """

    @app.command(name, help=text)
    def change(
        operation_id: OperationArgument,
        *,
        wait: WaitOption = False,
        reason: ReasonOption = None,
        as_json: JsonOption = False,
    ) -> None:
        operation = run(lambda services: action(services, operation_id, cause(reason)))
        show_started(operation, wait=wait, as_json=as_json, wanted=wanted)


_add_command("retry", _retry, "Go on with an operation that failed or was cancelled, from the step that failed.")
_add_command(
    "cancel",
    operations.cancel,
    "End an operation after what is under way; the end of a tenant cannot be cancelled.",
    OperationState.CANCELLED,
)
_add_command("pause", operations.pause, "Let an operation rest after what is under way.", OperationState.PAUSED)
_add_command("resume", operations.go_on, "Go on with an operation that rests.")


def show_started(
    operation: Operation, *, wait: bool, as_json: bool, wanted: OperationState = OperationState.SUCCEEDED
) -> None:
    """Show an operation that was just begun, or with `wait` how it ended; that must be as wanted."""
    if wait:
        (operation,) = follow([operation.id])
    show_operation_state(operation, as_json=as_json)
    if wait:
        expect(operation, wanted)


def show_operation_state(operation: Operation, *, as_json: bool) -> None:
    """Tell how the operation stands, and what it found out."""
    if as_json:
        show_json(as_data(operation))
        return
    show_line(f"{operation.kind} of {operation.instance_name}: {operation.state} (operation {operation.id})")
    if operation.result:
        show_lines(operation.result)


def expect(operation: Operation, wanted: OperationState) -> None:
    """End with a failure when the operation has come to another end."""
    if operation.state is not wanted:
        raise fail(operation.error or f"it is {operation.state}")


def as_data(operation: Operation) -> dict[str, Any]:
    """The operation for a program."""
    return {**data_of(operation, _DETAILS), "steps": [data_of(step, _STEP) for step in operation.steps]}
