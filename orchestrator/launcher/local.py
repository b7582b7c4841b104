"""The private system of one machine: its ports and secrets, chosen once and kept in the state folder."""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from config.settings import ENV_PREFIX, Settings

LISTEN_IP = "127.0.0.1"
_PORTS = ("api", "flower", "redis", "ejabberd_api", "component", "c2s", "c2s_tls", "callback")
_SECRETS = ("hosting_key", "panel_token", "rpc_password", "component_secret", "redis_password")


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """Ports and secrets of a private system, and the files that tell of them."""

    state: Path
    ports: dict[str, int]
    secrets: dict[str, str]

    @classmethod
    def open(cls, state: Path) -> "LocalSystem":
        """Take up the system of the state folder, or begin a new one. A port that was taken meanwhile is replaced."""
        for folder in (state, state / "logs", state / "ejabberd", state / "redis"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        kept = state / "system.json"
        known = json.loads(kept.read_text()) if kept.exists() else {"ports": {}, "secrets": {}}
        system = cls(
            state=state,
            ports=_choose_ports(known["ports"]),
            secrets={name: known["secrets"].get(name) or secrets.token_urlsafe(24) for name in _SECRETS},
        )
        data = asdict(system)
        del data["state"]
        write_private(kept, json.dumps(data, indent=2))
        write_private(state / "settings.env", system.settings_env())
        return system

    @property
    def broker_url(self) -> str:
        return f"redis://:{self.secrets['redis_password']}@{LISTEN_IP}:{self.ports['redis']}/0"

    @property
    def api_url(self) -> str:
        return f"http://{LISTEN_IP}:{self.ports['api']}"

    def settings_env(self) -> str:
        """The settings of this system, as `Settings` reads them. The environment wins over this file."""
        values = {
            "database_url": f"sqlite+aiosqlite:///{self.state}/orchestrator.db",
            "broker_url": self.broker_url,
            "ejabberd_api_url": f"http://{LISTEN_IP}:{self.ports['ejabberd_api']}/api",
            "component_host": LISTEN_IP,
            "component_port": self.ports["component"],
            "component_secret": self.secrets["component_secret"],
            "hosting_key": self.secrets["hosting_key"],
            "panel_token": self.secrets["panel_token"],
            "rpc_password": self.secrets["rpc_password"],
            "callback_protocol": "http://",
            "callback_port": self.ports["callback"],
            "environment": "development",
        }
        lines = (f"{ENV_PREFIX}{name.upper()}={value}" for name, value in values.items())
        return "# Written by script/up; the environment wins over it.\n" + "\n".join(lines) + "\n"

    def endpoints(self, settings: Settings) -> dict[str, str | int]:
        """Where everything is, for other programs."""
        return {
            "api": self.api_url,
            "panel_token": settings.panel_token.get_secret_value(),
            "hosting_key": settings.hosting_key.get_secret_value(),
            "rpc": f"{self.api_url}/rpc",
            "rpc_user": settings.rpc_user,
            "rpc_password": settings.rpc_password.get_secret_value(),
            "rpc_account_host": settings.xmpp_host,
            "xmpp_host": settings.xmpp_host,
            "c2s_host": LISTEN_IP,
            "c2s_port": self.ports["c2s"],
            "c2s_tls_port": self.ports["c2s_tls"],
            "ejabberd_api": settings.ejabberd_api_url,
            "flower": f"http://{LISTEN_IP}:{self.ports['flower']}",
            "broker_url": settings.broker_url.get_secret_value(),
            "database_url": settings.database_url.get_secret_value(),
            "callback_protocol": settings.callback_protocol,
            "callback_base_domain": settings.callback_base_domain,
            "callback_port": settings.callback_port or 0,
        }


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step; its owner alone can read it."""
    new = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def _choose_ports(known: dict[str, int]) -> dict[str, int]:
    """Free ports, the same as last time where they still are free."""
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name in _PORTS:
            wanted = int(os.environ.get(f"{ENV_PREFIX}{name.upper()}_PORT", known.get(name, 0)))
            listener = _listen(wanted) or _listen(0)
            if listener is None:
                raise OSError(f"no free port for {name}")
            held.append(listener)
            chosen[name] = listener.getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    return chosen


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LISTEN_IP, port))
    except OSError:
        listener.close()
        return None
    return listener
