"""`orchestrator token`: bearer tokens of the API."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestrator.cli.running import (
    InstanceOption,
    JsonOption,
    ReasonOption,
    cause,
    complete_instance,
    data_of,
    run,
    show_json,
    show_line,
    show_table,
)
from tenants.access import tokens
from tenants.store.models import Scope

app = typer.Typer(no_args_is_help=True, help="Tokens of the API.")

_LINE = ("id", "name", "scope", "instance_name", "expires_at", "revoked_at", "last_used_at")
_DETAILS = (
    *("id", "name", "scope", "instance_name", "created_by"),
    *("created_at", "expires_at", "revoked_at", "last_used_at"),
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; the actor of what is done with it.")],
    *,
    scope: Annotated[Scope, typer.Option(help="What it opens.")],
    instance_name: Annotated[
        str | None, typer.Option("--instance", help="Of scope tenant: which one.", autocompletion=complete_instance)
    ] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in UTC; never when left out.")] = None,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, which is shown once."""
    token, shown = run(
        lambda services: tokens.create(
            services,
            name=name,
            scope=scope,
            instance_name=instance_name,
            expires_at=expires.replace(tzinfo=UTC).timestamp() if expires else None,
            created_by=cause(None).actor,
            reason=cause(reason).reason,
        )
    )
    if as_json:
        show_json({"token": shown, **data_of(token, _DETAILS)})
    else:
        show_line(f"Token {token.id} for {token.name}, shown once:")
        show_line(shown)


@app.command("list")
def list_tokens(
    *,
    instance_name: InstanceOption = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Also those that open nothing any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List tokens, newest first."""
    found = run(lambda services: tokens.find(services.database, instance_name=instance_name, revoked=revoked))
    if as_json:
        show_json([data_of(token, _DETAILS) for token in found])
    else:
        show_table(found, _LINE)


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id.")],
    *,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a token open nothing any more."""
    token = run(lambda services: tokens.revoke(services, token_id, cause(reason)))
    if as_json:
        show_json(data_of(token, _DETAILS))
    else:
        show_line(f"Token {token.id} of {token.name} stopped working.")
