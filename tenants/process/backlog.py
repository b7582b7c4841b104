"""How much may wait for a tenant's server: messages must not fill the database while the server takes none.

Messages are counted in the database, and their bytes; what this process has stored since is added. So with several pool
processes a tenant may have a little more than its bound: what the others stored within `_FRESH_SECONDS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.clock import Clock
from tenants.store.database import Database
from tenants.store.models import CallbackMessage, MessageState, Tenant

MAX_WAITING = 10_000
"""Messages of a tenant for which nothing else was set."""
BYTES_EACH = 8 * 1024
"""How long they may be on average."""
_FRESH_SECONDS = 2.0
_TENANTS = 10_000
"""Whose counts are remembered; beyond it all are counted anew."""


@dataclass(slots=True)
class _Count:
    messages: int
    bytes: int
    counted_at: float


class Backlog:
    """What waits, as this process knows it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counts: dict[str, _Count] = {}

    async def look(self, session: AsyncSession, tenants: Mapping[str, Tenant]) -> None:
        """Count what waits of those tenants, unless that was just done."""
        now = self._clock()
        stale = [name for name in tenants if not self._is_fresh(name, now)]
        if not stale:
            return
        if len(self._counts) >= _TENANTS:
            self._counts.clear()
        # bytes where the database knows them without reading the text; SQLite has but the number of characters
        length = func.length if self._database.is_sqlite else func.octet_length
        found = await session.execute(
            select(
                CallbackMessage.instance_name, func.count(), func.coalesce(func.sum(length(CallbackMessage.body)), 0)
            )
            .where(CallbackMessage.instance_name.in_(stale), CallbackMessage.state == MessageState.PENDING)
            .group_by(CallbackMessage.instance_name)
        )
        counts = {name: _Count(messages, size, now) for name, messages, size in found}
        self._counts |= {name: counts.get(name) or _Count(0, 0, now) for name in stale}

    def add(self, tenant: Tenant, body: str | None) -> str | None:
        """Count a message that is to be stored. Returns why it may not be stored; None if it may."""
        count = self._counts[tenant.instance_name]
        size = len((body or "").encode())
        most = tenant.max_waiting_messages or MAX_WAITING
        if count.messages >= most or count.bytes + size > most * BYTES_EACH:
            return f"{count.messages} messages wait for the server of '{tenant.instance_name}', as many as may"
        count.messages += 1
        count.bytes += size
        return None

    def _is_fresh(self, instance_name: str, now: float) -> bool:
        count = self._counts.get(instance_name)
        # an age below zero: the clock was set back
        return count is not None and 0 <= now - count.counted_at < _FRESH_SECONDS
