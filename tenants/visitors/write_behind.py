"""Stores how long visitors stay online whose page views had no news, and reads tenants and tokens in use again.

The pool is not told: it looks into the database before it says that a visitor left (`xmpp_pool.session_ends`).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import chain

import structlog
from sqlalchemy import Float, Integer, case, cast, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.access import tokens
from tenants.core.chunks import chunks
from tenants.core.errors import DomainError
from tenants.lifecycle import admission
from tenants.process.cache import TOUCH_SECONDS, Cache, KnownVisitor
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY
from tenants.store.json_rows import ROWS, value
from tenants.store.models import Account, AccountState, VisitorSession
from tenants.visitors import presence

log = structlog.get_logger(__name__)

PAUSE = 0.25
"""Seconds between two rounds: what a crash may take from a visitor's window."""
_AGE = 1.0
"""Seconds after which what is known of a tenant or a token is read again."""
_AT_ONCE = 1000
"""Visitors in one transaction."""
_READ_AT_ONCE = 500
"""Tenants or tokens in one statement."""
_AGAIN_AT_ONCE = 10
"""Page views that are carried out the slow way at once."""
_CLOSING_SECONDS = 5.0


@asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """Store what comes in, again and again, while the block runs, and once more at its end."""
    work = asyncio.create_task(_run(services), name="renewal")
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                await renew(services)
        except (TimeoutError, *DATABASE_AWAY) as error:
            log.warning("visitors' windows not renewed", error=type(error).__name__)


async def _run(services: Services) -> None:
    while True:
        await asyncio.sleep(PAUSE)
        try:
            await refresh(services)
            await renew(services)
        except DATABASE_AWAY as error:
            log.warning("visitors' windows not renewed yet", error=type(error).__name__)


async def refresh(services: Services) -> None:
    """Read the tenants and tokens again that are in use."""
    known = services.cache
    for names in chunks(known.tenants.used(_AGE), _READ_AT_ONCE):
        await admission.read_again(services, names)
    for token_ids in chunks(known.tokens.used(_AGE), _READ_AT_ONCE):
        await tokens.read_again(services, token_ids)


async def renew(services: Services) -> None:
    """Store the longer windows; carry out the slow way what cannot be stored as it is known.

    Raises:
        DATABASE_AWAY: not stored; the next call tries again.
    """
    left = chunks(services.cache.take_renewed(), _AT_ONCE)
    for chunk in left:
        try:
            again = await _store(services, chunk)
        except DATABASE_AWAY:
            services.cache.give_back(chain(chunk, *left))
            raise
        for some in chunks(again, _AGAIN_AT_ONCE):
            await asyncio.gather(*(_show_again(services, *one) for one in some))


async def _store(
    services: Services, renewed: Sequence[KnownVisitor]
) -> list[tuple[KnownVisitor, VisitorSession | None]]:
    """Store the windows of visitors who are as this process knows them.

    Returns those of the others who are still to be shown, each with the session that is stored (None: there is none).
    """
    now, ends = services.clock(), {one.username: one.seen_until for one in renewed}
    async with services.database.write() as session:
        await _touch(session, renewed, now)
        stored = await _extend(session, renewed, now)
        others = [one for one in renewed if one.username not in stored]
        present = await _present(session, others) if others else {}
    for one in renewed:
        if one.username in stored:
            one.online_until = max(one.online_until, ends[one.username])
    gone = [one for one in others if one.username not in present]
    for one in gone:
        services.cache.forget_visitor(one.username)
    there = [(one, present[one.username]) for one in others if one.username in present]
    return [
        (one, row)
        for one, row in there
        if row is None or row.online_until <= now or not _is_told(services.cache, one, row, ends[one.username])
    ]


def _is_told(cache: Cache, visitor: KnownVisitor, row: VisitorSession, end: float) -> bool:
    """Whether the pool knows what is stored, as far as can be said; what is known here is put right then.

    Whoever stored another status has told the pool, or was refused and will say it again.
    """
    if (row.nick, row.status, row.version) == (visitor.nick, visitor.status, visitor.version + 1):
        # somebody stored the same view once more: the pool knows that one, even if it was not told of ours
        visitor.version = row.version
        cache.give_back([visitor])
        return True
    if row.online_until >= end:
        cache.forget_visitor(visitor.username)
        return True
    return False


async def _extend(session: AsyncSession, renewed: Sequence[KnownVisitor], now: float) -> set[str]:
    """Prolong the sessions that are of the known version, of accounts with the known password. Returns whose."""
    # locked in the order of their names: two processes that renew the same ones must not wait for each other
    wanted = (
        select(VisitorSession.username, cast(value(0), Float).label("end"))
        .join(ROWS, VisitorSession.username == ROWS.c.key)
        .join(Account, Account.username == VisitorSession.username)
        .where(
            VisitorSession.version == cast(value(1), Integer),
            # once a session is over, the pool may already be telling operators that the visitor left
            VisitorSession.online_until > now,
            Account.password_digest == value(2),
            Account.state == AccountState.ACTIVE,
        )
        .order_by(VisitorSession.username)
        .with_for_update(of=VisitorSession)
        .subquery()
    )
    present = VisitorSession.online_until
    prolonged = await session.scalars(
        update(VisitorSession)
        .where(VisitorSession.username == wanted.c.username)
        .values(online_until=case((present < wanted.c.end, wanted.c.end), else_=present))
        .returning(VisitorSession.username)
        .execution_options(synchronize_session=False),
        {"rows": {one.username: [one.seen_until, one.version, one.password_digest] for one in renewed}},
    )
    return set(prolonged)


async def _touch(session: AsyncSession, renewed: Sequence[KnownVisitor], now: float) -> None:
    """These accounts were active, if they have the known passwords."""
    idle = (
        select(Account.username)
        .join(ROWS, Account.username == ROWS.c.key)
        .where(
            Account.last_active_at < now - TOUCH_SECONDS,
            Account.password_digest == value(0),
            Account.state == AccountState.ACTIVE,
        )
        .order_by(Account.username)
        .with_for_update(of=Account)
        .subquery()
    )
    await session.execute(
        update(Account)
        .where(Account.username == idle.c.username)
        .values(last_active_at=now)
        .execution_options(synchronize_session=False),
        {"rows": {one.username: [one.password_digest] for one in renewed}},
    )


async def _present(session: AsyncSession, unlike: Sequence[KnownVisitor]) -> dict[str, VisitorSession | None]:
    """Of those whose account is there, with the known password: the session."""
    rows = await session.execute(
        select(Account.username, VisitorSession)
        .join(ROWS, Account.username == ROWS.c.key)
        .join(VisitorSession, VisitorSession.username == Account.username, isouter=True)
        .where(Account.password_digest == value(0), Account.state == AccountState.ACTIVE),
        {"rows": {one.username: [one.password_digest] for one in unlike}},
    )
    return {username: row for username, row in rows}  # noqa: C416 - rows are no tuples to mypy


async def _show_again(services: Services, visitor: KnownVisitor, row: VisitorSession | None) -> None:
    """Show a visitor whose stored session is not the one that this process knew; `row` is the stored one."""
    name = services.naming.parse_username(visitor.username)
    try:
        tenant = await admission.get(services, name.instance, name.kind)
        if row is not None and visitor.viewed_until < row.online_until:
            # it wrote since; where it is, somebody else knows better
            await presence.show(services, tenant, name, None, None)
        elif not await presence.show_again(services, tenant, visitor, row.version if row else 0):
            # there is news meanwhile
            services.cache.give_back([visitor])
    except DomainError as error:
        # nobody waits for the answer any more; the next page view is told
        log.info("page view not carried out", instance_name=name.instance, error=str(error))
    except DATABASE_AWAY as error:
        log.warning("page view not carried out", instance_name=name.instance, error=type(error).__name__)
