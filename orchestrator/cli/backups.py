"""`orchestrator backup` and `orchestrator restore`: a private system as a folder, and back."""

import os
from pathlib import Path
from typing import Annotated

import typer

from config.settings import ENV_PREFIX, state_dir
from orchestrator.cli import upkeep
from orchestrator.cli.running import complain, console, fail, load_settings, run, show_line
from orchestrator.launcher import backups
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.up import Launcher
from tenants.process import heartbeats
from tenants.process.services import Services


def backup(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the backup gets a folder.")]) -> None:
    """Back this system up while it runs: database, ejabberd's data, and keys."""
    state, settings = state_dir(), load_settings()

    async def make(services: Services) -> Path:
        made = await backups.make(state, settings, services.ejabberd, folder)
        await heartbeats.beat(services, heartbeats.BACKUP)
        return made

    try:
        made = run(make)
    except LaunchError as error:
        raise fail(str(error)) from None
    if made.stat().st_dev == state.stat().st_dev:
        complain(f"{made} is on the disk that it protects: copy it to another one")
    show_line(made)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of one backup.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="If there is a system already, move its folder aside first.")
    ] = False,
    state: Annotated[Path | None, typer.Option("--state-dir", help="Folder of the system; .state by default.")] = None,
) -> None:
    """Make a system of a backup, start it, and compare ejabberd with the registry."""
    there = (state or state_dir()).resolve()
    os.environ[f"{ENV_PREFIX}STATE_DIR"] = str(there)
    launcher = Launcher(there, console)
    try:
        if launcher.running():
            raise fail("The system is running; stop it first: orchestrator down")
        manifest = backups.check(folder)
        aside = backups.begin_restore(there, folder, replace=replace)
        if aside is not None:
            show_line(f"What was there is now in {aside}")
        show_line(f"Restoring the backup of {manifest.made_at}")
        launcher.up(detach=True, backup=folder.resolve())
    except LaunchError as error:
        raise fail(str(error)) from None
    upkeep.reconcile(wait=True, reason="restored from a backup")
