"""The services of docker-compose.yml as units of systemd; and the files of an ejabberd that such a unit runs."""

import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from config.settings import Settings
from orchestrator.launcher import hosts, servers
from orchestrator.launcher.local import write_private

_TEMPLATES = servers.PROJECT / "config" / "systemd"
_API_PORT = 5281
"""Of ejabberd's admin API, when its address names none."""


@dataclass(frozen=True, slots=True)
class Units:
    """Where the units go, and what they read.

    Attributes:
        folder: of the units.
        config: the folder of `settings.env` and of the secrets.
        user: whether they are of a person's own systemd, and not of the machine's.
        pools: how many pool processes.
    """

    folder: Path
    config: Path
    user: bool
    pools: int

    @property
    def secrets(self) -> Path:
        return self.config / "secrets"

    @property
    def settings(self) -> Path:
        return self.config / "settings.env"

    def write(self) -> list[Path]:
        """Write the units, and `settings.env` if there is none; gives the files that were written.

        Raises:
            LaunchError: ejabberd is not installed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.mkdir(parents=True, exist_ok=True, mode=0o700)
        values = self._values()
        written = []
        for template in sorted(_TEMPLATES.glob("lhc-xmpp*")):
            target = self.folder / template.name
            target.write_text(_filled(template, values))
            written.append(target)
        if not self.settings.exists():
            write_private(self.settings, _filled(_TEMPLATES / "settings.env", values))
            written.append(self.settings)
        return written

    def _values(self) -> dict[str, str]:
        places = {
            "project": str(servers.PROJECT),
            "bin": str(Path(sys.executable).parent),
            "config": str(self.config),
            "secrets": str(self.secrets),
            "erl_libs": str(servers.ejabberd_modules().parent.parent),
        }
        manager = "user.conf" if self.user else "system.conf"
        return places | {
            "common": "".join(_filled(_TEMPLATES / name, places) for name in ("common.conf", manager)).rstrip(),
            "services": " ".join(self._services()),
            "wanted_by": "default.target" if self.user else "multi-user.target",
        }

    def _services(self) -> list[str]:
        names = [path.name for path in sorted(_TEMPLATES.glob("*.service")) if "@" not in path.name]
        return names + [f"lhc-xmpp-pool@{number}.service" for number in range(1, self.pools + 1)]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Where ejabberd listens for clients, and its certificate."""

    ip: str
    c2s_port: int
    c2s_tls_port: int
    websocket_port: int
    certificate: Path


def write_ejabberd_files(folder: Path, settings: Settings, listeners: Listeners) -> None:
    """Write `ejabberd.yml`, and the bridge module compiled for the ejabberd that is installed.

    Raises:
        LaunchError: ejabberd is not installed.
    """
    values = servers.ejabberd_values(settings) | {
        "listen_ip": listeners.ip,
        # a web server with TLS stands before it, on this machine
        "websocket_ip": "127.0.0.1",
        "c2s_port": str(listeners.c2s_port),
        "c2s_tls_port": str(listeners.c2s_tls_port),
        "websocket_port": str(listeners.websocket_port),
        "component_port": str(settings.component_port),
        "ejabberd_api_port": str(urlsplit(settings.ejabberd_api_url).port or _API_PORT),
        "starttls_required": "true",
        "certfile": str(listeners.certificate),
        "hosts_file": str(folder / "hosts.yml"),
    }
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    template = servers.PROJECT / "config" / "ejabberd" / "ejabberd.yml"
    write_private(folder / "ejabberd.yml", _filled(template, values))
    hosts.write(folder / "hosts.yml", settings, listeners.certificate)
    servers.compile_bridge(folder / "ebin")


def _filled(template: Path, values: dict[str, str]) -> str:
    return Template(template.read_text()).substitute(values)
