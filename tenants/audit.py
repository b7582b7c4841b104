"""The audit log: who did what to which tenant, when and why. Rows are only ever added."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.models import AuditEntry, TenantState
from tenants.services import Services

REASON_LIMIT = 500
"""Characters of a reason that are kept."""


def record(
    session: AsyncSession,
    now: float,
    *,
    actor: str,
    action: str,
    instance_name: str | None = None,
    operation_id: str | None = None,
    old_state: TenantState | None = None,
    new_state: TenantState | None = None,
    reason: str | None = None,
) -> None:
    """Add an entry, in the transaction that does what it tells of."""
    session.add(
        AuditEntry(
            at=now,
            actor=actor[:100],
            action=action,
            instance_name=instance_name,
            operation_id=operation_id,
            old_state=old_state,
            new_state=new_state,
            reason=reason[:REASON_LIMIT] if reason else None,
        )
    )


async def note(services: Services, *, actor: str, action: str, instance_name: str, reason: str | None) -> None:
    """Add an entry for what was done in several transactions, after them."""
    async with services.database.write() as session:
        record(session, services.clock(), actor=actor, action=action, instance_name=instance_name, reason=reason)


async def entries(
    services: Services, instance_name: str | None = None, *, before: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """Entries of a tenant, or of all, newest first. `before`: only ids below this one."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if instance_name is not None:
        query = query.where(AuditEntry.instance_name == instance_name)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    async with services.database.read() as session:
        return list(await session.scalars(query))
