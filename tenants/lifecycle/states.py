"""The states of a tenant and the transitions between them: each a compare-and-swap with a row in the audit log.

pending --> provisioning --> active --> suspending --> suspended --> resuming --> active
|             |                                                                  |
'--> failed <-'   ... and from each of them: destroying --> destroyed --> pending
"""

from collections.abc import Mapping

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.errors import ConflictError
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.store.database import rows_changed
from tenants.store.models import Tenant, TenantState

_S = TenantState
_BEFORE: Mapping[TenantState, frozenset[TenantState]] = {
    _S.PENDING: frozenset({_S.DESTROYED}),
    _S.PROVISIONING: frozenset({_S.PENDING, _S.FAILED}),
    _S.ACTIVE: frozenset({_S.PROVISIONING, _S.RESUMING}),
    _S.FAILED: frozenset({_S.PENDING, _S.PROVISIONING}),
    _S.SUSPENDING: frozenset({_S.ACTIVE, _S.RESUMING}),
    _S.SUSPENDED: frozenset({_S.SUSPENDING}),
    _S.RESUMING: frozenset({_S.SUSPENDED, _S.SUSPENDING}),
    _S.DESTROYING: frozenset(_S) - {_S.DESTROYED, _S.DESTROYING},
    _S.DESTROYED: frozenset({_S.DESTROYING}),
}
"""The states that each one may follow."""
LIVE = frozenset(_S) - {_S.DESTROYING, _S.DESTROYED}
"""The states of a tenant whose end has not begun."""


async def transition(session: AsyncSession, now: float, instance_name: str, new: TenantState, cause: Cause) -> None:
    """Bring the tenant into the state; without effect when it is in it already, as after a step that ran twice.

    Raises:
        ConflictError: there is no such tenant, or the state does not follow its present one.
    """
    tenant = await session.get(Tenant, instance_name, with_for_update=True, populate_existing=True)
    if tenant is not None and tenant.state is new:
        return
    old = tenant.state if tenant is not None else None
    if old not in _BEFORE[new]:
        raise ConflictError(f"tenant '{instance_name}' is {old or 'unknown'} and cannot become {new}")
    changed = await session.execute(
        update(Tenant)
        .where(Tenant.instance_name == instance_name, Tenant.state == old)
        .values(state=new, updated_at=now)
    )
    if not rows_changed(changed):
        raise ConflictError(f"tenant '{instance_name}' is not {old} any more")
    audit.record(session, now, cause, "state", instance_name=instance_name, old_state=old, new_state=new)
