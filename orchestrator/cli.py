"""The command line: `orchestrator --help`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from rich.console import Console

from config.settings import Settings, state_dir
from orchestrator import deliveries_cli, telemetry
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import Broker, DatabaseServer
from orchestrator.launcher.up import Launcher
from tenants import migrate as migrations
from xmpp_pool import pool as xmpp_pool

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False, help=__doc__)
app.command()(deliveries_cli.deliveries)
app.command()(deliveries_cli.replay)
app.command("returned")(deliveries_cli.returned_messages)
console = Console(highlight=False)

KEPT = "A folder keeps what it was begun with."
StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the system; .state by default.")]


@app.command()
def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    broker: Annotated[Broker | None, typer.Option(help="Redis by default. " + KEPT)] = None,
    database: Annotated[DatabaseServer | None, typer.Option(help="SQLite by default. " + KEPT)] = None,
    pools: Annotated[int | None, typer.Option(min=1, help="Pool processes, 2 by default.")] = None,
    state: StateOption = None,
) -> None:
    """Start everything on this machine, with private servers; Ctrl-C stops it."""
    try:
        _launcher(state).up(detach=detach, broker=broker, database=database, pools=pools)
    except LaunchError as error:
        console.print(f"[bold red]{error}[/]")
        raise typer.Exit(1) from None


@app.command()
def down(*, state: StateOption = None) -> None:
    """Stop what `up` started."""
    launcher = _launcher(state)
    if not launcher.running():
        console.print("Nothing is running.")
        return
    try:
        launcher.down()
    except LaunchError as error:
        console.print(f"[bold red]{error}[/]")
        raise typer.Exit(1) from None
    console.print("Stopped.")


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    migrations.upgrade()


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Run the HTTP server."""
    uvicorn.run(
        "orchestrator.api.app:create_app",
        factory=True,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_graceful_shutdown=5,
    )


@app.command()
def pool() -> None:
    """Run a pool worker."""
    settings = Settings.load()
    telemetry.set_up_logging(settings)
    telemetry.set_up_sentry(settings)
    asyncio.run(xmpp_pool.run(settings))


def main() -> None:
    """The console script."""
    app()


def _launcher(state: Path | None) -> Launcher:
    return Launcher((state or state_dir()).resolve(), console)
