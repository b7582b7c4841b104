"""`orchestrator tenant`: tenants made, changed, suspended, resumed, imported and destroyed."""

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from orchestrator.cli import many
from orchestrator.cli.operations import WaitOption, as_data, expect, show_operation_state, show_started
from orchestrator.cli.running import (
    Exit,
    InstanceArgument,
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
from tenants.access import passwords
from tenants.core.digests import digest, new_key
from tenants.core.errors import InvalidInputError
from tenants.core.scram import make_verifier
from tenants.lifecycle import keys, operations, registry, requests
from tenants.lifecycle.registry import Created, TenantSpec
from tenants.lifecycle.request_schemas import MAX_OVERLAP
from tenants.lifecycle.tenant_settings import check_first_operator, check_settings
from tenants.process.services import Services
from tenants.store.models import SETTINGS, Operation, OperationKind, OperationState, TenantState
from tenants.workflows import imports
from tenants.workflows import move as moving

app = typer.Typer(no_args_is_help=True, help="Tenants: the LHC instances that are served.")
_SETTING_NAMES = tuple(setting.name for setting in SETTINGS)
_LINE = ("instance_name", "state", "callback_url", "created_at", "updated_at")
_DETAILS = (
    *("instance_name", "state", *_SETTING_NAMES),
    *("previous_key_until", "created_at", "updated_at"),
)
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help=f"A setting; NAME= takes it back to its default. {', '.join(_SETTING_NAMES)}.",
    ),
]


@app.command("list")
def list_tenants(
    *,
    state: Annotated[TenantState | None, typer.Option(help="In this state only.")] = None,
    search: Annotated[str | None, typer.Option(help="A part of the name.")] = None,
    after: Annotated[str, typer.Option(help="Names behind this one.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=many.EVERY, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List tenants by name; destroyed ones only when asked for by that state."""
    found = run(lambda services: registry.search(services.database, state=state, part=search, after=after, limit=limit))
    if as_json:
        show_json([data_of(tenant, _LINE) for tenant in found])
    else:
        show_table(found, _LINE)
        show_limit(found, limit)


@app.command("show")
def show_tenant(instance_name: InstanceArgument, *, as_json: JsonOption = False) -> None:
    """Show a tenant: its settings, its accounts, and what was done to it last."""
    details, latest = run(lambda services: _read(services, instance_name))
    if as_json:
        show_json({**details, "operation": as_data(latest) if latest else None})
        return
    accounts = ", ".join(f"{count} {kind}" for kind, count in details["accounts"].items())
    last = f"{latest.kind}, {latest.state} ({latest.id})" if latest else None
    show_lines({**details, "rosters": ", ".join(details["rosters"]), "accounts": accounts, "last_operation": last})


async def _read(services: Services, instance_name: str) -> tuple[dict[str, Any], Operation | None]:
    tenant = await registry.get(services, instance_name)
    async with services.database.read() as session:
        accounts = await registry.count_accounts(session, instance_name)
    details = {
        **data_of(tenant, _DETAILS),
        "rosters": registry.groups(services.naming, instance_name),
        "accounts": {kind.value: count for kind, count in accounts.items()},
    }
    return details, await operations.latest(services.database, instance_name)


@app.command()
def create(
    instance_name: InstanceArgument,
    *,
    settings: SetOption = None,
    operator: Annotated[
        str | None, typer.Option(help="Username of the first operator; the password is asked for.")
    ] = None,
    nick: Annotated[str | None, typer.Option(help="The first operator's name, as visitors see it.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the operator's password from standard input.")
    ] = False,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant. Its key is shown once."""
    if operator is None and (nick is not None or password_stdin):
        raise typer.BadParameter("--nick and --password-stdin are for an --operator")
    password = _password(from_stdin=password_stdin) if operator is not None else ""

    async def make(services: Services) -> Created:
        first = None
        if operator is not None:
            unlike = passwords.names(operator, instance_name)
            verifier = await make_verifier(passwords.check_chosen(password, unlike=unlike))
            first = check_first_operator({"username": operator, "nick": nick, "scram": verifier.arguments()})
        spec = TenantSpec(_settings(settings), operator=first)
        return await registry.create(services, instance_name, spec, cause(reason))

    _make(make, wait=wait, as_json=as_json)


@app.command("import")
def import_tenant(
    instance_name: Annotated[str, typer.Argument(metavar="INSTANCE", help="Its instance name in ejabberd.")],
    *,
    settings: SetOption = None,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a tenant that exists in ejabberd, made by another system, into the registry. Its key is shown once."""

    async def make(services: Services) -> Created:
        return await imports.start(services, instance_name, cause(reason), TenantSpec(_settings(settings)))

    _make(make, wait=wait, as_json=as_json)


@app.command()
def update(
    instance_name: InstanceArgument,
    *,
    settings: SetOption = None,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change settings of a tenant. One that could not be provisioned is tried again."""
    if not settings:
        raise typer.BadParameter("give at least one --set NAME=VALUE")

    async def change(services: Services) -> None:
        await registry.get(services, instance_name)
        await registry.put(services, instance_name, TenantSpec(_settings(settings)), cause(reason))

    run(change)
    show_tenant(instance_name, as_json=as_json)


def _add_command_of_many(kind: OperationKind, text: str) -> None:
    """A command that starts this workflow on many tenants; `text` is its help."""

    @app.command(kind.value, help=text)
    def request(
        names: many.NamesArgument = None,
        *,
        names_from: many.FileOption = None,
        in_state: many.InStateOption = None,
        yes: many.YesOption = False,
        wait: WaitOption = False,
        reason: ReasonOption = None,
        as_json: JsonOption = False,
    ) -> None:
        wanted = many.named(names, names_from, in_state)
        if not yes and (names_from or in_state):
            many.confirm_number(wanted, kind)
        elif not yes and kind is OperationKind.DESTROY:
            many.confirm_each(wanted)
        many.request(wanted, kind, wait=wait, reason=reason, as_json=as_json)


_add_command_of_many(OperationKind.SUSPEND, "Stop the traffic of tenants; their accounts stay.")
_add_command_of_many(OperationKind.RESUME, "Let the traffic of tenants start again.")
_add_command_of_many(OperationKind.DESTROY, "Remove tenants with all their accounts. There is no way back.")


@app.command("rotate-keys")
def rotate_keys(
    instance_name: InstanceArgument,
    *,
    overlap: Annotated[
        float, typer.Option(min=0, max=MAX_OVERLAP, help="Seconds that the present key opens beside the new.")
    ] = 3600,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant a new key, which is shown once."""
    key = new_key()
    operation = run(
        lambda services: keys.rotate_keys(
            services, instance_name, cause(reason), key_digest=digest(instance_name, key), overlap=overlap
        )
    )
    _show_with_key(operation, key, wait=wait, as_json=as_json)


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
        return await requests.change_address(services, instance_name, cause(reason), checked)

    show_started(run(change), wait=wait, as_json=as_json)


@app.command()
def move(
    instance_name: InstanceArgument,
    host: Annotated[str, typer.Argument(help="The XMPP host: one that `orchestrator host list` shows.")],
    *,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move a tenant to another XMPP host, with all that it has. Its operators are logged out, and log in there."""
    operation = run(lambda services: moving.start(services, instance_name, host, cause(reason)))
    if operation is None:
        show_tenant(instance_name, as_json=as_json)
    else:
        show_started(operation, wait=wait, as_json=as_json)


def _make(make: Callable[[Services], Awaitable[Created]], *, wait: bool, as_json: bool) -> None:
    created = run(make)
    _show_with_key(created.operation, created.secret_key, wait=wait, as_json=as_json)


def _show_with_key(operation: Operation, key: str | None, *, wait: bool, as_json: bool) -> None:
    """The key is shown whatever becomes of the waiting: nobody can read it again."""
    if not as_json:
        show_line(f"The key of {operation.instance_name}, shown once:")
        show_line(key)
    try:
        if wait:
            (operation,) = follow([operation.id])
    finally:
        if as_json:
            made = {"instance_name": operation.instance_name, "secret_key": key}
            show_json({**made, "operation": as_data(operation)})
    if not as_json:
        show_operation_state(operation, as_json=False)
    if wait:
        expect(operation, OperationState.SUCCEEDED)


def _settings(given: list[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` as a tenant's columns; a value is JSON where it can be (numbers, true, false), else text."""
    values: dict[str, Any] = {}
    for one in given or []:
        name, equals, text = one.partition("=")
        if not equals:
            raise InvalidInputError(name, "is to be given as NAME=VALUE")
        try:
            values[name] = json.loads(text) if text else None
        except ValueError:
            values[name] = text
    return check_settings(values)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise fail("there is no terminal to ask for the password: give --password-stdin", Exit.USAGE)
    password: str = typer.prompt("The operator's password", hide_input=True, confirmation_prompt=True, err=True)
    return password
