"""The command line: `orchestrator --help`."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from config.ejabberd_storage import EjabberdStorage
from config.settings import Settings, state_dir
from orchestrator.cli import backups, hosts, messages, operations, people, tenants, tokens, units, upkeep
from orchestrator.cli.doctor import doctor
from orchestrator.cli.health import health
from orchestrator.cli.running import console, fail
from orchestrator.launcher.backups import PACKAGE
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import Broker, DatabaseServer
from orchestrator.launcher.up import Launcher
from tenants.ejabberd.client import BRIDGE_VERSION

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False, help=__doc__)
app.add_typer(tenants.app, name="tenant")
app.add_typer(hosts.app, name="host")
app.add_typer(operations.app, name="operation")
app.add_typer(tokens.app, name="token")
app.add_typer(people.app, name="console")
app.command()(upkeep.reconcile)
app.command()(upkeep.drift)
app.command("audit")(upkeep.log)
app.command()(upkeep.migrate)
app.command()(backups.backup)
app.command()(backups.restore)
app.command()(upkeep.move_storage)
app.command()(doctor)
app.command()(health)
app.command()(messages.deliveries)
app.command()(messages.replay)
app.command("returned")(messages.returned_messages)
app.command()(units.systemd)
app.command("ejabberd-files")(units.ejabberd_files)

KEPT = "A folder keeps what it was begun with."
StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the system; .state by default.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from tenants.store.migrate import newest_revision  # noqa: PLC0415 - see `pool`

        console.print(f"orchestrator {version(PACKAGE)} (schema {newest_revision()}, bridge {BRIDGE_VERSION})")
        raise typer.Exit


@app.callback(help=__doc__)
def _of_all(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options of `orchestrator` itself."""


@app.command()
def up(
    *,
    detach: Annotated[bool, typer.Option("--detach", help="Return when everything is ready.")] = False,
    broker: Annotated[Broker | None, typer.Option(help="Redis by default. " + KEPT)] = None,
    database: Annotated[DatabaseServer | None, typer.Option(help="SQLite by default. " + KEPT)] = None,
    pools: Annotated[int | None, typer.Option(min=1, help="Pool processes, 2 by default.")] = None,
    ejabberd_nodes: Annotated[int | None, typer.Option(min=1, help="Nodes of ejabberd, 1 by default. " + KEPT)] = None,
    move_storage: Annotated[
        EjabberdStorage | None, typer.Option(help="First move ejabberd's data there, unless it is there.")
    ] = None,
    state: StateOption = None,
) -> None:
    """Start everything on this machine, with private servers; Ctrl-C stops it."""
    try:
        _launcher(state).up(
            detach=detach,
            broker=broker,
            database=database,
            pools=pools,
            ejabberd_nodes=ejabberd_nodes,
            move_storage=move_storage,
        )
    except LaunchError as error:
        raise fail(str(error)) from None


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
        raise fail(str(error)) from None
    console.print("Stopped.")


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Run the HTTP server."""
    from orchestrator.api import server  # noqa: PLC0415 - see `pool`

    server.run(Settings.load(), host, port)


@app.command()
def flower(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 5555,
) -> None:
    """Run Flower, which shows Celery's tasks to who logs in, and changes nothing."""
    # see `pool`
    from orchestrator import flower as tasks  # noqa: PLC0415
    from orchestrator import telemetry  # noqa: PLC0415
    from orchestrator.app import app as celery  # noqa: PLC0415

    settings = Settings.load()
    telemetry.set_up_logging(settings)
    tasks.run(celery, settings.flower_password.get_secret_value(), host, port)


@app.command()
def pool() -> None:
    """Run a pool worker."""
    # here: what a person waits for at the console is mostly imports, and only this command needs these
    import uvloop  # noqa: PLC0415

    from orchestrator import telemetry  # noqa: PLC0415
    from xmpp_pool import pool as xmpp_pool  # noqa: PLC0415

    settings = Settings.load()
    telemetry.set_up_logging(settings)
    telemetry.set_up_sentry(settings)
    uvloop.run(xmpp_pool.run(settings))


def main() -> None:
    """The console script."""
    app()


def _launcher(state: Path | None) -> Launcher:
    return Launcher((state or state_dir()).resolve(), console)
