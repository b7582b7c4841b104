"""Stores that visitors are online: many at once by one statement; one by one where a tenant may have only so many.

Rows are locked in the order of tenants and accounts, then sessions, and of their names, as everybody does: so two who
do it never wait for each other in a ring.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Float, Integer, and_, bindparam, cast, func, literal, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tenants.core.errors import QuotaExceededError, UnavailableError
from tenants.core.naming import AccountKind, AccountName, Naming
from tenants.lifecycle import admission
from tenants.process.services import Batched, Services
from tenants.shards.commands import ShowVisitor
from tenants.store.database import Database
from tenants.store.json_rows import ROWS, value
from tenants.store.models import Account, AccountState, Tenant, VisitorSession

_CROWD_SECONDS = 30.0
"""When a visitor who was one too many may try again: somebody will have left."""


@dataclass(frozen=True, slots=True)
class VisitorView:
    """A visitor to be shown as online until `online_until` (Unix seconds).

    Attributes:
        nick: the name to be shown. With `keeps_nick` only if there is no session yet, which else keeps its own.
        status: the same, with `keeps_status`.
        password_digest: of an account that is known from memory, and must still have it.
        incarnation: of the tenant.
    """

    name: AccountName
    username: str
    nick: str
    status: str
    online_until: float
    keeps_nick: bool = False
    keeps_status: bool = False
    password_digest: str | None = None
    incarnation: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """On which terms a session is stored.

    Attributes:
        counted_for: the tenant, if it may have only so many visitors online. A visitor who is not online yet is then
            stored alone, to be counted.
        only_over: for what was seen earlier: the version that the present session must have, if there is a session.
            None: any session is replaced.
    """

    counted_for: Tenant | None = None
    only_over: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether the session can be stored by one statement with those of others."""
        return self.counted_for is None and self.only_over is None


FREE = Policy()


class NotStoredError(UnavailableError):
    """The account is gone; or there is another session by now than the policy allows to replace."""


async def store(services: Services, view: VisitorView, policy: Policy = FREE) -> ShowVisitor:
    """Store the session, on these terms. Returns what the pool is to be told.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: the tenant was shut just now, or lost the feature.
        QuotaExceededError: the visitor would be one more than the tenant may have.
        NotStoredError: the account is gone, or being removed just now; or there is another session than `only_over`.
    """
    stored = await _STORE_SESSION.do(services, view) if policy.is_free else None
    # what could not be stored with others is tried alone, which raises the reason
    stored = stored or await _store_alone(services, view, policy)
    if policy.only_over is None:
        # what was seen earlier was noted as activity when it was seen
        await _note_activity(services, view.username)
    return stored


async def is_online(session: AsyncSession, username: str, now: float) -> bool:
    """Whether the visitor has a session that is not over."""
    return await session.scalar(select(VisitorSession.username).where(online(username, now))) is not None


def online(username: str, now: float) -> ColumnElement[bool]:
    """The condition of the visitor's session, if it is not over."""
    return and_(VisitorSession.username == username, VisitorSession.online_until > now)


async def refuse_crowd(session: AsyncSession, naming: Naming, tenant: Tenant, now: float) -> None:
    """Raise QuotaExceededError when no further visitor of the tenant may come online."""
    online = await session.scalar(
        select(func.count())
        .select_from(VisitorSession)
        .where(
            VisitorSession.instance_name == tenant.instance_name,
            VisitorSession.online_until > now,
            VisitorSession.username.not_like(f"%.chat{naming.username_suffix(tenant.instance_name)}"),
        )
    )
    if (online or 0) >= (tenant.max_online_visitors or 0):
        raise QuotaExceededError(
            f"tenant '{tenant.instance_name}' may have {tenant.max_online_visitors} visitors online", _CROWD_SECONDS
        )


async def _store_alone(services: Services, view: VisitorView, policy: Policy) -> ShowVisitor:
    now, tenant = services.clock(), policy.counted_for
    async with services.database.write() as session:
        further = tenant is not None and not await is_online(session, view.username, now)
        # the tenant may have been shut since that was checked
        await admission.hold(session, view.name.instance, view.name.kind, alone=further)
        if tenant is not None and further:
            await refuse_crowd(session, services.naming, tenant, now)
        stored = await _upsert(services.database, await session.connection(), [view], policy.only_over)
    if view.username not in stored:
        gone = f"account '{view.username}' is being removed just now; it can be made anew in a moment"
        raise NotStoredError(gone)
    return stored[view.username]


async def _store_all(services: Services, views: Sequence[VisitorView]) -> list[ShowVisitor | None]:
    """Store sessions of any tenants. None: not stored, for whatever reason."""
    latest: dict[str, VisitorView] = {}
    for one in views:
        latest[one.username] = _after(latest.get(one.username), one)
    alike: defaultdict[tuple[bool, bool], list[VisitorView]] = defaultdict(list)
    for one in latest.values():
        alike[one.keeps_nick, one.keeps_status].append(one)
    stored: dict[str, ShowVisitor] = {}
    for group in alike.values():
        async with services.database.statement() as connection:
            stored |= await _upsert(services.database, connection, group)
    return [stored.get(one.username) for one in views]


_STORE_SESSION = Batched("store_session", _store_all)


def _after(earlier: VisitorView | None, later: VisitorView) -> VisitorView:
    """Two views of one visitor as one, since a statement changes a row once. Both callers get the final session."""
    if earlier is None:
        return later
    if later.keeps_nick:
        later = replace(later, nick=earlier.nick, keeps_nick=earlier.keeps_nick)
    if later.keeps_status:
        later = replace(later, status=earlier.status, keeps_status=earlier.keeps_status)
    return later


async def _upsert(
    database: Database, connection: AsyncConnection, views: Sequence[VisitorView], only_over: int | None = None
) -> dict[str, ShowVisitor]:
    """Store the sessions of those who may be shown; all `views` keep the same columns. Returns what was stored."""
    like = views[0]
    statement = _upsert_statement(database, like.keeps_nick, like.keeps_status, only_over is not None)
    values: dict[str, object] = {"rows": {one.username: _values(one) for one in views}}
    if only_over is not None:
        values["over"] = only_over
    rows = await connection.execute(statement, values)
    incarnations = {one.username: one.incarnation for one in views}
    return {
        row.username: ShowVisitor(**row._mapping, incarnation=incarnations[row.username])  # noqa: SLF001 - its public name
        for row in rows
    }


def _values(view: VisitorView) -> list[object]:
    return [view.nick, view.status, view.online_until, view.password_digest]


@functools.lru_cache(maxsize=16)
def _upsert_statement(database: Database, keeps_nick: bool, keeps_status: bool, over: bool) -> Any:
    columns = ["username", "instance_name", "nick", "status", "online_until", "version"]
    new = (
        select(Account.username, Account.instance_name, value(0), value(1), cast(value(2), Float), literal(1))
        .join(ROWS, Account.username == ROWS.c.key)
        .join(Tenant, Tenant.instance_name == Account.instance_name)
        .where(
            Account.state == AccountState.ACTIVE,
            or_(value(3).is_(None), Account.password_digest == value(3)),
            admission.OPEN,
            or_(Account.kind != AccountKind.VISITOR, Tenant.visitor_tracking),
        )
        .order_by(Account.username)
        # account and tenant stay as they are until this is committed
        .with_for_update(read=True, of=[Account, Tenant])
    )
    insert = database.insert(VisitorSession).from_select(columns, new)
    changed = {"online_until": insert.excluded.online_until, "version": VisitorSession.version + 1}
    if not keeps_nick:
        changed["nick"] = insert.excluded.nick
    if not keeps_status:
        changed["status"] = insert.excluded.status
    upsert = insert.on_conflict_do_update(
        index_elements=["username"],
        set_=changed,
        where=VisitorSession.version == bindparam("over", type_=Integer) if over else None,
    )
    return upsert.returning(*(VisitorSession.__table__.c[name] for name in columns))


async def _note_activity(services: Services, username: str) -> None:
    if services.cache.is_to_be_touched(username):
        await _NOTE_ACTIVITY.do(services, username)


async def _touch_all(services: Services, usernames: Sequence[str]) -> list[None]:
    """Note that these accounts were active, in the order of their names."""
    names = set(usernames)
    async with services.database.write() as session:
        held = select(Account.username).where(Account.username.in_(names)).order_by(Account.username)
        await session.execute(held.with_for_update(key_share=True))
        await session.execute(
            update(Account)
            .where(Account.username.in_(names), Account.state == AccountState.ACTIVE)
            .values(last_active_at=services.clock())
            .execution_options(synchronize_session=False)
        )
    return [None] * len(usernames)


_NOTE_ACTIVITY = Batched("note_activity", _touch_all)
