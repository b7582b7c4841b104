"""Stores that visitors are online: many at once, or one by one where a tenant may have only so many.

Rows are locked in the order of tenants, accounts, sessions, and of their names, as everybody does: so two who do it
never wait for each other in a ring.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants import admission
from tenants.commands import ShowVisitor
from tenants.errors import DomainError, QuotaExceededError, UnavailableError
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
        outcome = (await _keep(services, session, [showing], now))[showing.username]
        if isinstance(outcome, Exception):
            raise outcome
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
        outcomes |= await _keep(services, session, allowed, services.clock())
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
    services: Services, session: AsyncSession, showings: Sequence[Showing], now: float
) -> dict[str, ShowVisitor | Exception]:
    """Store the sessions of those whose accounts are there, in the order of their names."""
    digests = await _hold_accounts(session, [one.username for one in showings], now)
    outcomes: dict[str, ShowVisitor | Exception] = {}
    alike: defaultdict[tuple[bool, bool], list[Showing]] = defaultdict(list)
    for one in showings:
        if one.username not in digests or one.password_digest not in {None, digests[one.username]}:
            gone = f"account '{one.username}' is being removed just now; it can be made anew in a moment"
            outcomes[one.username] = UnavailableError(gone)
        else:
            alike[one.keeps_nick, one.keeps_status].append(one)
    for (keeps_nick, keeps_status), group in alike.items():
        statement = _upsert(services, keeps_nick=keeps_nick, keeps_status=keeps_status)
        rows = await session.execute(statement, [_values(one) for one in group])
        for username, instance_name, nick, status, online_until, version in rows:
            outcomes[username] = ShowVisitor(
                instance_name=instance_name,
                username=username,
                nick=nick,
                status=status,
                online_until=online_until,
                version=version,
            )
    return outcomes


async def _hold_accounts(session: AsyncSession, usernames: Sequence[str], now: float) -> dict[str, str | None]:
    """The accounts that are active, with the digests of their passwords; they stay so until the transaction ends."""
    rows = await session.execute(
        select(Account.username, Account.password_digest, Account.last_active_at)
        .where(Account.username.in_(usernames), Account.state == AccountState.ACTIVE)
        .order_by(Account.username)
        .with_for_update(key_share=True)
    )
    accounts = rows.all()
    idle = [row.username for row in accounts if row.last_active_at < now - TOUCH_SECONDS]
    if idle:
        await session.execute(
            update(Account)
            .where(Account.username.in_(idle))
            .values(last_active_at=now)
            .execution_options(synchronize_session=False)
        )
    return {row.username: row.password_digest for row in accounts}


def _upsert(services: Services, *, keeps_nick: bool, keeps_status: bool) -> Any:
    insert = services.database.insert(VisitorSession)
    changed = {"online_until": insert.excluded.online_until, "version": VisitorSession.version + 1}
    if not keeps_nick:
        changed["nick"] = insert.excluded.nick
    if not keeps_status:
        changed["status"] = insert.excluded.status
    return insert.on_conflict_do_update(index_elements=["username"], set_=changed).returning(
        VisitorSession.username,
        VisitorSession.instance_name,
        VisitorSession.nick,
        VisitorSession.status,
        VisitorSession.online_until,
        VisitorSession.version,
    )


def _values(showing: Showing) -> dict[str, Any]:
    return {
        "username": showing.username,
        "instance_name": showing.name.instance,
        "nick": showing.nick,
        "status": showing.status,
        "online_until": showing.online_until,
        "version": 1,
    }
