"""Database sessions: one way to read, one way to write, the same on SQLite and PostgreSQL."""

import functools
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Dialect, Insert, Result, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from tenants.store.models import Base
from tenants.store.turns import Turns

DATABASE_AWAY = (DBAPIError, PoolTimeoutError)
"""What a session raises when the database cannot be reached or does not answer, or no connection becomes free in time.

`DBAPIError` also holds statements that the database refuses, `IntegrityError` for one: who expects such a refusal
catches that first.
"""

DATABASE_FAILED = (SQLAlchemyError,)
"""All that can go wrong with the database: it is away, or it is not the one that we expect, and lacks our tables."""

_LOCK_TIMEOUT = 10
"""Seconds that a writer waits for another: far longer than any of our transactions, far shorter than for ever."""

_CONNECTIONS = 15
"""Of each process. They stay open, because to open one takes as long as many transactions."""
_IDLE_SECONDS = 1.0
"""A connection that nobody used for so long may be dead, and is tried before it is used."""

_POSTGRESQL_ARGS = {
    "connect_timeout": _LOCK_TIMEOUT,
    # a server whose machine is gone is found out within some 20 s instead of a quarter of an hour
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    # a process that stands still in the middle of a transaction must not keep its locks for ever
    "options": "-c idle_in_transaction_session_timeout=20000",
}
"""libpq's connection parameters, https://www.postgresql.org/docs/current/libpq-connect.html."""


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; None when the URL is of another server's."""
    parsed = make_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def first_line(error: Exception) -> str:
    """What the database itself said of an error of `DATABASE_FAILED`, in one line."""
    return str(getattr(error, "orig", None) or error).partition("\n")[0]


class Database:
    """Opens sessions on one database.

    SQLite takes its write lock at the first *write* of a transaction, and fails at once if another writer came in
    between. Writing sessions therefore take the lock when they begin (`BEGIN IMMEDIATE`), and take turns for it
    (`tenants.store.turns`).
    """

    def __init__(self, url: str, *, migrating: bool = False) -> None:
        """Open nothing yet.

        Args:
            url: of the database.
            migrating: do not enforce foreign keys on SQLite. To change a table, SQLite makes a new one and drops the
                old one, which would fail, or delete the rows that refer to it. A migration checks before each commit.
        """
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        connect_args = {"timeout": _LOCK_TIMEOUT} if self.is_sqlite else _POSTGRESQL_ARGS
        self.engine = create_async_engine(url, connect_args=connect_args, pool_size=_CONNECTIONS, max_overflow=0)
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", functools.partial(_set_up_sqlite, not migrating))
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine.sync_engine, "checkin", _note_use)
            event.listen(self.engine.sync_engine, "checkout", functools.partial(_try_idle, self.engine.dialect))
        writer = self._writer = self.engine.execution_options(write=True)
        self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._turns = _turns(url)
        self._turn: AbstractAsyncContextManager[object] = self._turns or nullcontext()
        self._read = async_sessionmaker(self.engine, expire_on_commit=False)
        self._write = async_sessionmaker(writer, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for reading; nothing is committed."""
        async with self._read() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A transaction: committed at the end, rolled back when the block raises."""
        async with self._turn, self._write.begin() as session:
            yield session

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """For one statement that writes. It is a transaction by itself, without round trips for BEGIN and COMMIT."""
        async with self._turn:
            if self.is_sqlite:
                async with self._writer.begin() as connection:
                    yield connection
            else:
                async with self._single.connect() as connection:
                    yield connection

    def insert(self, model: type[Base]) -> Any:
        """An `INSERT` of the database's own dialect, which knows `ON CONFLICT` (SQLAlchemy has no neutral one)."""
        make: Any = sqlite.insert if self.is_sqlite else postgresql.insert
        statement: Insert = make(model)
        return statement

    async def close(self) -> None:
        await self.engine.dispose()
        if self._turns is not None:
            self._turns.close()


def _turns(url: str) -> Turns | None:
    file = sqlite_file(url)
    return None if file is None else Turns(file.with_name(f"{file.name}-turn"), _LOCK_TIMEOUT)


def rows_changed(result: Result[Any]) -> int:
    """How many rows an `UPDATE` or `DELETE` has changed: the outcome of a compare-and-swap.

    Not for an `INSERT`, whose number psycopg does not tell: there `RETURNING` shows whether it did anything.
    """
    return cast("CursorResult[Any]", result).rowcount


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _try_idle(dialect: Dialect, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Try a connection that was idle. `pool_pre_ping` would try each one: a round trip for every transaction."""
    if time.monotonic() - record.info.get("used_at", time.monotonic()) < _IDLE_SECONDS:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        # the pool opens another one instead
        raise DisconnectionError from error


def _set_up_sqlite(foreign_keys: bool, connection: Any, _record: object) -> None:
    # The driver's own transaction handling would begin behind our back: see "begin" below.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # In WAL mode NORMAL can lose the last commits when the *machine* fails, and we acknowledge on commit.
    cursor.execute("PRAGMA synchronous=FULL")
    # an argument of the connection: within a transaction it would change nothing
    cursor.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
