"""Session rows as a pool process needs them: read when it takes over a tenant, removed when operators saw the end.

A page view may prolong a row at any time (`tenants.visitors.write_behind`), and no command tells of that. So whoever
ends a session looks at its row first, and removes it only if it is still over.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from sys import intern

import msgspec
from sqlalchemy import delete, select, tuple_

from tenants.core.chunks import chunks
from tenants.store.database import Database, rows_changed
from tenants.store.models import VisitorSession

_COLUMNS = (
    VisitorSession.username,
    VisitorSession.instance_name,
    VisitorSession.nick,
    VisitorSession.status,
    VisitorSession.online_until,
    VisitorSession.version,
)
_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""
_ROWS_AT_ONCE = 1000
"""Rows that are read between two turns of the event loop (some milliseconds), or removed by one statement."""


class Session(msgspec.Struct, gc=False):
    """A visitor or chat that operators see as online until `online_until` (Unix seconds).

    The garbage collector does not track it: to look through 100,000 of them would stop all else for 100 ms.
    """

    username: str
    instance_name: str
    nick: str
    status: str
    online_until: float
    version: int

    def __post_init__(self) -> None:
        # thousands of sessions share these strings, so each is kept once
        self.instance_name, self.nick = intern(self.instance_name), intern(self.nick)


async def read_sessions(database: Database, is_wanted: Callable[[str], bool]) -> AsyncIterator[list[Session]]:
    """The sessions of the tenants whose names are wanted, in pieces; also those that are over.

    Raises:
        DATABASE_AWAY: not all could be read.
    """
    async with database.read() as transaction:
        names = await transaction.scalars(select(VisitorSession.instance_name).distinct())
        wanted = [name for name in names if is_wanted(name)]
        for some in chunks(wanted, _NAMES_AT_ONCE):
            rows = await transaction.stream(
                select(*_COLUMNS)
                .where(VisitorSession.instance_name.in_(some))
                .execution_options(yield_per=_ROWS_AT_ONCE)
            )
            async for piece in rows.partitions():
                yield [Session(*row) for row in piece]


async def read_prolonged(database: Database, usernames: Sequence[str], now: float) -> dict[str, float]:
    """Of these sessions, those that are not over at `now`: their ends (Unix seconds) by username.

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    prolonged: dict[str, float] = {}
    async with database.read() as transaction:
        for some in chunks(usernames, _NAMES_AT_ONCE):
            rows = await transaction.execute(
                select(VisitorSession.username, VisitorSession.online_until).where(
                    VisitorSession.username.in_(some), VisitorSession.online_until > now
                )
            )
            prolonged.update((username, end) for username, end in rows)
    return prolonged


async def read_nicks(database: Database, now: float, instance_name: str | None) -> AsyncIterator[dict[str, str]]:
    """The nicks of the visitors who are online at `now`, of one tenant or (None) of all, by username, in pieces.

    Each piece is read when it is wanted, so that none is old.
    """
    columns = select(VisitorSession.username, VisitorSession.nick).where(VisitorSession.online_until > now)
    if instance_name is not None:
        columns = columns.where(VisitorSession.instance_name == instance_name)
    after = ""
    while True:
        piece = columns.where(VisitorSession.username > after).order_by(VisitorSession.username).limit(_NAMES_AT_ONCE)
        async with database.read() as transaction:
            nicks = {username: nick for username, nick in await transaction.execute(piece)}  # noqa: C416 - rows are no tuples to mypy
        if not nicks:
            return
        yield nicks
        after = max(nicks)


async def remove_ended(database: Database, usernames: Sequence[str], now: float) -> list[Session]:
    """Remove those of these sessions that are over at `now`. Returns the others: page views have prolonged them.

    Raises:
        DATABASE_AWAY: some may be removed.
    """
    prolonged: list[Session] = []
    for some in chunks(usernames, _NAMES_AT_ONCE):
        async with database.write() as transaction:
            await transaction.execute(
                delete(VisitorSession).where(VisitorSession.username.in_(some), VisitorSession.online_until <= now)
            )
            rows = await transaction.execute(select(*_COLUMNS).where(VisitorSession.username.in_(some)))
            prolonged += [Session(*row) for row in rows]
    return prolonged


async def remove_unchanged(database: Database, sessions: Sequence[Session]) -> None:
    """Remove these sessions, but none that has another version by now: a later page view made that one.

    Raises:
        DATABASE_AWAY: none is removed.
    """
    row = tuple_(VisitorSession.username, VisitorSession.version)
    async with database.write() as transaction:
        await transaction.execute(
            delete(VisitorSession).where(row.in_([(session.username, session.version) for session in sessions]))
        )


async def remove_of_tenant(database: Database, instance_name: str) -> None:
    """Remove all sessions of a tenant, in pieces.

    Raises:
        DATABASE_AWAY: some may be removed.
    """
    username = VisitorSession.username
    some = select(username).where(VisitorSession.instance_name == instance_name).limit(_ROWS_AT_ONCE)
    while True:
        async with database.write() as transaction:
            removed = await transaction.execute(delete(VisitorSession).where(username.in_(some.scalar_subquery())))
        if rows_changed(removed) < _ROWS_AT_ONCE:
            return
