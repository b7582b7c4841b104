"""Stores that visitors are online: many at once, or one by one where a tenant may have only so many.

Rows are locked in the order of tenants, accounts, sessions, and of their names, as everybody does: so two who do it
never wait for each other in a ring.
"""

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, cast, func, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants import admission
from tenants.commands import ShowVisitor
from tenants.database import Database
from tenants.errors import DomainError, QuotaExceededError, UnavailableError
from tenants.json_rows import ROWS, value
from tenants.models import Account, AccountState, Tenant, VisitorSession
from tenants.naming import AccountName, Naming
from tenants.services import Services

TOUCH_SECONDS = 60.0
"""How late an account's last activity may be: accounts expire after hours."""
_CROWD_SECONDS = 30.0
"""When a visitor who was one too many may try again: somebody will have left."""


@dataclass(frozen=True, slots=True)
class Showing:
    """A visitor to be shown as online until `online_until` (Unix seconds).

    Attributes:
        nick: the name to be shown. With `keeps_nick` only if there is no session yet, which else keeps its own.
        status: the same, with `keeps_status`.
        password_digest: of an account that is known from memory, and must still have it.
    """

    name: AccountName
    username: str
    nick: str
    status: str
    online_until: float
    keeps_nick: bool = False
    keeps_status: bool = False
    password_digest: str | None = None


@dataclass(frozen=True, slots=True)
class _Held:
    """An active account."""

    password_digest: str | None
    last_active_at: float


async def store(services: Services, showing: Showing) -> ShowVisitor:
    """Store the session, at once with those of others.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it was shut just now, or lost the feature.
        UnavailableError: the account is gone, or being removed just now.
    """
    return await services.together(_store_all, showing)


async def store_counted(services: Services, tenant: Tenant, showing: Showing) -> ShowVisitor:
    """`store`, for a tenant that may have only so many visitors online: further ones come one by one, to be counted.

    Raises:
        QuotaExceededError: it would be one more than the tenant may have.
    """
    now = services.clock()
    async with services.database.write() as session:
        further = not await is_online(session, showing.username, now)
        # the door may have been closed since it was asked
        await admission.hold(session, showing.name.instance, showing.name.kind, alone=further)
        if further:
            await refuse_crowd(session, services.naming, tenant, now)
        accounts = await _hold_accounts(session, [showing.username])
        outcome = (await _keep(services, session, [showing], accounts))[showing.username]
        if isinstance(outcome, Exception):
            raise outcome
    await _touch(services, accounts)
    return outcome


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


async def _store_all(services: Services, showings: Sequence[Showing]) -> list[ShowVisitor | Exception]:
    """Store sessions that do not count, of any tenants, in one transaction."""
    latest: dict[str, Showing] = {}
    for one in showings:
        latest[one.username] = _after(latest.get(one.username), one)
    outcomes: dict[str, ShowVisitor | Exception] = {}
    async with services.database.write() as session:
        tenants, _ = await admission.hold_many(session, {one.name.instance for one in showings})
        allowed: list[Showing] = []
        for username in sorted(latest):
            name = latest[username].name
            try:
                admission.check(tenants.get(name.instance), name.instance, name.kind)
                allowed.append(latest[username])
            except DomainError as error:
                outcomes[username] = error
        accounts = await _hold_accounts(session, [one.username for one in allowed])
        outcomes |= await _keep(services, session, allowed, accounts)
    await _touch(services, accounts)
    return [outcomes[one.username] for one in showings]


def _after(earlier: Showing | None, later: Showing) -> Showing:
    """The two as one: a row is changed once by a statement, and both are told what is true at the end."""
    if earlier is None:
        return later
    if later.keeps_nick:
        later = replace(later, nick=earlier.nick, keeps_nick=earlier.keeps_nick)
    if later.keeps_status:
        later = replace(later, status=earlier.status, keeps_status=earlier.keeps_status)
    return later


async def _keep(
    services: Services, session: AsyncSession, showings: Sequence[Showing], accounts: Mapping[str, _Held]
) -> dict[str, ShowVisitor | Exception]:
    """Store the sessions of those whose accounts are there."""
    outcomes: dict[str, ShowVisitor | Exception] = {}
    alike: defaultdict[tuple[bool, bool], list[Showing]] = defaultdict(list)
    for one in showings:
        account = accounts.get(one.username)
        if account is None or one.password_digest not in {None, account.password_digest}:
            gone = f"account '{one.username}' is being removed just now; it can be made anew in a moment"
            outcomes[one.username] = UnavailableError(gone)
        else:
            alike[one.keeps_nick, one.keeps_status].append(one)
    connection = await session.connection()
    for (keeps_nick, keeps_status), group in alike.items():
        statement = _upsert(services.database, keeps_nick=keeps_nick, keeps_status=keeps_status)
        rows = await connection.execute(statement, {"rows": {one.username: _values(one) for one in group}})
        outcomes |= {row.username: ShowVisitor(**row._mapping) for row in rows}  # noqa: SLF001 - its public name
    return outcomes


async def _hold_accounts(session: AsyncSession, usernames: Sequence[str]) -> dict[str, _Held]:
    """The accounts that are active; they stay so until the transaction ends."""
    rows = await session.execute(
        select(Account.username, Account.password_digest, Account.last_active_at)
        .where(Account.username.in_(usernames), Account.state == AccountState.ACTIVE)
        .order_by(Account.username)
        .with_for_update(read=True)
    )
    return {row.username: _Held(row.password_digest, row.last_active_at) for row in rows}


@functools.lru_cache(maxsize=16)
def _upsert(database: Database, *, keeps_nick: bool, keeps_status: bool) -> Any:
    new = (
        select(ROWS.c.key, value(0), value(1), value(2), cast(value(3), Float), literal(1))
        # SQLite would take what follows for a condition of a join
        .where(true())
        .order_by(ROWS.c.key)
    )
    columns = ["username", "instance_name", "nick", "status", "online_until", "version"]
    insert = database.insert(VisitorSession).from_select(columns, new)
    changed = {"online_until": insert.excluded.online_until, "version": VisitorSession.version + 1}
    if not keeps_nick:
        changed["nick"] = insert.excluded.nick
    if not keeps_status:
        changed["status"] = insert.excluded.status
    upsert = insert.on_conflict_do_update(index_elements=["username"], set_=changed)
    return upsert.returning(*(VisitorSession.__table__.c[name] for name in columns))


def _values(showing: Showing) -> list[object]:
    return [showing.name.instance, showing.nick, showing.status, showing.online_until]


async def _touch(services: Services, accounts: Mapping[str, _Held]) -> None:
    """Note that these were active. Alone, since who holds accounts with others must not wait for those to let go."""
    now = services.clock()
    idle = [name for name, account in accounts.items() if account.last_active_at < now - TOUCH_SECONDS]
    if idle:
        async with services.database.write() as session:
            held = select(Account.username).where(Account.username.in_(idle)).order_by(Account.username)
            await session.execute(held.with_for_update(key_share=True))
            await session.execute(
                update(Account)
                .where(Account.username.in_(idle), Account.state == AccountState.ACTIVE)
                .values(last_active_at=now)
                .execution_options(synchronize_session=False)
            )
