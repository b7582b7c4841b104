"""A system that has data is upgraded from each revision there was, and goes back: nothing of it is lost or changed."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, create_engine, make_url, select, text, types

from bench.testbed.system import ORCHESTRATOR
from tenants.store import dumps
from tenants.store.migrate import MigrationError, alembic_config, upgrade

_MIGRATIONS = ScriptDirectory.from_config(alembic_config())
_REVISIONS = sorted(script.revision for script in _MIGRATIONS.walk_revisions())
_HEAD = _REVISIONS[-1]

_EMPTIED = {"0010": "console_sessions"}
"""Tables that a revision empties on purpose: whoever is logged in logs in once more."""

Contents = dict[str, list[dict[str, Any]]]
"""The rows of each table."""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An empty database, and the settings' own."""
    if request.param == "sqlite":
        url = make_url(f"sqlite+aiosqlite:///{tmp_path}/registry.db")
    else:
        url = make_url(request.getfixturevalue("postgresql")).set(database="upgrades")
        server = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with server.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS upgrades"))
            connection.execute(text("CREATE DATABASE upgrades"))
        server.dispose()
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", url.render_as_string(hide_password=False))
    engine = create_engine(url.set(drivername=url.drivername.removesuffix("+aiosqlite")))
    yield engine
    engine.dispose()


def value_of(column: Column[Any], number: int) -> Any:
    """A value of the column's type, another one in each row."""
    match column.type:
        case types.Boolean():
            return bool(number % 2)
        case types.Integer():
            return number
        case types.Float():
            return 1_700_000_000.25 + number
        case types.JSON():
            return {"number": number, "list": ["a", None]}
        case types.String(length=length):
            return f"{number} {column.name} é"[:length]
    raise AssertionError(f"{column}: give this test a value for {column.type!r}")


def fill(connection: Connection) -> None:
    """Rows in every table: one with a value in each column, one with only what must be there.

    Row n of a table refers to row n of another: their values are made alike.
    """
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name == "alembic_version":
            continue
        for number, everything in ((1, True), (2, False)):
            row = {}
            for column in table.columns:
                origin = next(iter(column.foreign_keys)).column if column.foreign_keys else column
                if everything or not column.nullable:
                    row[column.name] = value_of(origin, number)
            connection.execute(table.insert().values(row))


def contents(engine: Engine, like: Contents | None = None) -> Contents:
    """All rows; or the tables and columns alone that are in `like`."""
    metadata = MetaData()
    metadata.reflect(engine)
    found: Contents = {}
    with engine.connect() as connection:
        for name, table in metadata.tables.items():
            if name == "alembic_version" or (like is not None and name not in like):
                continue
            columns = [table.columns[column] for column in like[name][0]] if like is not None else list(table.columns)
            rows = connection.execute(select(*columns).order_by(*table.primary_key)).mappings()
            found[name] = [dict(row) for row in rows]
    return found


@pytest.mark.parametrize("revision", _REVISIONS)
def test_nothing_is_lost_on_the_way_to_the_newest_revision_and_back(database: Engine, revision: str) -> None:
    command.upgrade(alembic_config(), revision)
    with database.begin() as connection:
        fill(connection)
    before = contents(database)
    assert {len(rows) for rows in before.values()} == {2}
    for later, emptied in _EMPTIED.items():
        if revision < later:
            before.pop(emptied, None)
    command.upgrade(alembic_config(), "head")
    assert contents(database, like=before) == before
    command.downgrade(alembic_config(), revision)
    assert contents(database, like=before) == before


_BROKEN = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "9999", "{head}"
def upgrade():
    op.create_table("useless", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("tenants") as tenants:
        tenants.add_column(sa.Column("useless", sa.Integer()))
    op.execute("UPDATE tenants SET callback_url = NULL")
    {broken}
"""


def migrations_with_one_that_fails(folder: Path, broken: str) -> Config:
    """Our migrations and one more, which changes a table before it fails."""
    shutil.copytree(_MIGRATIONS.dir, folder)
    (folder / "versions" / "9999_broken.py").write_text(_BROKEN.format(head=_HEAD, broken=broken))
    config = Config()
    config.set_main_option("script_location", str(folder))
    return config


@pytest.mark.parametrize("revision", ["0004", _HEAD])
def test_a_revision_that_fails_leaves_nothing_behind_and_those_before_it_stay(
    database: Engine, revision: str, tmp_path: Path
) -> None:
    command.upgrade(alembic_config(), revision)
    with database.begin() as connection:
        fill(connection)
    config = migrations_with_one_that_fails(tmp_path / "migrations", "op.execute('no SQL at all')")
    before = contents(database)
    for emptied in _EMPTIED.values():
        before.pop(emptied, None)
    with pytest.raises(Exception, match="syntax error"):
        command.upgrade(config, "head")
    with database.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == _HEAD
    assert contents(database, like=before) == before
    after = contents(database)
    assert not {name for name in after if "useless" in name or name.startswith("_alembic_tmp")}
    assert "useless" not in after["tenants"][0]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_revision_that_leaves_rows_without_what_they_refer_to_fails(database: Engine, tmp_path: Path) -> None:
    """SQLite does not look at foreign keys meanwhile; who migrates does, before anything is committed."""
    command.upgrade(alembic_config(), "head")
    with database.begin() as connection:
        fill(connection)
    config = migrations_with_one_that_fails(tmp_path / "migrations", "op.execute('DELETE FROM tenants')")
    with pytest.raises(RuntimeError, match="accounts -> tenants"):
        command.upgrade(config, "head")
    assert len(contents(database)["tenants"]) == 2


def test_a_copy_is_made_before_anything_is_changed_and_a_failure_is_one_sentence(
    database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that fails to go on has a copy beside it, and an empty one has none."""
    monkeypatch.setenv("ORCHESTRATOR_STATE_DIR", str(tmp_path))
    command.upgrade(alembic_config(), "0004")
    with database.begin() as connection:
        fill(connection)
    before = contents(database)
    config = migrations_with_one_that_fails(tmp_path / "migrations", "op.execute('no SQL at all')")
    with pytest.raises(MigrationError) as failed:
        upgrade(config=config)
    said = str(failed.value)
    assert "to revision 9999: " in said
    assert "syntax error" in said
    assert f"It is at revision {_HEAD} with all its rows" in said
    assert "\n" not in said
    copy = next(tmp_path.glob("*-before-upgrade-from-0004*"))
    assert str(copy) in said
    assert copy.stat().st_mode & 0o777 == 0o600
    if database.dialect.name == "sqlite":
        # the version that it belongs to can be started on it
        copied = create_engine(f"sqlite:///{copy}")
        assert contents(copied) == before
        copied.dispose()
    else:
        assert copy.read_bytes().startswith(b"PGDMP")
    assert upgrade() is None


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_without_a_copy_nothing_is_changed_unless_that_is_said(
    database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.upgrade(alembic_config(), "0004")
    before = contents(database)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(dumps, "_copy_sqlite", full)
    with pytest.raises(MigrationError, match=r"disk is full\. Without a copy of it nothing is changed.*--no-backup"):
        upgrade()
    assert contents(database) == before
    assert upgrade(backup=False) is None
    assert list(tmp_path.glob("*before-upgrade*")) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite+aiosqlite:////nowhere/registry.db", "the database cannot be used: there is no folder /nowhere"),
        ("postgresql+psycopg://me@127.0.0.1:1/x", "the database cannot be used: connection failed: connection to"),
    ],
)
def test_a_database_that_is_not_there_is_told_in_one_line(url: str, said: str) -> None:
    environment = {**os.environ, "ORCHESTRATOR_DATABASE_URL": url}
    done = subprocess.run([ORCHESTRATOR, "migrate"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
