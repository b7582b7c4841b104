"""The audit log: who did what to which tenant, when and why. Rows are only ever added."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import AuditEntry, Operation, Tenant, TenantState

REASON_LIMIT = 500
"""Characters of a reason that are kept."""

_REFUSAL_SECONDS = 60.0
"""How long a refusal of the same kind is not recorded again: a client that is refused must not fill the log."""
_LOOKED_AT = 100
"""How many of the tenant's newest entries are searched for such a refusal; there are fewer kinds of refusals."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Who wants something done, and why."""

    actor: str
    reason: str | None = None
    operation_id: str | None = None

    @classmethod
    def of(cls, operation: Operation) -> "Cause":
        """The cause of what a workflow does: whoever asked for it."""
        return cls(operation.requested_by, operation.reason, operation.id)


def record(
    session: AsyncSession,
    now: float,
    cause: Cause,
    action: str,
    *,
    instance_name: str | None = None,
    operation_id: str | None = None,
    old_state: TenantState | None = None,
    new_state: TenantState | None = None,
    what: str | None = None,
) -> None:
    """Add an entry about a change, in the transaction that makes the change.

    Args:
        session: that transaction.
        now: the time.
        cause: who did it, and why.
        action: what was done; one of few words, which people filter by.
        instance_name: the tenant that it was done to.
        operation_id: the operation, where the cause does not name it.
        old_state: the tenant's state before.
        new_state: the tenant's state after.
        what: what exactly it was done to; stands before the reason.
    """
    reason = ": ".join(part for part in (what, cause.reason) if part)
    session.add(
        AuditEntry(
            at=now,
            actor=cause.actor[:100],
            action=action,
            instance_name=instance_name,
            operation_id=operation_id or cause.operation_id,
            old_state=old_state,
            new_state=new_state,
            reason=reason[:REASON_LIMIT] or None,
        )
    )


async def note(services: Services, cause: Cause, instance_name: str, action: str, what: str) -> None:
    """Add an entry for what was done in several transactions, after them: `what` it was, and why if that was said."""
    async with services.database.write() as session:
        record(session, services.clock(), cause, action, instance_name=instance_name, what=what)


async def record_refusal(
    services: Services, instance_name: str, *, actor: str, action: str, what: str, reason: str
) -> None:
    """Add an entry, unless there is one of less than a minute ago: the tenant was refused `what`, and why."""
    now = services.clock()
    # first without a lock: a client that is refused many times must not hold up the tenant's own traffic
    async with services.database.read() as session:
        if await _is_recorded(session, now, instance_name, action, what):
            return
    async with services.database.write() as session:
        await session.get(Tenant, instance_name, with_for_update=True)  # many may be refused at once
        if not await _is_recorded(session, now, instance_name, action, what):
            record(session, now, Cause(actor, reason), action, instance_name=instance_name, what=what)


async def _is_recorded(session: AsyncSession, now: float, instance_name: str, action: str, what: str) -> bool:
    latest = (
        select(AuditEntry)
        .where(AuditEntry.instance_name == instance_name)
        .order_by(AuditEntry.id.desc())
        .limit(_LOOKED_AT)
    )
    return any(
        entry.action == action and entry.at > now - _REFUSAL_SECONDS and (entry.reason or "").startswith(f"{what}: ")
        for entry in await session.scalars(latest)
    )


async def entries(
    database: Database,
    instance_name: str | None = None,
    *,
    before: int | None = None,
    since: float = 0,
    limit: int = 50,
) -> list[AuditEntry]:
    """Entries of a tenant, or of all, newest first, from the time `since` on. `before`: only ids below this one."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if instance_name is not None:
        query = query.where(AuditEntry.instance_name == instance_name)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    if since:
        query = query.where(AuditEntry.at >= since)
    async with database.read() as session:
        return list(await session.scalars(query))
