"""The private system of one machine: its servers, ports and secrets, chosen once and kept in the state folder."""

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from config.ejabberd_storage import EjabberdStorage, SqlServer
from config.settings import ENV_PREFIX, FLOWER_USER, Settings
from orchestrator.launcher import ports, postgresql, settings_file
from orchestrator.launcher.errors import LaunchError

LISTEN_IP = postgresql.LISTEN_IP
RABBITMQ_USER = "orchestrator"
KEPT = "system.json"
"""The file of the state folder that ports and secrets are kept in."""
_HOSTING, _STORAGE = f"{ENV_PREFIX}HOSTING", f"{ENV_PREFIX}EJABBERD_STORAGE"
_SECRETS = (
    "hosting_key", "panel_token", "rpc_password", "signing_master_key", "console_key", "flower_password",
    "component_secret", "ejabberd_api_secret", "redis_password", "rabbitmq_password", "erlang_cookie",
    "ejabberd_database_password",
)  # fmt: skip


class Broker(StrEnum):
    """The servers that can carry commands and Celery's wake-ups."""

    REDIS = "redis"
    RABBITMQ = "rabbitmq"


class DatabaseServer(StrEnum):
    """What can hold the database."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the system runs on, its pool processes, its mode, ejabberd's nodes. Beginning values: of development."""

    broker: Broker = Broker.REDIS
    database: DatabaseServer = DatabaseServer.SQLITE
    pools: int = 2
    hosting: bool = True
    ejabberd_nodes: int = 1
    storage: EjabberdStorage = EjabberdStorage.MNESIA

    @classmethod
    def of(
        cls,
        state: Path,
        broker: Broker | None = None,
        database: DatabaseServer | None = None,
        pools: int | None = None,
        ejabberd_nodes: int | None = None,
        *,
        storage: EjabberdStorage | None = None,
        moved: bool = False,
    ) -> "Choice":
        """What is wanted; what was not said is as the state folder was begun.

        `ORCHESTRATOR_HOSTING` says the mode, `ORCHESTRATOR_EJABBERD_STORAGE` what ejabberd keeps its data in. `moved`:
        its data are in that storage from now on.

        Raises:
            LaunchError: the folder was begun with another server or storage, whose data would be left behind; or in
                the other mode, in which nothing that it holds has a name.
        """
        said: dict[str, Any] = {
            "broker": broker,
            "database": database,
            "pools": pools,
            "ejabberd_nodes": ejabberd_nodes,
            **_as_said(state),
        }
        if storage is not None:
            said["storage"] = storage
        said = {name: value for name, value in said.items() if value is not None}
        known = _read(state)
        if known is None:
            is_sql = said.get("database") is DatabaseServer.POSTGRESQL
            return cls(**{"storage": EjabberdStorage.SQL if is_sql else EjabberdStorage.MNESIA, **said})
        kept = known.get("choice", {})
        # a folder of an earlier version has not kept the mode, nor the storage, which was Mnesia
        begun = cls(hosting=said.get("hosting", True))
        begun = replace(begun, **{name: read(kept[name]) for name, read in _CHOICES.items() if name in kept})
        wanted = replace(begun, **said)
        if (wanted.broker, wanted.database) != (begun.broker, begun.database):
            raise LaunchError(
                f"{state} was begun with {begun.broker} and {begun.database}, which hold its data:"
                f" give another folder (--state-dir) to run on {wanted.broker} and {wanted.database}"
            )
        if wanted.ejabberd_nodes != begun.ejabberd_nodes:
            raise LaunchError(
                f"{state} was begun with --ejabberd-nodes {begun.ejabberd_nodes}, whose names its data bear:"
                f" give another folder (--state-dir) to run {wanted.ejabberd_nodes}"
            )
        if wanted.hosting != begun.hosting:
            raise LaunchError(
                f"{state} was begun with {_HOSTING}={str(begun.hosting).lower()}, which all names in it are made for:"
                f" leave {_HOSTING} out to go on with it, or give another folder (--state-dir) to begin anew"
            )
        if wanted.storage != begun.storage and not moved:
            raise LaunchError(
                f"{state} has ejabberd's data in {begun.storage}, where it would be left behind: leave {_STORAGE} out"
                f" to go on with it, or move it (script/up --move-storage {wanted.storage})"
            )
        return wanted

    @staticmethod
    def storage_of(state: Path) -> EjabberdStorage | None:
        """Where the folder has ejabberd's data; None when it was never begun."""
        known = _read(state)
        if known is None:
            return None
        # one of an earlier version does not say it
        return EjabberdStorage(known.get("choice", {}).get("storage", EjabberdStorage.MNESIA))


_CHOICES: dict[str, Callable[[Any], Any]] = {
    "broker": Broker,
    "database": DatabaseServer,
    "pools": int,
    "hosting": bool,
    "ejabberd_nodes": int,
    "storage": EjabberdStorage,
}


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """Ports and secrets of a private system, and the files that tell of them."""

    state: Path
    choice: Choice
    ports: dict[str, int]
    secrets: dict[str, str]
    moving_to: EjabberdStorage | None = None
    """Where ejabberd's data is to be moved to, for which both storages must be there."""

    @classmethod
    def open(
        cls,
        state: Path,
        *,
        broker: Broker | None = None,
        database: DatabaseServer | None = None,
        pools: int | None = None,
        storage: EjabberdStorage | None = None,
        ejabberd_nodes: int | None = None,
        moving_to: EjabberdStorage | None = None,
        moved: bool = False,
    ) -> "LocalSystem":
        """Take up the system of the state folder, or begin a new one. A port that was taken meanwhile is replaced.

        Args:
            state: the folder.
            broker: None is what the folder was begun with.
            database: None is what the folder was begun with.
            pools: how many pool processes from now on; None is as many as last time.
            storage: of ejabberd; None is as `ORCHESTRATOR_EJABBERD_STORAGE` says, or what the folder was begun with.
            ejabberd_nodes: None is as many as the folder was begun with.
            moving_to: where ejabberd's data is about to be moved to.
            moved: it is in `storage` from now on.

        Raises:
            LaunchError: as `Choice.of`; or several nodes of ejabberd would keep their data in Mnesia.
        """
        choice = Choice.of(state, broker, database, pools, ejabberd_nodes, storage=storage, moved=moved)
        if choice.ejabberd_nodes > 1 and choice.storage is not EjabberdStorage.SQL:
            # two that cannot see each other for a while would never agree again on who has an account
            raise LaunchError("several nodes of ejabberd keep their data in SQL: add --database postgresql")
        for folder in (state, state / "logs", state / "ejabberd"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = _read(state) or {"ports": {}, "secrets": {}}
        system = cls(
            state=state,
            choice=choice,
            ports=ports.choose(ports.names(choice.ejabberd_nodes), known["ports"]),
            secrets={name: known["secrets"].get(name) or secrets.token_urlsafe(24) for name in _SECRETS},
            moving_to=moving_to,
        )
        data = asdict(system)
        del data["state"], data["moving_to"]
        write_private(state / KEPT, json.dumps(data, indent=2))
        write_private(state / "settings.env", system.settings_env())
        return system

    @classmethod
    def read(cls, state: Path) -> "LocalSystem":
        """The system that the folder was begun with, as it is."""
        kept = _read(state) or {"ports": {}, "secrets": {}}
        return cls(state=state, choice=Choice.of(state), ports=kept["ports"], secrets=kept["secrets"])

    @property
    def broker_url(self) -> str:
        match self.choice.broker:
            case Broker.REDIS:
                return f"redis://:{self.secrets['redis_password']}@{LISTEN_IP}:{self.ports['redis']}/0"
            case Broker.RABBITMQ:
                password = self.secrets["rabbitmq_password"]
                return f"amqp://{RABBITMQ_USER}:{password}@{LISTEN_IP}:{self.ports['rabbitmq']}//"

    @property
    def database_url(self) -> str:
        match self.choice.database:
            case DatabaseServer.SQLITE:
                return f"sqlite+aiosqlite:///{self.state}/orchestrator.db"
            case DatabaseServer.POSTGRESQL:
                return postgresql.url(self.state / "postgresql", self.postgresql_port)

    @property
    def postgresql_port(self) -> int | None:
        """The port for ejabberd; None: nothing comes but by the socket."""
        return self.ports["postgresql"] if EjabberdStorage.SQL in (self.choice.storage, self.moving_to) else None

    @property
    def runs_postgresql(self) -> bool:
        """Whether anything is kept in it, or is to be moved into it."""
        return self.choice.database is DatabaseServer.POSTGRESQL or self.postgresql_port is not None

    def ejabberd_database(self, tables: str) -> SqlServer | None:
        """How ejabberd reaches its database, whose tables that file makes; None when it has none."""
        if self.postgresql_port is None:
            return None
        return SqlServer(
            host=LISTEN_IP,
            port=self.ports["postgresql"],
            password=self.secrets["ejabberd_database_password"],
            tables=tables,
        )

    @property
    def ejabberd_nodes(self) -> list["EjabberdNode"]:
        """The nodes of ejabberd; the first one begins the cluster, if there are more."""
        return [
            EjabberdNode(
                name=ports.suffixed("ejabberd", number, "-"),
                ports={name: self.ports[ports.suffixed(name, number)] for name in ports.OF_NODE},
                distribution=self.ports.get(ports.of_distribution(number)),
            )
            for number in range(1, self.choice.ejabberd_nodes + 1)
        ]

    @property
    def api_url(self) -> str:
        return f"http://{LISTEN_IP}:{self.ports['api']}"

    @property
    def flower_url(self) -> str:
        return f"http://{LISTEN_IP}:{self.ports['flower']}"

    def settings_env(self) -> str:
        """The settings of this system, as `Settings` reads them. The environment wins over this file."""
        values = {
            "hosting": str(self.choice.hosting).lower(),
            "database_url": self.database_url,
            "broker_url": self.broker_url,
            "ejabberd_api_url": f"http://{LISTEN_IP}:{self.ports['ejabberd_api']}/api",
            "ejabberd_api_secret": self.secrets["ejabberd_api_secret"],
            "ejabberd_storage": self.choice.storage,
            "ejabberd_hosts_file": self.state / "ejabberd" / "hosts.yml",
            "ejabberd_certificate": self.state / "ejabberd" / "server.pem",
            "component_host": LISTEN_IP,
            "component_port": self.ports["component"],
            "component_secret": self.secrets["component_secret"],
            "hosting_key": self.secrets["hosting_key"],
            "panel_token": self.secrets["panel_token"],
            "rpc_password": self.secrets["rpc_password"],
            "signing_master_key": self.secrets["signing_master_key"],
            "console_key": self.secrets["console_key"],
            "public_url": self.api_url,
            "flower_url": self.flower_url,
            "flower_password": self.secrets["flower_password"],
            "callback_protocol": "http://",
            "callback_port": self.ports["callback"],
            "environment": "development",
        }
        if len(nodes := self.ejabberd_nodes) > 1:
            values["ejabberd_api_urls"] = ",".join(node.api_url for node in nodes)
            values["component_hosts"] = ",".join(f"{LISTEN_IP}:{node.ports['component']}" for node in nodes)
        if self._callbacks_stay_here():
            values["webhook_networks"] = "127.0.0.0/8,::1/128"
        return settings_file.text(values)

    def _callbacks_stay_here(self) -> bool:
        """Whether tenants' servers are on this machine, as they are unless the person who starts it says otherwise."""
        return Settings(_env_file=self.state.parent / ".env").callback_base_domain == "localhost"

    def endpoints(self, settings: Settings) -> dict[str, str | int]:
        """Where everything is, for other programs."""
        return {
            "hosting": settings.hosting,
            "api": self.api_url,
            "panel_token": settings.panel_token.get_secret_value(),
            "hosting_key": settings.hosting_key.get_secret_value(),
            "rpc": f"{self.api_url}/rpc",
            "rpc_user": settings.rpc_user,
            "rpc_password": settings.rpc_password.get_secret_value(),
            "rpc_account_host": settings.xmpp_host,
            "xmpp_host": settings.xmpp_host,
            "xmpp_hosts": ",".join(settings.xmpp_hosts),
            "c2s_host": LISTEN_IP,
            "c2s_port": self.ports["c2s"],
            "c2s_tls_port": self.ports["c2s_tls"],
            "websocket": f"ws://{LISTEN_IP}:{self.ports['websocket']}/ws",
            "ejabberd_api": settings.ejabberd_api_url,
            "ejabberd_api_secret": settings.ejabberd_api_secret.get_secret_value(),
            "flower": self.flower_url,
            "flower_user": FLOWER_USER,
            "flower_password": settings.flower_password.get_secret_value(),
            "broker_url": settings.broker_url.get_secret_value(),
            "database_url": settings.database_url.get_secret_value(),
            "callback_protocol": settings.callback_protocol,
            "callback_base_domain": settings.callback_base_domain,
            "callback_port": settings.callback_port or 0,
            **{
                f"{name}_port_{number}": port
                for number, node in enumerate(self.ejabberd_nodes[1:], start=2)
                for name, port in node.ports.items()
            },
        }


@dataclass(frozen=True, slots=True)
class EjabberdNode:
    """A node of ejabberd: what its program and its folder are called, and its own ports.

    `distribution`: the port on which it speaks with the other nodes; None when there are none.
    """

    name: str
    ports: dict[str, int]
    distribution: int | None

    @property
    def api_url(self) -> str:
        return f"http://{LISTEN_IP}:{self.ports['ejabberd_api']}/api"

    @property
    def erlang_name(self) -> str:
        return f"{self.name}@localhost"


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step; its owner alone can read it."""
    new = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    new.replace(path)


def _read(state: Path) -> dict[str, Any] | None:
    kept = state / KEPT
    return cast("dict[str, Any]", json.loads(kept.read_text())) if kept.exists() else None


def _as_said(state: Path) -> dict[str, Any]:
    """The mode and the storage that the environment says, or the `.env` beside the folder, unless neither says any."""
    said = Settings(_env_file=state.parent / ".env")
    return {
        "hosting": said.hosting if "hosting" in said.model_fields_set else None,
        "storage": said.ejabberd_storage,
    }
