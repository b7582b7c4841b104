"""The private servers of a system: their files, and whether they answer; ejabberd with its bridge module above all."""

import asyncio
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import httpx
from kombu import Connection

from config.ejabberd_storage import EjabberdStorage, SqlServer, template_values
from config.ejabberd_versions import Version, caution, disabled_mechanisms, objection, read_version, shown
from config.settings import Settings
from orchestrator.launcher import compiled, hosts, postgresql, rabbitmq
from orchestrator.launcher.errors import LaunchError, MissingServerError
from orchestrator.launcher.local import (
    LISTEN_IP,
    RABBITMQ_USER,
    Broker,
    EjabberdNode,
    LocalSystem,
    write_private,
)
from tenants.core.errors import DomainError
from tenants.core.naming import STANDALONE_INSTANCE
from tenants.ejabberd.admin_api import call_headers
from tenants.ejabberd.client import Ejabberd
from tenants.store.models import TenantState

PROJECT = Path(__file__).resolve().parents[2]
_CONFIG = PROJECT / "config"
_ERLANG_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/erlang/lib")
_LOOPBACK_DISTRIBUTION = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
"""Options of Erlang's virtual machine: an epmd of our own, and other nodes on this machine alone."""
_JOIN_SECONDS = 60
_COMMON = """stdout_logfile={state}/logs/%(program_name)s.log
redirect_stderr=true
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
autostart=false
autorestart=true
startretries=100
stopasgroup=true
killasgroup=true"""
_MAKES_TABLES_SINCE: Version = (23, 10)
_NO_TLS = False
"""Our own servers are asked in plain HTTP, ten times a second: to load CAs takes twenty times as long as to ask."""

_FILES = {"supervisord.conf": "supervisord.conf"}
"""Configuration files of every system: templates in `config/`, and where they go in the state folder."""
_NODE_FILES = {"supervisord/ejabberd.conf": "supervisord/{name}.conf", "ejabberd/ejabberd.yml": "{name}/ejabberd.yml"}
"""The same of each node of ejabberd."""
_EPMD_FILES = {"supervisord/epmd.conf": "supervisord/epmd.conf"}
_REDIS_FILES = {"supervisord/redis.conf": "supervisord/redis.conf", "redis.conf": "redis/redis.conf"}
_POSTGRESQL_FILES = {"supervisord/postgresql.conf": "supervisord/postgresql.conf"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server beside our own processes."""

    title: str
    programs: tuple[str, ...]
    """Of supervisord, in the order in which they are started."""
    answers: Callable[[], bool]
    prepare: Callable[[], None] | None = None
    """What is done when it answers, before any other is started."""


def chosen(system: LocalSystem, settings: Settings) -> list[Server]:
    """The servers that the system was begun with."""
    nodes = system.ejabberd_nodes
    programs = (*(("epmd",) if len(nodes) > 1 else ()), *(node.name for node in nodes))
    servers = [_postgresql(system)] if system.runs_postgresql else []
    servers.append(
        Server("ejabberd", programs, lambda: all(_ejabberd_answers(settings, node.api_url) for node in nodes)),
    )
    match system.choice.broker:
        case Broker.REDIS:
            servers.append(Server("Redis", ("redis",), lambda: _broker_answers(system)))
        case Broker.RABBITMQ:
            servers.append(_rabbitmq(system))
    return servers


def storages(system: LocalSystem, settings: Settings) -> list[Server]:
    """What is needed to move ejabberd's data, and no more."""
    (node,) = system.ejabberd_nodes
    return [_postgresql(system), Server("ejabberd", (node.name,), lambda: _ejabberd_answers(settings, node.api_url))]


def move(settings: Settings, target: EjabberdStorage) -> dict[str, int]:
    """Have ejabberd move all that it keeps there; how many of each kind.

    Raises:
        LaunchError: it was not moved, and is where it was.
    """

    async def ask() -> dict[str, int]:
        ejabberd = Ejabberd(
            settings.ejabberd_api_url, settings.xmpp_host, settings.ejabberd_api_secret.get_secret_value()
        )
        try:
            return await ejabberd.move_storage(target)
        finally:
            await ejabberd.close()

    try:
        return asyncio.run(ask())
    except DomainError as error:
        raise LaunchError(f"ejabberd's data is where it was: {error}") from None


def _postgresql(system: LocalSystem) -> Server:
    folder, port = system.state / "postgresql", system.postgresql_port
    prepare = None
    if port is not None:

        def prepare() -> None:
            prepare_database(system)

    return Server("PostgreSQL", ("postgresql",), lambda: postgresql.answers(folder, port), prepare)


def _rabbitmq(system: LocalSystem) -> Server:
    prepare = (lambda: rabbitmq.keep_what_comes_back(system)) if rabbitmq.drops_what_comes_back() else None
    return Server("RabbitMQ", ("epmd", "rabbitmq"), lambda: _broker_answers(system), prepare)


def prepare_database(system: LocalSystem) -> None:
    """Make ejabberd's database in the PostgreSQL that runs; before 23.10 ejabberd makes no tables itself."""
    folder, port = system.state / "postgresql", system.ports["postgresql"]
    postgresql.let_ejabberd_in(postgresql.own_address(folder, port), system.secrets["ejabberd_database_password"])
    if ejabberd_version() < _MAKES_TABLES_SINCE:
        postgresql.make_tables(folder, port, Path(_ejabberd_tables()))


def prepare(system: LocalSystem, settings: Settings) -> None:
    """Render every configuration file, make PostgreSQL's database and compile the bridge module.

    Raises:
        LaunchError: a server that was chosen is not installed, or cannot work here.
    """
    values, files = _values(system, settings), dict(_FILES)
    if len(system.ejabberd_nodes) > 1:
        files |= _EPMD_FILES
        write_private(system.state / "ejabberd" / ".erlang.cookie", system.secrets["erlang_cookie"])
    match system.choice.broker:
        case Broker.REDIS:
            files |= _REDIS_FILES
        case Broker.RABBITMQ:
            files |= _EPMD_FILES | rabbitmq.prepare(system)
    if system.runs_postgresql:
        folder = system.state / "postgresql"
        postgresql.create(folder)
        files |= _POSTGRESQL_FILES
        values |= {
            "postgresql_command": shlex.join(postgresql.command(folder, system.postgresql_port)),
            "postgresql_user": postgresql.user(),
        }
    for template, target in files.items():
        _write(system.state / target, Template((_CONFIG / template).read_text()).substitute(values))
    for node in system.ejabberd_nodes:
        of_node = values | _node_values(node)
        for template, target in _NODE_FILES.items():
            text = Template((_CONFIG / template).read_text()).substitute(of_node)
            _write(system.state / target.format(name=node.name), text)
    certificate = system.state / "ejabberd" / "server.pem"
    hosts.make_certificate(certificate, settings.xmpp_hosts)
    hosts.write(system.state / "ejabberd" / "hosts.yml", settings, certificate)
    compile_bridge(system.state / "ejabberd" / "lhc_bridge" / "ebin")


def judge_ejabberd(settings: Settings) -> str:
    """Whether we may run the ejabberd that is installed. Returns a warning, if there is something to be warned of.

    Raises:
        LaunchError: we were not tested with its version.
    """
    version = ejabberd_version()
    wrong = objection(version, settings.ejabberd_untested)
    if wrong is not None:
        raise LaunchError("ejabberd: {}: {}".format(*wrong))
    warning = caution(version)
    return f"ejabberd: version {shown(version)}{warning}" if warning else ""


def _values(system: LocalSystem, settings: Settings) -> dict[str, str]:
    """What the templates of the configuration files leave open."""
    tables = _ejabberd_tables() if system.postgresql_port is not None else ""
    return {
        "state": str(system.state),
        "project": str(PROJECT),
        "bin": str(Path(sys.executable).parent),
        "erl_libs": str(_library("ejabberd-*").parent),
        "listen_ip": LISTEN_IP,
        "common": _COMMON.format(state=system.state),
        "pools": str(system.choice.pools),
        **ejabberd_values(settings, system.choice.storage, system.ejabberd_database(tables)),
        "websocket_ip": LISTEN_IP,
        "starttls_required": "false",
        "certfile": str(system.state / "ejabberd" / "server.pem"),
        "hosts_file": str(system.state / "ejabberd" / "hosts.yml"),
        "redis_password": system.secrets["redis_password"],
        "rabbitmq_user": RABBITMQ_USER,
        "rabbitmq_password": system.secrets["rabbitmq_password"],
        **{f"{name}_port": str(port) for name, port in system.ports.items()},
    }


def ejabberd_values(
    settings: Settings, storage: EjabberdStorage = EjabberdStorage.MNESIA, database: SqlServer | None = None
) -> dict[str, str]:
    """What ejabberd's template leaves open, but for ports, addresses and certificate of clients.

    Without a database of its own it keeps all in Mnesia.
    """
    version = ejabberd_version()
    return {
        **template_values(storage, database, version),
        "xmpp_host": settings.xmpp_host,
        "hosting": str(settings.hosting).lower(),
        "private_ip": LISTEN_IP,
        "private_network": "127.0.0.0/8",
        "disabled_mechanisms": f"[{', '.join(disabled_mechanisms(version))}]",
        "component_secret": settings.component_secret.get_secret_value(),
        "ejabberd_api_secret": settings.ejabberd_api_secret.get_secret_value(),
        "log_level": settings.log_level,
    }


def _node_values(node: EjabberdNode) -> dict[str, str]:
    """What the templates of a node leave open."""
    ports = {f"{name}_port": str(port) for name, port in node.ports.items()}
    return ports | {"node": node.name, "distribution": _distribution(node)}


def _distribution(node: EjabberdNode) -> str:
    """The options of Erlang's virtual machine for a node of several; a node that hangs is given up after 8 s."""
    if node.distribution is None:
        return ""
    return (
        f"-sname {node.erlang_name} {_LOOPBACK_DISTRIBUTION}"
        f" -kernel inet_dist_listen_min {node.distribution} inet_dist_listen_max {node.distribution} net_ticktime 8"
    )


def join_nodes(system: LocalSystem, settings: Settings) -> None:
    """Make one cluster of the nodes of ejabberd, unless they are one; returns when each knows all.

    Raises:
        LaunchError: one of them does not join.
    """
    first, *others = system.ejabberd_nodes
    for node in others:
        if len(_nodes_up(settings, node)) == 1:
            _control(system, node, "join_cluster", first.erlang_name)
    deadline = time.monotonic() + _JOIN_SECONDS
    # from 24.06 on the command returns before the tables are there
    while any(len(_nodes_up(settings, node)) <= len(others) for node in system.ejabberd_nodes):
        if time.monotonic() > deadline:
            raise LaunchError(f"ejabberd's nodes do not join each other; see {system.state}/logs")
        time.sleep(0.2)


def _nodes_up(settings: Settings, node: EjabberdNode) -> list[str]:
    """The nodes that run, as that one sees them; empty while it does not answer."""
    answer = _ask_ejabberd(settings, node.api_url, "lhc_nodes", host=settings.xmpp_host)
    return [str(one["name"]) for one in answer or () if one["state"] == "up"]


def _control(system: LocalSystem, node: EjabberdNode, *command: str) -> None:
    """Run a command of ejabberdctl at a node; Debian's own script insists on a user of its own."""
    erl = f"erl -noinput -hidden -sname control-{os.getpid()}@localhost {_LOOPBACK_DISTRIBUTION} -s ejabberd_ctl -extra"
    variables = {
        "HOME": str(system.state / "ejabberd"),
        "ERL_LIBS": str(_library("ejabberd-*").parent),
        "ERL_EPMD_PORT": str(system.ports["epmd"]),
        "ERL_EPMD_ADDRESS": LISTEN_IP,
    }
    done = subprocess.run(
        [*erl.split(), node.erlang_name, *command],
        env=os.environ | variables,
        cwd=system.state / "ejabberd",
        capture_output=True,
        text=True,
        timeout=_JOIN_SECONDS,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"{command[0]} at {node.erlang_name} failed: {(done.stdout + done.stderr).strip()}")


def url_answers(url: str) -> bool:
    """Whether a server answers there, and well."""
    try:
        return httpx.get(url, timeout=10, verify=_NO_TLS).is_success
    except httpx.HTTPError:
        return False


def tenant_is_made(settings: Settings, api_url: str) -> bool:
    """Whether the making of a standalone system's one tenant has ended; `doctor` says if it has not ended well."""
    headers = {"Authorization": f"Bearer {settings.panel_token.get_secret_value()}"}
    try:
        answer = httpx.get(f"{api_url}/v1/tenants/{STANDALONE_INSTANCE}", headers=headers, timeout=10, verify=_NO_TLS)
    except httpx.HTTPError:
        return False
    return answer.is_error or answer.json()["state"] not in {TenantState.PENDING, TenantState.PROVISIONING}


def _ejabberd_answers(settings: Settings, api_url: str) -> bool:
    return _ask_ejabberd(settings, api_url, "status") is not None


def _ask_ejabberd(settings: Settings, api_url: str, command: str, **arguments: str) -> Any:
    """What an admin command answers; None when it is not answered well."""
    headers = call_headers(settings.xmpp_host, settings.ejabberd_api_secret.get_secret_value())
    try:
        url = f"{api_url}/{command}"
        answer = httpx.post(url, json=arguments, headers=headers, timeout=10, verify=_NO_TLS)
    except httpx.HTTPError:
        return None
    return answer.json() if answer.is_success else None


def _broker_answers(system: LocalSystem) -> bool:
    options = {"max_retries": 1, "socket_connect_timeout": 5, "socket_timeout": 5}
    with Connection(system.broker_url, connect_timeout=5, transport_options=options) as connection:
        try:
            connection.connect()
        except connection.connection_errors:
            return False
    return True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    write_private(path, text)


def compile_bridge(ebin: Path) -> None:
    """Compile the bridge's modules."""
    compile_erlang(ebin, sorted((_CONFIG / "ejabberd").glob("*.erl")))


def compile_erlang(ebin: Path, sources: Iterable[Path], *options: str, made_for: Version | None = None) -> None:
    """Compile modules of ejabberd against the headers of the one that is installed.

    Args:
        ebin: the folder of the compiled modules.
        sources: the modules.
        options: more ones for `erlc`.
        made_for: the version of ejabberd that they say they are for, in the place of the installed one.
    """
    include = ebin.parent / "include"
    ebin.mkdir(parents=True, exist_ok=True)
    include.mkdir(parents=True, exist_ok=True)
    # the module includes xmpp/include/xmpp.hrl; Debian calls that folder p1_xmpp-VERSION
    link, xmpp = include / "xmpp", _library("p1_xmpp-*", "xmpp-*")
    link.unlink(missing_ok=True)
    link.symlink_to(xmpp)
    headers = _library("ejabberd-*") / "include"
    version = f'-DEJABBERD_VERSION="{shown(made_for or ejabberd_version())}"'
    command = ["erlc", version, "-I", str(headers), "-pa", str(ejabberd_modules()), *options]
    compiled.compile_to(ebin, command, list(sources), include, (headers, xmpp, ejabberd_modules()))


def ejabberd_modules() -> Path:
    """The folder of ejabberd's own compiled modules."""
    return _library("ejabberd-*") / "ebin"


def ejabberd_version() -> Version:
    """The version of the ejabberd that is installed."""
    library = _library("ejabberd-*")
    version = read_version(library.name)
    if version is None:
        raise MissingServerError(f"{library} names no version of ejabberd")
    return version


def _ejabberd_tables() -> str:
    """The file that makes ejabberd's tables in PostgreSQL, for several virtual hosts.

    Raises:
        MissingServerError: it is not there, or the library that ejabberd speaks to PostgreSQL with.
    """
    if not any(Path(folder).glob("p1_pgsql-*") for folder in _ERLANG_LIBRARY_FOLDERS):
        raise MissingServerError(
            "Erlang's library p1_pgsql is not installed; script/up --database postgresql installs it"
        )
    for folder in (Path("/usr/share/ejabberd"), _library("ejabberd-*") / "priv"):
        tables = folder / "sql" / "pg.new.sql"
        if tables.exists():
            return str(tables)
    raise MissingServerError("ejabberd's file of tables is not there: sql/pg.new.sql")


def _library(*patterns: str) -> Path:
    """The folder of an installed Erlang library that has its headers with it."""
    for folder in map(Path, _ERLANG_LIBRARY_FOLDERS):
        for pattern in patterns:
            for library in sorted(folder.glob(pattern)):
                if (library / "include").is_dir():
                    return library
    raise MissingServerError(f"no Erlang library {' or '.join(patterns)} in {', '.join(_ERLANG_LIBRARY_FOLDERS)}")
