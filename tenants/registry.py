"""The tenants themselves: what the control panel wants of each, and the transitions between their states."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants import operations, rosters
from tenants.database import rows_changed
from tenants.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.models import (
    Account,
    CallbackMessage,
    Circuit,
    Conversation,
    Operation,
    OperationKind,
    OperatorPresence,
    ReturnedMessage,
    Tenant,
    TenantState,
    VisitorSession,
)
from tenants.naming import STANDALONE_INSTANCE, AccountKind, RosterKind, check_instance
from tenants.secrets import digest, matches, new_key
from tenants.services import Services

_LIVE = (TenantState.PENDING, TenantState.PROVISIONING, TenantState.ACTIVE, TenantState.FAILED)
_OF_A_TENANT = (VisitorSession, OperatorPresence, ReturnedMessage, CallbackMessage, Conversation, Circuit, Account)
"""What goes with its tenant; messages before the conversations that they refer to."""


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """What the panel may say of a tenant; None leaves a value as it is, or at its default."""

    callback_url: str | None = None
    online_seconds: float | None = None
    idle_hours: float | None = None
    secret_key: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """A tenant was made, or found. `secret_key` is there only when one was made or given just now."""

    tenant: Tenant
    operation: Operation | None
    secret_key: str | None


def check_key(services: Services, instance_name: str) -> str:
    """The registry key of a tenant: an instance name, or the one of a standalone system.

    Raises:
        InvalidInputError: naming the rule.
    """
    if services.settings.hosting:
        return check_instance(instance_name)
    if instance_name != STANDALONE_INSTANCE:
        raise InvalidInputError("instance_name", f"a standalone system has one instance, '{STANDALONE_INSTANCE}'")
    return instance_name


async def find(services: Services, instance_name: str) -> Tenant | None:
    """The tenant, unless there is none or it was destroyed."""
    async with services.database.read() as session:
        return await find_in(session, instance_name)


async def find_in(session: AsyncSession, instance_name: str) -> Tenant | None:
    """`find`, in a session that reads more."""
    tenant = await session.get(Tenant, instance_name)
    return tenant if tenant is not None and tenant.state is not TenantState.DESTROYED else None


async def opens(services: Services, instance_name: str, key: str) -> bool:
    """Whether this is the tenant's own key; compared in constant time.

    The key of a destroyed tenant still opens: its LHC goes on to remove accounts, and must be told that they are gone.
    """
    async with services.database.read() as session:
        tenant = await session.get(Tenant, instance_name)
    return tenant is not None and matches(instance_name, key, tenant.key_digest)


async def get(services: Services, instance_name: str) -> Tenant:
    """The tenant.

    Raises:
        NotFoundError: there is none, or it was destroyed.
    """
    tenant = await find(services, instance_name)
    if tenant is None:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return tenant


async def get_active(services: Services, instance_name: str) -> Tenant:
    """The tenant, ready for traffic.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not active.
    """
    tenant = await get(services, instance_name)
    if tenant.state is not TenantState.ACTIVE:
        raise ConflictError(f"tenant '{instance_name}' is {tenant.state}, not active")
    return tenant


async def put(
    services: Services, instance_name: str, spec: TenantSpec, *, requested_by: str, own_key: bool = True
) -> Created:
    """Create the tenant and start its provisioning, or change what it is to be. May be repeated at will.

    `own_key`: make a key for a new tenant that brings none.

    Raises:
        InvalidInputError: the name breaks a rule.
        ConflictError: it is being destroyed.
    """
    check_key(services, instance_name)
    now = services.clock()
    async with services.database.write() as session:
        # A tenant that never was begins as one that is gone: so many may ask at once, and all find the same row.
        await session.execute(
            services.database.insert(Tenant)
            .values(
                instance_name=instance_name,
                state=TenantState.DESTROYED,
                online_seconds=services.settings.visitor_online_seconds,
                idle_hours=services.settings.account_idle_hours,
                created_at=now,
                updated_at=now,
            )
            .on_conflict_do_nothing()
        )
        tenant = await session.get_one(Tenant, instance_name, with_for_update=True)
        ending = await operations.unfinished(session, instance_name, OperationKind.DESTROY)
        if tenant.state is TenantState.DESTROYING or ending is not None:
            raise ConflictError(f"tenant '{instance_name}' is being destroyed; create it again when that is done")
        new = tenant.state is TenantState.DESTROYED
        secret_key = spec.secret_key or (new_key() if new and own_key else None)
        if new:
            tenant.state = TenantState.PENDING
            tenant.created_at = now
            tenant.key_digest = None
            tenant.callback_url = None
            tenant.online_seconds = services.settings.visitor_online_seconds
            tenant.idle_hours = services.settings.account_idle_hours
        if secret_key:
            tenant.key_digest = digest(instance_name, secret_key)
        tenant.callback_url = spec.callback_url or tenant.callback_url
        tenant.online_seconds = spec.online_seconds or tenant.online_seconds
        tenant.idle_hours = spec.idle_hours or tenant.idle_hours
        tenant.updated_at = now
        await session.flush()
        operation = None
        if tenant.state is not TenantState.ACTIVE:
            operation = await operations.open_operation(
                services, session, instance_name, OperationKind.PROVISION, requested_by=requested_by
            )
    if operation is not None:
        await operations.wake(services, operation)
    return Created(tenant, operation, secret_key)


async def destroy(services: Services, instance_name: str, *, requested_by: str) -> Operation:
    """Start the tenant's end; from now on it takes no traffic. A provisioning under way is finished first.

    Raises:
        NotFoundError: there is no such tenant.
    """
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update=True)
        if tenant is None or tenant.state is TenantState.DESTROYED:
            raise NotFoundError(f"there is no tenant '{instance_name}'")
        if tenant.state in {TenantState.ACTIVE, TenantState.FAILED}:
            tenant.state = TenantState.DESTROYING
        operation = await operations.open_operation(
            services, session, instance_name, OperationKind.DESTROY, requested_by=requested_by
        )
    await operations.wake(services, operation)
    return operation


async def set_state(services: Services, instance_name: str, old: tuple[TenantState, ...], new: TenantState) -> None:
    """Compare-and-swap of a tenant's state; one that is in the new state already is a success.

    Raises:
        ConflictError: it is in neither.
    """
    async with services.database.write() as session:
        changed = await session.execute(
            update(Tenant)
            .where(Tenant.instance_name == instance_name, Tenant.state.in_((*old, new)))
            .values(state=new, updated_at=services.clock())
        )
    if not rows_changed(changed):
        raise ConflictError(f"tenant '{instance_name}' cannot become {new}")


async def begin_destroying(services: Services, instance_name: str) -> None:
    """The transition that closes the door for traffic.

    Raises:
        ConflictError: there is no such tenant any more.
    """
    await set_state(services, instance_name, _LIVE, TenantState.DESTROYING)


async def forget(services: Services, instance_name: str) -> None:
    """Remove all that the registry holds of a destroyed tenant, except the operations that record its life."""
    async with services.database.write() as session:
        for model in _OF_A_TENANT:
            await session.execute(delete(model).where(model.instance_name == instance_name))
        await session.execute(
            update(Tenant)
            .where(Tenant.instance_name == instance_name, Tenant.state == TenantState.DESTROYING)
            .values(state=TenantState.DESTROYED, callback_url=None, updated_at=services.clock())
        )


async def count_accounts(session: AsyncSession, instance_name: str) -> dict[AccountKind, int]:
    """How many accounts of each kind the tenant has."""
    rows = await session.execute(
        select(Account.kind, func.count()).where(Account.instance_name == instance_name).group_by(Account.kind)
    )
    counts = dict.fromkeys(AccountKind, 0)
    counts.update(rows.tuples().all())
    return counts


def groups(services: Services, instance_name: str) -> list[str]:
    """The names of the tenant's two shared rosters."""
    return [rosters.group_of(services.naming, instance_name, kind) for kind in RosterKind]
