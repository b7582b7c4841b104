"""Claims: how one process at a time takes a row of work, without locks that outlive a dead process.

Every transition is a compare-and-swap. A claim has a term; a process that dies loses it when the term ends, and a
process that comes back late finds its token gone and changes nothing.
"""

import secrets
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import rows_changed
from tenants.models import Claimable

CLAIM_TERM = 60.0
"""Seconds until a claim ends by itself. Longer than any single step between two renewals (a callback's timeout)."""


def _key(model: type[Claimable]) -> Any:
    return model.__table__.primary_key.columns[0]  # type: ignore[attr-defined]  # every Claimable is a mapped table


async def claim(session: AsyncSession, model: type[Claimable], key: object, now: float) -> str | None:
    """Take the row when it is due and nobody holds it. Returns the claim's token, or None."""
    token = secrets.token_hex(16)
    taken = await session.execute(
        update(model)
        .where(_key(model) == key, model.due_at <= now, or_(model.claimed_until.is_(None), model.claimed_until <= now))
        .values(claim_token=token, claimed_until=now + CLAIM_TERM)
        .execution_options(synchronize_session=False)
    )
    return token if rows_changed(taken) else None


async def renew(session: AsyncSession, model: type[Claimable], key: object, token: str, now: float) -> bool:
    """Lengthen the claim. False when it was lost: the holder must stop."""
    return await _change(session, model, key, token, claimed_until=now + CLAIM_TERM)


async def release(session: AsyncSession, model: type[Claimable], key: object, token: str, due_at: float | None) -> bool:
    """Give the row back, to be taken again at `due_at` (None: nothing to do). False when the claim was lost."""
    return await _change(session, model, key, token, claim_token=None, claimed_until=None, due_at=due_at)


async def due(session: AsyncSession, model: type[Claimable], now: float, limit: int) -> list[Any]:
    """Keys of rows that are due and free, the longest waiting first."""
    rows = await session.scalars(
        select(_key(model))
        .where(model.due_at <= now, or_(model.claimed_until.is_(None), model.claimed_until <= now))
        .order_by(model.due_at)
        .limit(limit)
    )
    return list(rows)


async def _change(session: AsyncSession, model: type[Claimable], key: object, token: str, **values: object) -> bool:
    changed = await session.execute(
        update(model)
        .where(_key(model) == key, model.claim_token == token)
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    return bool(rows_changed(changed))
