"""A private PostgreSQL in a folder of its own, reached by a unix socket in that folder.

The folder is open to one user only, who is therefore trusted without a password. The server refuses to run as root:
root's server belongs to the user `postgres`, whom Debian's package makes.

ejabberd before 24.06 knows no unix sockets: where it keeps its data here, it comes by the loopback address, to its own
database alone, with a password.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from orchestrator.launcher.errors import LaunchError, MissingServerError

LISTEN_IP = "127.0.0.1"
EJABBERD = "ejabberd"
"""ejabberd's role, and its database, as `ejabberd.yml` names them."""
_ROLE = "orchestrator"
_SERVER_USER = "postgres"
_VERSIONS = Path("/usr/lib/postgresql")
_CONNECTIONS = 200
"""SQLAlchemy's pools hold 15 each, in the API, the worker and every pool process."""
_WHO_MAY_COME = "pg_hba.conf"
_LONGEST_SOCKET = 107
"""Bytes of a unix socket's path (`sun_path` in unix(7), less its ending NUL)."""


def url(folder: Path, port: int | None = None) -> str:
    """The URL of its database, for SQLAlchemy. `port` as in `command`: the socket is called by it."""
    return _url(_ROLE, "postgres", folder, port)


def url_of_ejabberd(folder: Path, port: int | None) -> str:
    """The same of ejabberd's database, as ejabberd's role: whose the tables are that are made by it."""
    return _url(EJABBERD, EJABBERD, folder, port)


def _url(role: str, database: str, folder: Path, port: int | None) -> str:
    return f"postgresql+psycopg://{role}@/{database}?host={folder}" + (f"&port={port}" if port else "")


def own_address(folder: Path, port: int) -> str:
    """The same, for psycopg."""
    return f"postgresql://{_ROLE}@/postgres?host={folder}&port={port}"


def user() -> str:
    """The id of the user that the server must run as."""
    return str(_server_account().pw_uid)


def command(folder: Path, port: int | None = None) -> list[str]:
    """The command line of the server, which stays in the foreground. What it accepts is on disk: fsync is on.

    With a port ejabberd may come, too.
    """
    options = {"listen_addresses": "", "unix_socket_directories": str(folder), "max_connections": str(_CONNECTIONS)}
    if port is not None:
        options |= {"listen_addresses": LISTEN_IP, "port": str(port), "hba_file": str(folder / _WHO_MAY_COME)}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return [str(_binaries() / "postgres"), "-D", str(folder / "data"), *words]


def create(folder: Path) -> None:
    """Make the folder and an empty database in it, once.

    Raises:
        LaunchError: the server could not work in this folder; says why.
    """
    if len(f"{folder}/.s.PGSQL.5432") > _LONGEST_SOCKET:
        raise LaunchError(f"PostgreSQL's socket would have too long a path in {folder}: choose a shorter --state-dir")
    folder.mkdir(exist_ok=True, mode=0o700)
    account = _server_account()
    if account.pw_uid != os.getuid():
        # who runs the server only passes through, to the one folder that is the server's own
        folder.parent.chmod(0o711)
        os.chown(folder, account.pw_uid, account.pw_gid)
        _check_that_it_can_be_reached(folder)
    who = folder / _WHO_MAY_COME
    who.write_text(f"local all all trust\nhost {EJABBERD} {EJABBERD} {LISTEN_IP}/32 scram-sha-256\n")
    os.chown(who, account.pw_uid, account.pw_gid)
    data, new = folder / "data", folder / "data.new"
    if data.exists():
        return
    # under another name until it is whole
    shutil.rmtree(new, ignore_errors=True)
    words = ["-D", str(new), "-U", _ROLE, "--auth-local=trust", "--auth-host=reject"]
    words += ["--no-locale", "--encoding=UTF8", "--data-checksums"]
    done = _run_as_server([str(_binaries() / "initdb"), *words], folder)
    if done.returncode:
        raise LaunchError(f"PostgreSQL's initdb failed: {done.stderr.strip()}")
    new.rename(data)


def answers(folder: Path, port: int | None = None) -> bool:
    """Whether the server takes connections."""
    # here: it takes long to load, and few commands ask this
    import psycopg  # noqa: PLC0415

    try:
        psycopg.connect(host=str(folder), port=port, user=_ROLE, dbname="postgres", connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def let_ejabberd_in(address: str, password: str) -> None:
    """Make ejabberd's role and its empty database, if they are not there; the password is this one from now on.

    `address`: of any database of the server (a connection string of libpq), by a role that may make others.
    """
    import psycopg  # noqa: PLC0415
    from psycopg import sql  # noqa: PLC0415

    name = sql.Identifier(EJABBERD)
    with psycopg.connect(address, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [EJABBERD]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [EJABBERD]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))


def make_tables(folder: Path, port: int, tables: Path) -> None:
    """Make ejabberd's tables by that file of its own, all of them or none, if they are not there."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(host=str(folder), port=port, user=EJABBERD, dbname=EJABBERD) as connection:
        if connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 'users'").fetchone() is None:
            connection.execute(tables.read_bytes())


def _server_account() -> pwd.struct_passwd:
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid())
    try:
        return pwd.getpwnam(_SERVER_USER)
    except KeyError:
        raise MissingServerError(f"PostgreSQL is not installed: there is no user {_SERVER_USER}") from None


def _binaries() -> Path:
    found = [folder for folder in _VERSIONS.glob("*/bin") if (folder / "initdb").exists()]
    if not found:
        raise MissingServerError("PostgreSQL is not installed; script/up --database postgresql installs it")
    return max(found, key=lambda folder: int(folder.parent.name))


def _check_that_it_can_be_reached(folder: Path) -> None:
    for parent in reversed(folder.parents):
        if _run_as_server(["test", "-x", str(parent)], Path("/")).returncode:
            raise LaunchError(
                f"PostgreSQL runs as the user {_SERVER_USER}, who may not enter {parent}:"
                f" choose a --state-dir elsewhere, or allow it (chmod o+x {parent})"
            )


def _run_as_server(words: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    account = _server_account()
    other = account.pw_uid != os.getuid()
    return subprocess.run(
        words,
        user=account.pw_uid if other else None,
        group=account.pw_gid if other else None,
        extra_groups=[] if other else None,
        umask=0o077,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
