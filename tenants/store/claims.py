"""Claims: how one process at a time takes a row of work, without locks that outlive a dead process.

Every transition is a compare-and-swap. A claim has a term, which its holder's `ClaimRenewer` renews while the work is
under way. A process that dies loses its claims when the term ends, and a process that comes back late finds its tokens
gone and changes nothing.
"""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from sqlalchemy import BindParameter, ColumnElement, and_, cast, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.clock import Clock
from tenants.store.database import DATABASE_AWAY, Database, rows_changed
from tenants.store.json_rows import ROWS, value
from tenants.store.models import Claimable

log = structlog.get_logger(__name__)

CLAIM_TERM = 10.0
"""Seconds until a claim ends by itself: how long the work of a dead process waits for a successor."""
RENEWAL_INTERVAL = 3.0
"""Seconds between renewals: two may fail before the claim is lost."""


def key_of(model: type[Claimable]) -> Any:
    """The model's primary key, which is one column."""
    return model.__table__.primary_key.columns[0]  # type: ignore[attr-defined]  # every Claimable is a mapped table


def free(model: type[Claimable], now: float | BindParameter[float]) -> ColumnElement[bool]:
    """The condition that nobody holds the row."""
    return or_(model.claimed_until.is_(None), model.claimed_until <= now)


def takeable(model: type[Claimable], now: float | BindParameter[float]) -> ColumnElement[bool]:
    """The condition that the row is due, and nobody holds it."""
    return and_(model.due_at <= now, free(model, now))


async def claim(session: AsyncSession, model: type[Claimable], key: object, now: float) -> str | None:
    """Take the row when it is due and nobody holds it. Returns the claim's token, or None."""
    token = secrets.token_hex(16)
    taken = await session.execute(
        update(model)
        .where(key_of(model) == key, takeable(model, now))
        .values(claim_token=token, claimed_until=now + CLAIM_TERM)
        .execution_options(synchronize_session=False)
    )
    return token if rows_changed(taken) else None


async def claim_all(
    session: AsyncSession, model: type[Claimable], keys: Sequence[int | str], now: float
) -> dict[Any, str]:
    """`claim` for many rows. Returns the tokens of those that were taken.

    Rows that somebody is changing at this moment are passed over, since one of them would make all wait. Whoever
    changes such a row wakes a worker afterwards.
    """
    key = key_of(model)
    held = select(key.label("key")).where(key.in_(keys), takeable(model, now))
    ours = held.with_for_update(skip_locked=True).subquery()
    tokens = {one: secrets.token_hex(16) for one in keys}
    taken = await session.scalars(
        update(model)
        .where(key == ours.c.key, key == cast(ROWS.c.key, key.type), takeable(model, now))
        .values(claim_token=value(0), claimed_until=now + CLAIM_TERM)
        .returning(key)
        .execution_options(synchronize_session=False),
        {"rows": {str(one): [token] for one, token in tokens.items()}},
    )
    return {one: tokens[one] for one in taken}


def order_of(model: type[Claimable]) -> list[Any]:
    """The order in which several rows are locked. All transactions use the same one, so that there is no deadlock."""
    return [getattr(model, column) for column in model.LOCK_ORDER] or [key_of(model)]


async def renew(session: AsyncSession, model: type[Claimable], key: object, token: str, now: float) -> bool:
    """Lengthen the claim. False when it was lost: the holder must stop."""
    return await _change(session, model, key, token, claimed_until=now + CLAIM_TERM)


async def release(session: AsyncSession, model: type[Claimable], key: object, token: str, due_at: float | None) -> bool:
    """Give the row back, to be taken again at `due_at` (None: nothing to do). False when the claim was lost."""
    return await _change(session, model, key, token, claim_token=None, claimed_until=None, due_at=due_at)


async def give_back(session: AsyncSession, model: type[Claimable], key: object, token: str) -> bool:
    """Give the row back as it was found: somebody else may take it at once. False when the claim was lost."""
    return await _change(session, model, key, token, claim_token=None, claimed_until=None)


async def due(session: AsyncSession, model: type[Claimable], now: float, limit: int) -> list[Any]:
    """Keys of rows that are due and free, the longest waiting first."""
    rows = await session.scalars(select(key_of(model)).where(takeable(model, now)).order_by(model.due_at).limit(limit))
    return list(rows)


async def _change(session: AsyncSession, model: type[Claimable], key: object, token: str, **values: object) -> bool:
    changed = await session.execute(
        update(model)
        .where(key_of(model) == key, model.claim_token == token)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return bool(rows_changed(changed))


class ClaimRenewer:
    """Renews all claims that this process is working on, together: one transaction per kind of row and interval."""

    def __init__(self, database: Database, clock: Clock, interval: float = RENEWAL_INTERVAL) -> None:
        self._database = database
        self._interval = interval
        self._clock = clock
        self._held: dict[str, tuple[type[Claimable], object]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def keep(self, model: type[Claimable], key: object, token: str) -> Iterator[None]:
        """Renew the claim while the block runs. If it is lost, the block learns that when it records its result."""
        self._held[token] = model, key
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew_while_held())
        try:
            yield
        finally:
            del self._held[token]

    async def close(self) -> None:
        """Renew nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _renew_while_held(self) -> None:
        while self._held:
            await asyncio.sleep(self._interval)
            try:
                await self._renew_all()
            except (*DATABASE_AWAY, OSError, TimeoutError) as error:
                log.warning("claims not renewed", count=len(self._held), error=type(error).__name__)

    async def _renew_all(self) -> None:
        for model in {model for model, _ in self._held.values()}:
            held = {token: key for token, (of, key) in self._held.items() if of is model}
            key = key_of(model)
            # Rows that are being changed now are skipped: to wait for them, with others locked, could deadlock.
            ours = (
                select(key).where(key.in_(held.values()), model.claim_token.in_(held)).with_for_update(skip_locked=True)
            )
            async with self._database.write() as session:
                await session.execute(
                    update(model)
                    .where(key.in_(ours), model.claim_token.in_(held))
                    .values(claimed_until=self._clock() + CLAIM_TERM)
                    .execution_options(synchronize_session=False)
                )
