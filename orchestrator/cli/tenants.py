"""`orchestrator tenant`: tenants made, changed, suspended, resumed, imported and destroyed."""

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer
from rich.prompt import Prompt

from orchestrator.cli.operations import WaitOption, as_data, finish, watched
from orchestrator.cli.running import (
    Exit,
    InstanceArgument,
    JsonOption,
    ReasonOption,
    cause,
    console,
    exit_of,
    fail,
    messages,
    run,
    show,
    show_json,
    value_of,
)
from tenants import importing, operations, registry
from tenants.errors import DomainError
from tenants.models import Operation, OperationKind, OperationState, TenantState
from tenants.registry import Created, TenantSpec
from tenants.scram import make_verifier
from tenants.secrets import digest, new_key
from tenants.services import Services
from tenants.specs import TenantSettings, check_first_operator, check_settings

app = typer.Typer(no_args_is_help=True, help="Tenants: the LHC instances that are served.")

_COLUMNS = ("instance_name", "state", "callback_url", "created_at", "updated_at")
_DETAILS = (*_COLUMNS, *(name for name in TenantSettings.model_fields if name != "callback_url"), "previous_key_until")

NamesArgument = Annotated[list[str], typer.Argument(metavar="INSTANCE...", help="The tenants' instance names.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help=f"A setting; without a value back to its default. {', '.join(TenantSettings.model_fields)}.",
    ),
]


@app.command("list")
def list_tenants(
    *,
    state: Annotated[TenantState | None, typer.Option(help="In this state only.")] = None,
    search: Annotated[str | None, typer.Option(help="A part of the name.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List tenants by name; destroyed ones only when asked for by that state."""
    found = run(lambda services: registry.search(services, state=state, part=search, limit=limit))
    show(found, _COLUMNS, as_json=as_json)


@app.command("show")
def show_tenant(instance_name: InstanceArgument, *, as_json: JsonOption = False) -> None:
    """Show a tenant: its settings, its accounts, and what was done to it last."""

    async def read(services: Services) -> dict[str, Any]:
        tenant = await registry.get(services, instance_name)
        async with services.database.read() as session:
            accounts = await registry.count_accounts(session, instance_name)
        latest = await operations.latest(services, instance_name)
        return {
            **{name: value_of(tenant, name) for name in _DETAILS},
            "rosters": registry.groups(services, instance_name),
            "accounts": {kind.value: count for kind, count in accounts.items()},
            "operation": as_data(latest) if latest else None,
        }

    details = run(read)
    if as_json:
        show_json(details)
        return
    operation = details.pop("operation")
    for name, value in details.items():
        console.print(f"{name.replace('_', ' '):>20}  {'' if value is None else value}")
    if operation is not None:
        console.print(f"{'last operation':>20}  {operation['kind']}, {operation['state']} ({operation['id']})")


@app.command()
def create(
    instance_name: InstanceArgument,
    *,
    settings: SetOption = None,
    operator: Annotated[
        str | None, typer.Option(help="Username of the first operator; the password is asked for.")
    ] = None,
    nick: Annotated[str | None, typer.Option(help="The first operator's name.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the operator's password from standard input.")
    ] = False,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant. Its key is shown once."""
    password = _password(from_stdin=password_stdin) if operator is not None else None

    async def make(services: Services) -> Created:
        given: dict[str, Any] | None = None
        if operator is not None and password is not None:
            verifier = await make_verifier(password)
            given = check_first_operator({"username": operator, "nick": nick, "scram": verifier.arguments()})
        spec = TenantSpec(_settings(settings), operator=given)
        return await registry.put(services, instance_name, spec, cause(reason), must_be_new=True)

    _made(make, wait=wait, as_json=as_json)


@app.command("import")
def import_tenant(
    instance_name: InstanceArgument,
    *,
    settings: SetOption = None,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a tenant that exists in ejabberd, made by another system, into the registry. Its key is shown once."""

    async def make(services: Services) -> Created:
        return await importing.start(services, instance_name, cause(reason), TenantSpec(_settings(settings)))

    _made(make, wait=wait, as_json=as_json)


@app.command()
def update(
    instance_name: InstanceArgument,
    settings: SetOption = None,
    *,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change settings of a tenant."""

    async def change(services: Services) -> Created:
        await registry.get(services, instance_name)
        return await registry.put(services, instance_name, TenantSpec(_settings(settings)), cause(reason))

    show([run(change).tenant], _DETAILS if as_json else _COLUMNS, as_json=as_json)


@app.command()
def suspend(
    names: NamesArgument, *, wait: WaitOption = False, reason: ReasonOption = None, as_json: JsonOption = False
) -> None:
    """Stop the traffic of tenants; their accounts stay."""
    _request(names, OperationKind.SUSPEND, wait=wait, reason=reason, as_json=as_json)


@app.command()
def resume(
    names: NamesArgument, *, wait: WaitOption = False, reason: ReasonOption = None, as_json: JsonOption = False
) -> None:
    """Let the traffic of tenants start again."""
    _request(names, OperationKind.RESUME, wait=wait, reason=reason, as_json=as_json)


@app.command()
def destroy(
    names: NamesArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove tenants with all their accounts. There is no way back."""
    if not yes:
        _confirm(names)
    _request(names, OperationKind.DESTROY, wait=wait, reason=reason, as_json=as_json)


@app.command("rotate-keys")
def rotate_keys(
    instance_name: InstanceArgument,
    *,
    overlap: Annotated[
        float, typer.Option(min=0, max=registry.MAX_OVERLAP, help="Seconds that the present key opens beside the new.")
    ] = 3600,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant a new key, which is shown once."""
    key = new_key()

    async def rotate(services: Services) -> Operation:
        operation = await registry.rotate_keys(
            services, instance_name, cause(reason), key_digest=digest(instance_name, key), overlap=overlap
        )
        return await watched(services, operation.id) if wait else operation

    operation = run(rotate)
    if as_json:
        show_json({"secret_key": key, "operation": as_data(operation)})
        return
    _show_key(key)
    finish(operation, as_json=False)


@app.command()
def address(
    instance_name: InstanceArgument,
    url: Annotated[str | None, typer.Argument(help="Left out: the one that the tenant's name gives.")] = None,
    *,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a tenant's callbacks to another address; its accounts stay."""

    async def change(services: Services) -> Operation:
        checked = check_settings({"callback_url": url})["callback_url"]
        operation = await registry.change_address(services, instance_name, cause(reason), checked)
        return await watched(services, operation.id) if wait else operation

    finish(run(change), as_json=as_json)


def _made(make: Callable[[Services], Awaitable[Created]], *, wait: bool, as_json: bool) -> None:
    async def make_and_wait(services: Services) -> tuple[Created, Operation]:
        created = await make(services)
        assert created.operation is not None  # noqa: S101 - a new tenant is always provisioned
        operation = await watched(services, created.operation.id) if wait else created.operation
        return created, operation

    created, operation = run(make_and_wait)
    if as_json:
        show_json({"secret_key": created.secret_key, "operation": as_data(operation)})
    else:
        _show_key(str(created.secret_key))
    if not as_json or operation.state is OperationState.FAILED:
        finish(operation, as_json=False)


def _request(names: list[str], kind: OperationKind, *, wait: bool, reason: str | None, as_json: bool) -> None:
    async def start(services: Services) -> list[tuple[str, Operation | DomainError | None]]:
        outcomes = await registry.request_many(services, names, kind, cause(reason))
        if not wait:
            return outcomes
        return [
            (name, await watched(services, one.id) if isinstance(one, Operation) else one) for name, one in outcomes
        ]

    outcomes = run(start)
    if as_json:
        show_json([_outcome(name, outcome) for name, outcome in outcomes])
    failed = False
    for name, outcome in outcomes:
        if isinstance(outcome, DomainError):
            failed = True
            messages.print(f"[bold red]{outcome}[/]", soft_wrap=True)
        elif not as_json:
            done = "nothing to do" if outcome is None else f"{outcome.kind}, {outcome.state} (operation {outcome.id})"
            console.print(f"{name}: {done}")
        failed = failed or (isinstance(outcome, Operation) and outcome.state is OperationState.FAILED)
    if failed:
        single = outcomes[0][1] if len(outcomes) == 1 else None
        raise typer.Exit(exit_of(single) if isinstance(single, DomainError) else Exit.FAILED)


def _outcome(name: str, outcome: Operation | DomainError | None) -> dict[str, Any]:
    error = str(outcome) if isinstance(outcome, DomainError) else None
    operation = as_data(outcome) if isinstance(outcome, Operation) else None
    return {"instance_name": name, "operation": operation, "error": error}


def _settings(given: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` as a tenant's columns."""
    values: dict[str, Any] = {}
    for one in given or []:
        name, _, value = one.partition("=")
        values[name] = value or None
    return check_settings(values)


def _confirm(names: list[str]) -> None:
    if not sys.stdin.isatty():
        raise fail("destroying asks for confirmation: there is no terminal, so give --yes", Exit.USAGE)
    for name in names:
        if Prompt.ask(f"Type [bold]{name}[/] to destroy it with all its accounts", console=messages) != name:
            raise fail("not destroyed", Exit.USAGE)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise fail("there is no terminal to ask for the password: give --password-stdin", Exit.USAGE)
    return Prompt.ask("The operator's password", password=True, console=messages)


def _show_key(key: str) -> None:
    console.print("Its key, shown once:")
    console.print(key, soft_wrap=True, markup=False)
