"""Brings the database to the newest schema, after a copy of it was made."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from config.settings import Settings, state_dir
from tenants.core.errors import DomainError
from tenants.store import dumps
from tenants.store.database import first_line, sqlite_file

_FOLDER = Path(__file__).parent / "migrations"
_NO_BACKUP = "Without a copy of it nothing is changed; if you have one, go on with --no-backup"


class MigrationError(DomainError):
    """The database was not migrated; the message says why, and what it is like now."""


def alembic_config() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config


def newest_revision(config: Config | None = None) -> str:
    """The revision of the schema that this version of the orchestrator works with."""
    return str(ScriptDirectory.from_config(config or alembic_config()).get_current_head())


def revision_of(url: str) -> str | None:
    """The revision of the database's schema; None of an empty one.

    Raises:
        MigrationError: it cannot be read.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        if not file.parent.is_dir():
            raise MigrationError(f"the database cannot be used: there is no folder {file.parent}")
        # SQLite would make it
        return None
    parsed = make_url(url)
    engine = create_engine(parsed.set(drivername=parsed.drivername.removesuffix("+aiosqlite")))
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        raise MigrationError(f"the database cannot be used: {first_line(error)}") from None
    finally:
        engine.dispose()


def upgrade(*, backup: bool = True, config: Config | None = None) -> Path | None:
    """Run the migrations that the database of the settings has not seen. Returns where its copy is, if one was made.

    Args:
        backup: first make a copy: of SQLite's file beside it, of PostgreSQL's database in the state folder.
        config: Alembic's, if not ours.

    Raises:
        MigrationError: it is not at the newest revision. What succeeded stays; the revision that failed left nothing.
    """
    config = config or alembic_config()
    url = Settings.load().database_url.get_secret_value()
    before, newest = revision_of(url), newest_revision(config)
    if before == newest:
        return None
    kept = _copy(url, before) if backup and before is not None else None
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise MigrationError(f"the database is at revision {before}, which this version does not know") from error
    except (SQLAlchemyError, RuntimeError, OSError) as error:
        raise MigrationError(_why(url, before, newest, error, kept)) from None
    return kept


def _copy(url: str, revision: str) -> Path:
    """A copy of the database as it is, named by its revision."""
    file = sqlite_file(url)
    if file is None:
        target = state_dir() / f"database-before-upgrade-from-{revision}.dump"
    else:
        target = file.with_name(f"{file.name}-before-upgrade-from-{revision}")
    try:
        dumps.dump(url, target)
    except dumps.DumpError as error:
        raise MigrationError(f"{error}. {_NO_BACKUP}") from None
    return target


def _why(url: str, before: str | None, newest: str, error: Exception, kept: Path | None) -> str:
    try:
        now = revision_of(url)
    except MigrationError:
        now = before
    if now is None:
        return f"the database cannot be used: {first_line(error)}"
    where = f"; a copy from before is {kept}" if kept else ""
    return (
        f"the database was not migrated to revision {newest}: {first_line(error)}. It is at revision {now} with all its"
        f" rows, and the version of the orchestrator that it belongs to can be started{where}"
    )
