"""`orchestrator operation`: workflows watched, retried, paused and cancelled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from orchestrator.cli.running import (
    Exit,
    JsonOption,
    ReasonOption,
    cause,
    console,
    fail,
    messages,
    run,
    show,
    show_json,
    value_of,
)
from tenants import operations
from tenants.models import UNFINISHED, Operation, OperationKind, OperationState
from tenants.services import Services
from tenants.states import Cause

app = typer.Typer(no_args_is_help=True, help="Operations: the runs of workflows.")

OperationArgument = Annotated[str, typer.Argument(metavar="OPERATION", help="The operation's id.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Show how far it is until it has ended.")]

_POLL_SECONDS = 0.3
_COLUMNS = ("id", "instance_name", "kind", "state", "requested_by", "reason", "error", "created_at", "finished_at")
_STEP_COLUMNS = ("name", "state", "attempts", "done", "total", "error", "started_at", "finished_at")


@app.command("list")
def list_operations(
    *,
    instance_name: Annotated[str | None, typer.Option("--instance", help="Of this tenant only.")] = None,
    kind: Annotated[OperationKind | None, typer.Option(help="Of this kind only.")] = None,
    state: Annotated[OperationState | None, typer.Option(help="In this state only.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List operations, newest first."""
    found = run(
        lambda services: operations.find(services, instance_name=instance_name, kind=kind, state=state, limit=limit)
    )
    show(found, _COLUMNS, as_json=as_json)


@app.command("show")
def show_operation(operation_id: OperationArgument, *, as_json: JsonOption = False) -> None:
    """Show an operation and its steps."""
    operation = run(lambda services: operations.get(services, operation_id))
    if as_json:
        show_json(as_data(operation))
        return
    show([operation], _COLUMNS, as_json=False)
    show(operation.steps, _STEP_COLUMNS, as_json=False, title="steps")
    if operation.result:
        console.print(operation.result)


@app.command()
def watch(operation_id: OperationArgument, *, as_json: JsonOption = False) -> None:
    """Show how far an operation is until it has ended; exit code 1 when it failed."""
    finish(run(lambda services: watched(services, operation_id)), as_json=as_json)


@app.command()
def retry(
    operation_id: OperationArgument,
    *,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with an operation that failed or was cancelled, from the step that failed."""
    # here: the workflows bring most of the domain with them
    from tenants.workflows import WORKFLOWS  # noqa: PLC0415

    async def go(services: Services, operation_id: str, why: Cause) -> Operation:
        return await operations.retry(services, WORKFLOWS, operation_id, why)

    _act(go, operation_id, wait=wait, reason=reason, as_json=as_json)


@app.command()
def cancel(
    operation_id: OperationArgument,
    *,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an operation after what is under way; the end of a tenant cannot be cancelled."""
    _act(operations.cancel, operation_id, wait=wait, reason=reason, as_json=as_json)


@app.command()
def pause(operation_id: OperationArgument, *, reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Let an operation rest after what is under way."""
    _act(operations.pause, operation_id, wait=False, reason=reason, as_json=as_json)


@app.command()
def resume(
    operation_id: OperationArgument,
    *,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with an operation that rests."""
    _act(operations.go_on, operation_id, wait=wait, reason=reason, as_json=as_json)


def _act(
    action: Callable[[Services, str, Cause], Awaitable[Operation]],
    operation_id: str,
    *,
    wait: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    async def act(services: Services) -> Operation:
        operation = await action(services, operation_id, cause(reason))
        return await watched(services, operation.id) if wait else operation

    finish(run(act), as_json=as_json)


def finish(operation: Operation, *, as_json: bool) -> None:
    """Tell how the operation stands, and end with a failure when it is one."""
    if as_json:
        show_json(as_data(operation))
    else:
        console.print(f"{operation.kind} of {operation.instance_name}: {operation.state}  (operation {operation.id})")
    if operation.state is OperationState.FAILED:
        raise fail(operation.error or "it failed")
    if operation.state is OperationState.CANCELLED:
        raise typer.Exit(Exit.FAILED)


async def watched(services: Services, operation_id: str) -> Operation:
    """The operation once it has ended, or rests; a bar for each step on standard error meanwhile."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=messages,
    )
    bars: dict[str, TaskID] = {}
    with progress:
        while True:
            operation = await operations.get(services, operation_id)
            for step in operation.steps:
                if step.name not in bars:
                    bars[step.name] = progress.add_task(step.name, told="", start=False)
                bar = bars[step.name]
                if step.started_at is not None and not progress.tasks[bar].started:
                    progress.start_task(bar)
                told = step.error or f"{step.done}/{step.total}" if step.attempts else ""
                progress.update(bar, completed=step.done, total=step.total, told=told)
                if step.finished_at is not None:
                    progress.stop_task(bar)
            if operation.state not in UNFINISHED or operation.state is OperationState.PAUSED:
                return operation
            await asyncio.sleep(_POLL_SECONDS)


def as_data(operation: Operation) -> dict[str, Any]:
    """The operation for a program."""
    data = {name: value_of(operation, name) for name in (*_COLUMNS, "bulk_id", "wanted", "result", "celery_id")}
    return {**data, "steps": [{name: value_of(step, name) for name in _STEP_COLUMNS} for step in operation.steps]}
