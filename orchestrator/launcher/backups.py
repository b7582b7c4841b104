"""A backup of a private system, in a folder of its own, and what is put back of it before the system is started.

It is written under a temporary name and renamed when it is whole; its manifest has the size and the checksum of each
file. ejabberd is read first and the database after it, so that the database is the newer one of the two: it knows
every account that ejabberd has, and a message is rather in both than in neither.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config.ejabberd_storage import EjabberdStorage
from config.settings import Settings
from orchestrator.launcher import postgresql
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import KEPT, LocalSystem, write_private
from tenants.ejabberd.client import Ejabberd
from tenants.ejabberd.errors import EjabberdError
from tenants.store import dumps
from tenants.store.database import sqlite_file
from tenants.store.migrate import revision_of

PACKAGE = "lhc-xmpp-orchestrator"
MANIFEST = "manifest.json"
_FORMAT = 1
_DATABASE, _MNESIA, _SQL, _SETTINGS = "database", "ejabberd.mnesia", "ejabberd.pgdump", "settings"
_KEYS = (KEPT, "ejabberd/server.pem")
"""Files of the state folder that hold keys; all other files are made from them."""
_FALLBACK_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is of, and its files by their paths: bytes and SHA-256."""

    format: int
    version: str
    schema: str | None
    made_at: str
    files: Mapping[str, tuple[int, str]]


async def make(state: Path, settings: Settings, ejabberd: Ejabberd, target: Path) -> Path:
    """Back the running system up into a new folder in `target`.

    Raises:
        LaunchError: it was not made; says why.
    """
    _check_target(state, target)
    now = datetime.now(UTC)
    folder = target / f"backup-{now:%Y%m%dT%H%M%SZ}"
    new = folder.with_name(f"{folder.name}.new")
    try:
        new.mkdir(parents=True, mode=0o700)
        await _write(state, settings, ejabberd, new)
        manifest = _manifest(new, settings, now)
        write_private(new / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
        _flush(new)
        new.rename(folder)
    except (OSError, EjabberdError, dumps.DumpError) as error:
        raise LaunchError(f"no backup was made: {error}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _check_target(state: Path, target: Path) -> None:
    if not (state / KEPT).exists():
        raise LaunchError(
            f"{state} is no system that script/up began; docs/operations.md says how others are backed up"
        )
    if target.resolve().is_relative_to(state.resolve()):
        raise LaunchError(f"{target} is in the folder that the backup protects: choose one on another disk")


async def _write(state: Path, settings: Settings, ejabberd: Ejabberd, folder: Path) -> None:
    system = LocalSystem.read(state)
    if system.choice.storage is EjabberdStorage.SQL:
        dumps.dump(_ejabberd_url(system), folder / _SQL)
    if system.choice.ejabberd_nodes == 1:
        # also beside SQL: the bridge's queue is in Mnesia. Of several nodes none holds all
        await ejabberd.backup(str((folder / _MNESIA).resolve()))
        (folder / _MNESIA).chmod(0o600)
    dumps.dump(settings.database_url.get_secret_value(), folder / _DATABASE)
    for name in _KEYS:
        _copy(state / name, folder / _SETTINGS / Path(name).name)
    if (own := state.parent / ".env").exists():
        _copy(own, folder / _SETTINGS / "env")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True, mode=0o700)
    shutil.copyfile(source, target)
    target.chmod(0o600)


def _manifest(folder: Path, settings: Settings, now: datetime) -> Manifest:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Manifest(
        format=_FORMAT,
        version=version(PACKAGE),
        schema=revision_of(settings.database_url.get_secret_value()),
        made_at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        files={str(path.relative_to(folder)): (path.stat().st_size, _checksum(path)) for path in files},
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    """Have all of it on disk before it gets its name."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def check(folder: Path) -> Manifest:
    """The manifest of a backup that is whole.

    Raises:
        LaunchError: it is none, of a newer format, or a file of it is missing or damaged.
    """
    try:
        data: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        manifest = Manifest(**data)
        found = {name: ((folder / name).stat().st_size, _checksum(folder / name)) for name in manifest.files}
    except (OSError, ValueError, TypeError) as error:
        raise LaunchError(f"{folder} is no whole backup: {error}") from None
    if manifest.format != _FORMAT:
        raise LaunchError(f"{folder} is of a newer version of the orchestrator ({manifest.version}): install that one")
    damaged = [name for name, (size, checksum) in manifest.files.items() if found[name] != (size, checksum)]
    if damaged:
        raise LaunchError(f"{folder} is damaged: {', '.join(damaged)} is not as it was written")
    return manifest


def begin_restore(state: Path, backup: Path, *, replace: bool) -> Path | None:
    """Put keys and an SQLite database into the state folder. Returns where the folder that was there is now.

    Raises:
        LaunchError: there is a system, which is not to be replaced; or it cannot be put there.
    """
    aside = None
    if state.exists() and any(state.iterdir()):
        if not replace:
            raise LaunchError(f"{state} is not empty: --replace moves it aside, and restores into an empty one")
        aside = state.with_name(f"{state.name}-before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        state.rename(aside)
    for name in _KEYS:
        (state / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy(backup / _SETTINGS / Path(name).name, state / name)
    if (own := backup / _SETTINGS / "env").exists() and not (state.parent / ".env").exists():
        _copy(own, state.parent / ".env")
    return aside


def restore_files(system: LocalSystem, backup: Path) -> None:
    """Put back what is in files before any server starts: an SQLite database, and ejabberd's Mnesia.

    Raises:
        LaunchError: it was not put there.
    """
    file = sqlite_file(system.database_url)
    try:
        if file is not None:
            dumps.load(system.database_url, backup / _DATABASE)
        if (backup / _MNESIA).exists():
            _install_mnesia(system.state / system.ejabberd_nodes[0].name / "mnesia", backup / _MNESIA)
    except (OSError, dumps.DumpError) as error:
        raise LaunchError(f"{backup} was not restored: {error}") from None


def restore_postgresql(system: LocalSystem, backup: Path) -> None:
    """Put back what PostgreSQL holds, before ejabberd starts.

    Raises:
        LaunchError: it was not put there.
    """
    try:
        if sqlite_file(system.database_url) is None:
            dumps.load(system.database_url, backup / _DATABASE)
        if (backup / _SQL).exists():
            dumps.load(_ejabberd_url(system), backup / _SQL)
    except dumps.DumpError as error:
        raise LaunchError(f"{backup} was not restored: {error}") from None


def _ejabberd_url(system: LocalSystem) -> str:
    """The database that is ejabberd's own."""
    return postgresql.url_of_ejabberd(system.state / "postgresql", system.postgresql_port)


def _install_mnesia(folder: Path, backup: Path) -> None:
    """What ejabberd takes for its data when it starts: all tables, also those that its own `restore` leaves out."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    call = f'ok = mnesia:start(), ok = mnesia:install_fallback("{backup.resolve()}"), stopped = mnesia:stop(), halt().'
    done = subprocess.run(
        ["erl", "-noinput", "-mnesia", "dir", f'"{folder.resolve()}"', "-eval", call],
        capture_output=True,
        text=True,
        timeout=_FALLBACK_SECONDS,
        check=False,
    )
    if done.returncode:
        raise LaunchError(f"ejabberd's data were not restored: {(done.stdout + done.stderr).strip()[-500:]}")
