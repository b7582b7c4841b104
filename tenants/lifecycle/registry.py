"""The registry: which tenants there are, and what the control panel wants each of them to be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from config.settings import Settings
from tenants.core.clock import Clock
from tenants.core.digests import digest, new_key
from tenants.core.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.core.naming import STANDALONE_INSTANCE, AccountKind, AccountName, Naming, RosterKind, check_instance
from tenants.ejabberd import rosters
from tenants.lifecycle import audit, incarnations, operations, served_hosts, tenant_settings
from tenants.lifecycle.audit import Cause
from tenants.outbound import lhc
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import Account, Operation, OperationKind, Tenant, TenantState

TO_PROVISION = (TenantState.PENDING, TenantState.PROVISIONING, TenantState.FAILED)
"""States in which `put` provisions a tenant."""
_MAKING = frozenset({OperationKind.PROVISION, OperationKind.IMPORT})


@dataclass(frozen=True, slots=True)
class TenantSpec:
    """What the panel says of a tenant.

    Attributes:
        changes: columns of the tenant's row and their values; None takes one back to its beginning.
        secret_key: the tenant's own key; or, from who must not send it, `key_digest`: see
            `tenants.core.digests.digest`.
        operator: the first operator's account, as `tenants.lifecycle.tenant_settings.check_first_operator` gives it.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    secret_key: str | None = None
    key_digest: str | None = None
    operator: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A tenant was made, or changed.

    Attributes:
        operation: the workflow that makes it; None when the tenant is made already.
        secret_key: its key, when one was made or given just now.
        new: it was made just now.
    """

    tenant: Tenant
    operation: Operation | None
    secret_key: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class Created(Stored):
    """A tenant was made, or is being made."""

    operation: Operation


def check_key(settings: Settings, instance_name: str) -> str:
    """The registry key of a tenant: an instance name, or the one of a standalone system.

    Raises:
        InvalidInputError: naming the rule.
    """
    if settings.hosting:
        return check_instance(instance_name)
    if instance_name != STANDALONE_INSTANCE:
        raise InvalidInputError("instance_name", f"a standalone system has one instance, '{STANDALONE_INSTANCE}'")
    return instance_name


async def find(database: Database, instance_name: str) -> Tenant | None:
    """The tenant, unless there is none or it was destroyed."""
    async with database.read() as session:
        return await find_in(session, instance_name)


async def find_in(session: AsyncSession, instance_name: str) -> Tenant | None:
    """`find`, in a session that reads more."""
    tenant = await session.get(Tenant, instance_name)
    return tenant if tenant is not None and tenant.state is not TenantState.DESTROYED else None


async def get(services: Services, instance_name: str) -> Tenant:
    """The tenant.

    Raises:
        NotFoundError: there is none, or it was destroyed.
    """
    tenant = await find(services.database, instance_name)
    if tenant is None:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return tenant


async def get_known(database: Database, instance_name: str) -> Tenant:
    """The tenant, also one that is gone: what records its life can still be read.

    Raises:
        NotFoundError: there never was one.
    """
    async with database.read() as session:
        tenant: Tenant | None = await session.get(Tenant, instance_name)
    if tenant is None:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return tenant


async def search(
    database: Database, *, state: TenantState | None = None, part: str | None = None, after: str = "", limit: int = 50
) -> list[Tenant]:
    """Tenants by name, whose name holds `part` and comes behind `after`; without a state those that are not gone."""
    query = select(Tenant).where(Tenant.instance_name > after).order_by(Tenant.instance_name).limit(limit)
    query = query.where(Tenant.state == state if state else Tenant.state != TenantState.DESTROYED)
    if part:
        query = query.where(Tenant.instance_name.contains(part.lower(), autoescape=True))
    async with database.read() as session:
        return list(await session.scalars(query))


async def count_accounts(session: AsyncSession, instance_name: str) -> dict[AccountKind, int]:
    """How many accounts of each kind the tenant has."""
    rows = await session.execute(
        select(Account.kind, func.count()).where(Account.instance_name == instance_name).group_by(Account.kind)
    )
    counts = dict.fromkeys(AccountKind, 0)
    counts.update((kind, count) for kind, count in rows)
    return counts


async def wanted_host(services: Services, spec: TenantSpec) -> str:
    """The XMPP host that a tenant is to be made on.

    Raises:
        InvalidInputError: it is not served.
    """
    host: str = spec.changes.get("xmpp_host") or services.settings.xmpp_host
    async with services.database.write() as session:
        await served_hosts.hold(session, services.settings, host)
    return host


def groups(naming: Naming, instance_name: str) -> list[str]:
    """The names of the tenant's two shared rosters."""
    return [rosters.group_of(naming, instance_name, kind) for kind in RosterKind]


async def put(
    services: Services, instance_name: str, spec: TenantSpec, cause: Cause, *, own_key: bool = True
) -> Stored:
    """Create the tenant and start its provisioning, or change what it is to be. May be repeated at will.

    `own_key`: make a key for a new tenant that brings none.

    Raises:
        InvalidInputError: the name breaks a rule, nothing says where its LHC is, or an operator is given to a tenant
            that has been provisioned.
        ConflictError: it is being destroyed, or is being provisioned with another operator.
    """
    check_key(services.settings, instance_name)
    stored: Stored
    async with services.database.write() as session:
        tenant, free_at = await _lock(services, session, instance_name)
        if tenant.state is TenantState.DESTROYED:
            stored = await _make(services, session, tenant, spec, cause, own_key=own_key, not_before=free_at)
        else:
            stored = await _change(services, session, tenant, spec, cause)
    await _tell(services, stored)
    return stored


async def begin_standalone(services: Services) -> None:
    """The one tenant of a standalone system, unless there was one before: LHC's extension never begins it.

    It has no key of its own: such an LHC calls with the hosting-wide one.
    """
    async with services.database.read() as session:
        known = await session.get(Tenant, STANDALONE_INSTANCE)
    if known is None:
        await put(
            services,
            STANDALONE_INSTANCE,
            TenantSpec(),
            Cause("system", "the system is a standalone one"),
            own_key=False,
        )


async def create(
    services: Services,
    instance_name: str,
    spec: TenantSpec,
    cause: Cause,
    *,
    own_key: bool = True,
    by: OperationKind = OperationKind.PROVISION,
) -> Created:
    """Create the tenant and start the workflow `by`, which makes it.

    `own_key`: make a key for a tenant that brings none.

    Raises:
        InvalidInputError: the name breaks a rule, or nothing says where its LHC is.
        ConflictError: there is a tenant of that name.
    """
    check_key(services.settings, instance_name)
    async with services.database.write() as session:
        tenant, free_at = await _lock(services, session, instance_name)
        if tenant.state is not TenantState.DESTROYED:
            raise ConflictError(f"there is a tenant '{instance_name}' already")
        created = await _make(services, session, tenant, spec, cause, own_key=own_key, by=by, not_before=free_at)
    await _tell(services, created)
    return created


async def _lock(services: Services, session: AsyncSession, instance_name: str) -> tuple[Tenant, float]:
    """`incarnations.lock`, unless the tenant of that name is about to end.

    Raises:
        ConflictError: it is.
    """
    tenant, free_at = await incarnations.lock(services, session, instance_name)
    ending = await operations.unfinished(session, instance_name, OperationKind.DESTROY)
    if tenant.state is TenantState.DESTROYING or ending is not None:
        raise ConflictError(f"tenant '{instance_name}' is being destroyed; create it again when that is done")
    return tenant, free_at


async def _make(
    services: Services,
    session: AsyncSession,
    tenant: Tenant,
    spec: TenantSpec,
    cause: Cause,
    *,
    own_key: bool,
    by: OperationKind = OperationKind.PROVISION,
    not_before: float,
) -> Created:
    if services.settings.hosting and tenant.instance_name == STANDALONE_INSTANCE:
        # the name alone says of which mode a tenant is; one that is there already can be used, changed and destroyed
        raise InvalidInputError(
            "instance_name", f"must not be '{STANDALONE_INSTANCE}': so the one tenant of a standalone system is called"
        )
    secret_key = spec.secret_key or (new_key() if own_key and not spec.key_digest else None)
    await incarnations.begin(services, session, tenant, cause)
    _apply(services.settings, tenant, spec, secret_key, new=True)
    await served_hosts.hold(session, services.settings, tenant.xmpp_host)
    tenant.updated_at = services.clock()
    await session.flush()
    operation = await _open_making(services.clock, session, tenant, spec, cause, by=by, not_before=not_before)
    return Created(tenant, operation, secret_key, new=True)


async def _change(services: Services, session: AsyncSession, tenant: Tenant, spec: TenantSpec, cause: Cause) -> Stored:
    now = services.clock()
    if changed := _apply(services.settings, tenant, spec, spec.secret_key):
        name = tenant.instance_name
        audit.record(session, now, cause, "settings changed", instance_name=name, what=", ".join(changed))
        tenant.updated_at = now
    await session.flush()
    operation = None
    if tenant.state in TO_PROVISION:
        operation = await _open_making(services.clock, session, tenant, spec, cause)
    elif spec.operator and not await _has_operator(services.naming, session, tenant.instance_name, spec.operator):
        raise InvalidInputError("operator", f"is for a tenant that is being made; '{tenant.instance_name}' exists")
    return Stored(tenant, operation, spec.secret_key, new=False)


def _apply(
    settings: Settings, tenant: Tenant, spec: TenantSpec, secret_key: str | None, *, new: bool = False
) -> list[str]:
    """Change the tenant's settings and its key; gives the names of the columns that are different now.

    Raises:
        InvalidInputError: nothing says where its LHC is. A tenant that was there before keeps what it has.
    """
    changed = tenant_settings.apply(tenant, spec.changes, settings, new=new)
    if new or "callback_url" in changed:
        lhc.check_address(settings, tenant.instance_name, tenant.callback_url)
    key_digest = digest(tenant.instance_name, secret_key) if secret_key else spec.key_digest
    if key_digest and key_digest != tenant.key_digest:
        tenant.key_digest = key_digest
        changed.append("key_digest")
    return changed


async def _tell(services: Services, stored: Stored) -> None:
    """After the commit: let this process read the tenant anew, and a worker begin."""
    services.cache.tenants.forget(stored.tenant.instance_name)
    services.cache.hosts.forget(stored.tenant.instance_name)
    if stored.operation is not None:
        await operations.wake(services.wake, stored.operation)


async def _open_making(
    clock: Clock,
    session: AsyncSession,
    tenant: Tenant,
    spec: TenantSpec,
    cause: Cause,
    *,
    by: OperationKind = OperationKind.PROVISION,
    not_before: float = 0,
) -> Operation:
    """The workflow that makes the tenant: the one under way, or a new one of that kind."""
    given = {"operator": spec.operator} if spec.operator else {}
    for under_way in await operations.all_unfinished(session, tenant.instance_name):
        same = not given or _operator_of(under_way.input) == _operator_of(given)
        if under_way.kind in _MAKING and same:
            by, given = under_way.kind, {}  # the verifiers of one password differ, since each has a salt of its own
    return await operations.open_operation(
        clock, session, tenant.instance_name, by, cause, given=given, not_before=not_before
    )


def _operator_of(given: Mapping[str, Any]) -> Any:
    return given.get("operator", {}).get("username")


async def _has_operator(naming: Naming, session: AsyncSession, instance_name: str, operator: Mapping[str, Any]) -> bool:
    name = AccountName(AccountKind.OPERATOR, operator["username"], instance_name)
    return await session.get(Account, naming.username(name)) is not None
