"""`orchestrator console`: who may log in at the web console."""

from typing import Annotated

import typer

from config.settings import Settings
from orchestrator.cli.running import JsonOption, cause, data_of, run, show_json, show_line, show_table
from tenants.access import console_sessions, console_users, one_time_links
from tenants.store.models import Role

app = typer.Typer(no_args_is_help=True, help="Who may log in at the web console.")

RoleOption = Annotated[
    Role, typer.Option(help="viewer sees, support helps, manager lets operators in as well, admin does all.")
]
_SESSION = ("id", "actor", "role", "address", "created_at", "expires_at")


@app.command()
def link(*, role: RoleOption = Role.ADMIN, as_json: JsonOption = False) -> None:
    """Make a link that lets its bearer in once, within a quarter of an hour."""
    shown = make_link(role)
    if as_json:
        show_json({"link": shown})
    else:
        show_line(shown)


def make_link(role: Role) -> str:
    """The same, for programs."""
    secret = run(lambda services: one_time_links.make_login(services, role, cause(None)))
    return f"{Settings.load().public_url}/console/enter/{secret}"


@app.command()
def user(
    name: Annotated[str, typer.Argument(help="The name to log in with.")],
    *,
    role: RoleOption,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
) -> None:
    """Let a person log in with a password, or change role and password."""
    run(lambda services: console_users.put_user(services, name, role, password, cause(None)))
    show_line(f"{name} may log in as {role}.")


@app.command("users")
def list_users(*, as_json: JsonOption = False) -> None:
    """List who may log in with a password."""
    found = run(console_users.users)
    fields = ("name", "role", "created_at", "changed_at")
    if as_json:
        show_json([{field: getattr(one, field) for field in fields} for one in found])
    else:
        show_table(found, fields)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Whose access to revoke.")]) -> None:
    """Revoke a person's access and end their sessions."""
    run(lambda services: console_users.remove_user(services, name, cause(None)))
    show_line(f"{name} can no longer log in; their sessions are ended.")


@app.command()
def sessions(*, as_json: JsonOption = False) -> None:
    """List who is logged in, newest first."""
    found = run(console_sessions.find)
    if as_json:
        show_json([data_of(one, _SESSION) for one in found])
    else:
        show_table(found, _SESSION)


@app.command()
def end(
    session: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    *,
    actor: Annotated[
        str | None, typer.Option("--all-of", metavar="ACTOR", help="All sessions of that actor, as they are listed.")
    ] = None,
) -> None:
    """End a session, or all of one actor."""
    if (session is None) == (actor is None):
        raise typer.BadParameter("give a session's id, or --all-of an actor")
    if session is not None:
        whose = run(lambda services: console_sessions.end(services, session, cause(None)))
        show_line(f"The session of {whose} is ended.")
    elif actor is not None:
        ended = run(lambda services: console_sessions.end_all_of(services, actor, cause(None)))
        show_line(f"{ended} sessions of {actor} are ended.")
