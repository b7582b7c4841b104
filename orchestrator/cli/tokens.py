"""`orchestrator token`: bearer tokens of the API."""

from datetime import datetime
from typing import Annotated

import typer

from orchestrator.cli.running import JsonOption, ReasonOption, cause, console, run, show, show_json, value_of
from tenants import tokens
from tenants.models import Scope

app = typer.Typer(no_args_is_help=True, help="Tokens of the API.")

_COLUMNS = (
    *("id", "name", "scope", "instance_name", "created_by"),
    *("created_at", "expires_at", "revoked_at", "last_used_at"),
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; the actor of what is done with it.")],
    *,
    scope: Annotated[Scope, typer.Option(help="What it opens.")],
    instance_name: Annotated[str | None, typer.Option("--instance", help="Of scope tenant: which one.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in UTC; never when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token, which is shown once."""
    expires_at = expires.timestamp() if expires else None
    token, shown = run(
        lambda services: tokens.create(
            services,
            name=name,
            scope=scope,
            instance_name=instance_name,
            expires_at=expires_at,
            created_by=cause(None).actor,
        )
    )
    if as_json:
        show_json({"token": shown, **{column: value_of(token, column) for column in _COLUMNS}})
        return
    console.print(f"Token {token.id} for {token.name}, shown once:")
    console.print(shown, soft_wrap=True, markup=False)


@app.command("list")
def list_tokens(
    *,
    instance_name: Annotated[str | None, typer.Option("--instance", help="Of this tenant only.")] = None,
    revoked: Annotated[bool, typer.Option("--revoked", help="Also those that open nothing any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List tokens, newest first."""
    found = run(lambda services: tokens.find(services, instance_name=instance_name, revoked=revoked))
    show(found, _COLUMNS, as_json=as_json)


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
        show_json({column: value_of(token, column) for column in _COLUMNS})
    else:
        console.print(f"Token {token.id} of {token.name} opens nothing any more.")
