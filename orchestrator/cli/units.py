"""`orchestrator systemd` and `orchestrator ejabberd-files`: to run it all as services, without containers."""

import os
from pathlib import Path
from typing import Annotated

import typer

from config.settings import Settings
from orchestrator.cli.running import console, fail, show_line
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.units import Listeners, Units, write_ejabberd_files

_MACHINES = (Path("/etc/systemd/system"), Path("/etc/lhc-xmpp"))


def systemd(
    *,
    user: Annotated[bool, typer.Option("--user", help="For your own systemd, without root.")] = False,
    units: Annotated[Path | None, typer.Option(help="Folder of the units; where systemd looks, by default.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Folder of settings.env and secrets/; /etc/lhc-xmpp or ~/.config/lhc-xmpp by default."),
    ] = None,
    pools: Annotated[int, typer.Option(min=1, help="Pool processes.")] = 2,
) -> None:
    """Write units of systemd for all processes and ejabberd, and settings to fill in, unless there are some."""
    of_units, of_config = _own_folders() if user else _MACHINES
    wanted = Units((units or of_units).resolve(), (config or of_config).resolve(), user=user, pools=pools)
    try:
        written = wanted.write()
    except (LaunchError, OSError) as error:
        raise fail(str(error)) from None
    for path in written:
        show_line(path)
    systemctl = "systemctl --user" if user else "systemctl"
    console.print(f"Next: fill in {wanted.settings}, then", soft_wrap=True)
    show_line(f"  XMPP_HOST=… script/secrets {wanted.secrets}")
    show_line(f"  {systemctl} daemon-reload")
    show_line(f"  {systemctl} enable --now lhc-xmpp.target")


def ejabberd_files(
    folder: Path,
    *,
    certificate: Annotated[Path, typer.Option(help="Private key and certificate, in one file.")],
    ip: Annotated[str, typer.Option(help="Address to listen on for clients.")] = "0.0.0.0",  # noqa: S104 - they come from everywhere
    c2s_port: Annotated[int, typer.Option(help="Clients, by STARTTLS.")] = 5222,
    c2s_tls_port: Annotated[int, typer.Option(help="Clients, with TLS from the first byte.")] = 5223,
    websocket_port: Annotated[int, typer.Option(help="Browsers, on the loopback address.")] = 5280,
) -> None:
    """Write what ejabberd runs with: its configuration, from the settings, and the bridge module, compiled."""
    try:
        write_ejabberd_files(
            folder.resolve(), Settings.load(), Listeners(ip, c2s_port, c2s_tls_port, websocket_port, certificate)
        )
    except LaunchError as error:
        raise fail(str(error)) from None


def _own_folders() -> tuple[Path, Path]:
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "systemd" / "user", base / "lhc-xmpp"
