"""What the commands share that suspend, resume or destroy many tenants: which ones, really, and what came of it."""

import sys
from typing import Annotated, Any

import typer

from orchestrator.cli.operations import as_data, show_operation_state
from orchestrator.cli.running import (
    Exit,
    cause,
    complain,
    complete_instance,
    exit_of,
    fail,
    run,
    show_json,
    show_line,
)
from orchestrator.cli.watching import follow
from tenants.core.errors import DomainError
from tenants.lifecycle import operations, registry, requests
from tenants.store.models import Operation, OperationKind, OperationState, TenantState

EVERY = 1_000_000
"""A limit that no number of tenants reaches."""
_SHOWN = 10
"""Names that are shown when somebody is asked about many."""
NamesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="INSTANCE...", help="The tenants' instance names.", autocompletion=complete_instance),
]
FileOption = Annotated[
    typer.FileText | None,
    typer.Option("--names-from", help="A file of instance names, one a line; - is standard input."),
]
InStateOption = Annotated[TenantState | None, typer.Option("--all-in-state", help="All tenants in this state.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Outcome = Operation | DomainError | None
"""What came of a request: an operation, or what forbids it, or nothing, because there was nothing to do."""


def named(names: list[str] | None, names_from: typer.FileText | None, in_state: TenantState | None) -> list[str]:
    """The names of the tenants that the options name: each once, in their order."""
    found = list(names or [])
    if names_from is not None:
        found += [line.strip() for line in names_from if line.strip()]
    if in_state is not None:
        tenants = run(lambda services: registry.search(services.database, state=in_state, limit=EVERY))
        found += [tenant.instance_name for tenant in tenants]
    elif not found:
        raise typer.BadParameter("give names of tenants, --names-from or --all-in-state")
    return list(dict.fromkeys(found))


def confirm_each(names: list[str]) -> None:
    """Ask for the names of tenants that are to be destroyed."""
    _expect_terminal("destroying asks for confirmation")
    for name in names:
        if typer.prompt(f"Type {name} to destroy it with all its accounts", err=True) != name:
            raise fail("not destroyed", Exit.USAGE)


def confirm_number(names: list[str], kind: OperationKind) -> None:
    """Ask for the number of tenants that nobody named: it may be every customer."""
    if not names:
        return
    _expect_terminal(f"this would {kind} {len(names)} tenants, which asks for confirmation")
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    what = " with all their accounts" if kind is OperationKind.DESTROY else ""
    question = f"{shown}\nType {len(names)} to {kind} these {len(names)} tenants{what}"
    if typer.prompt(question, err=True) != str(len(names)):
        raise fail("nothing was changed", Exit.USAGE)


def request(names: list[str], kind: OperationKind, *, wait: bool, reason: str | None, as_json: bool) -> None:
    """Start the workflow on each of the tenants, and tell what came of it; the exit code says it as well."""
    bulk_id = operations.new_id() if len(names) > 1 else None
    outcomes: dict[str, Outcome] = dict(
        run(lambda services: requests.request_many(services, names, kind, cause(reason), bulk_id))
    )
    if wait:
        ended = follow([one.id for one in outcomes.values() if isinstance(one, Operation)])
        outcomes.update((operation.instance_name, operation) for operation in ended)
    if as_json:
        show_json([_outcome_data(name, outcome) for name, outcome in outcomes.items()])
    codes = {_tell(name, outcome, wait=wait, as_json=as_json) for name, outcome in outcomes.items()} - {Exit.OK}
    if codes:
        raise typer.Exit(codes.pop() if len(codes) == 1 else Exit.FAILED)


def _tell(name: str, outcome: Outcome, *, wait: bool, as_json: bool) -> Exit:
    """Tell what came of one of the requests; gives the exit code that says it."""
    if isinstance(outcome, DomainError):
        complain(str(outcome))
        return exit_of(outcome)
    if not as_json:
        if outcome is None:
            show_line(f"{name}: nothing to do")
        else:
            show_operation_state(outcome, as_json=False)
    if wait and outcome is not None and outcome.state is not OperationState.SUCCEEDED:
        complain(f"{name}: {outcome.error or outcome.state}")
        return Exit.FAILED
    return Exit.OK


def _outcome_data(name: str, outcome: Outcome) -> dict[str, Any]:
    operation = as_data(outcome) if isinstance(outcome, Operation) else None
    error = str(outcome) if isinstance(outcome, DomainError) else None
    return {"instance_name": name, "operation": operation, "error": error}


def _expect_terminal(what: str) -> None:
    if not sys.stdin.isatty():
        raise fail(f"{what}: there is no terminal, so give --yes", Exit.USAGE)
