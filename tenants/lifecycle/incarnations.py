"""Incarnations: a name may be given again, and the tenant that bears it then is another one.

Here an incarnation begins, and here it ends: with all rows that belong to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from config.settings import Settings
from tenants.core.chunks import chunks
from tenants.lifecycle import states, tenant_settings
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import (
    Account,
    CallbackMessage,
    Chat,
    ChatLine,
    Circuit,
    Conversation,
    Drift,
    OneTimeLink,
    Operation,
    Operator,
    OperatorPresence,
    ReturnedMessage,
    Room,
    Tenant,
    TenantState,
    Token,
    VisitorSession,
    new_incarnation,
)

OF_A_TENANT = (
    VisitorSession,
    OperatorPresence,
    ReturnedMessage,
    CallbackMessage,
    Conversation,
    Circuit,
    Drift,
    Token,
    OneTimeLink,
    ChatLine,
    Chat,
    Operator,
    Account,
    Room,
)
"""Rows that are removed with their tenant; those that refer to others stand before them."""
NAME_RESTS = 5.0
"""Seconds from the end of a tenant until another of its name is provisioned. No process remembers one for so long."""
_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""


async def lock(services: Services, session: AsyncSession, instance_name: str) -> tuple[Tenant, float]:
    """The row of that name, locked, and the time (Unix seconds) from which a new tenant of the name may be provisioned.

    A name that no tenant ever bore gets a row, as if its tenant were gone: so several may ask for the name at once.
    """
    now = services.clock()
    made = await session.scalar(
        services.database.insert(Tenant)
        .values(
            instance_name=instance_name,
            state=TenantState.DESTROYED,
            created_at=now,
            updated_at=now,
            **_clean(services.settings),
        )
        .on_conflict_do_nothing()
        .returning(Tenant.instance_name)
    )
    tenant = await session.get_one(Tenant, instance_name, with_for_update=True)
    # it was last changed when it was destroyed
    return tenant, now if made is not None else tenant.updated_at + NAME_RESTS


async def begin(services: Services, session: AsyncSession, tenant: Tenant, cause: Cause) -> None:
    """Let the tenant of a free name begin with nothing of an earlier one. Its row is locked."""
    now = services.clock()
    await states.transition(session, now, tenant.instance_name, TenantState.PENDING, cause)
    # once more: something may have come after the earlier tenant was forgotten
    await _remove_rows(session, tenant.instance_name)
    await session.refresh(tenant)
    tenant.incarnation = new_incarnation()
    tenant.created_at = now
    # the key that the earlier tenant had for signatures is not this one's
    tenant.signing_version += 1
    for name, value in _clean(services.settings).items():
        setattr(tenant, name, value)


async def forget(services: Services, session: AsyncSession, instance_name: str, cause: Cause) -> None:
    """Remove all that the registry holds of a tenant, except the audit log and the operations.

    The name, the host and the digest of the key stay too: the tenant's LHC goes on to remove accounts, and must be told
    that they are gone.
    """
    await _remove_rows(session, instance_name)
    await session.execute(update(Operation).where(Operation.instance_name == instance_name).values(input={}))
    values = _clean(services.settings)
    del values["key_digest"], values["xmpp_host"]
    await session.execute(update(Tenant).where(Tenant.instance_name == instance_name).values(**values))
    await states.transition(session, services.clock(), instance_name, TenantState.DESTROYED, cause)


async def _remove_rows(session: AsyncSession, instance_name: str) -> None:
    for model in OF_A_TENANT:
        await session.execute(delete(model).where(model.instance_name == instance_name))


def _clean(settings: Settings) -> dict[str, Any]:
    """The columns of a tenant that has nothing of an earlier one of its name."""
    return {
        "key_digest": None,
        "previous_key_digest": None,
        "previous_key_until": None,
        "previous_signing_until": None,
        **tenant_settings.defaults(settings),
    }


@dataclass(frozen=True, slots=True)
class Incarnation:
    """Which tenant bears a name, and where it lives."""

    id: str
    host: str


async def incarnations_of(database: Database, instance_names: Sequence[str]) -> dict[str, Incarnation]:
    """The incarnations by instance name; without those names that no tenant bears (any more).

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    found: dict[str, Incarnation] = {}
    for some in chunks(instance_names, _NAMES_AT_ONCE):
        present = select(Tenant.instance_name, Tenant.incarnation, Tenant.xmpp_host).where(
            Tenant.instance_name.in_(some), Tenant.state != TenantState.DESTROYED
        )
        async with database.read() as session:
            found.update((name, Incarnation(of, host)) for name, of, host in await session.execute(present))
    return found
