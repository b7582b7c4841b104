"""The tenants themselves: what the control panel wants of each, and the transitions between their states."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.digests import digest, matches, new_key
from tenants.core.errors import ConflictError, DomainError, InvalidInputError, NotFoundError
from tenants.core.naming import STANDALONE_INSTANCE, AccountKind, AccountName, RosterKind, check_instance
from tenants.ejabberd import rosters
from tenants.lifecycle import audit, operations, states
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.requests import MAX_OVERLAP
from tenants.outbound import callback_urls, webhooks
from tenants.process.services import Services
from tenants.store.models import (
    Account,
    CallbackMessage,
    Chat,
    ChatLine,
    Circuit,
    Conversation,
    Drift,
    EventFormat,
    OneTimeLink,
    Operation,
    OperationKind,
    OperationState,
    Operator,
    OperatorPresence,
    OwnerOffline,
    ReturnedMessage,
    Room,
    Routing,
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
"""What goes with its tenant; what refers to others before them."""

NAME_RESTS = 5.0
"""Seconds from the end of a tenant until another one of its name is provisioned: longer than any process remembers."""

_Item = TypeVar("_Item")

_OPEN_AT_ONCE = 20
"""Tenants of a bulk in one transaction: most of its cost is the commit, and others wait for it."""
_WAKE_AT_ONCE = 100
"""Wake-ups of a bulk on their way at once: a broker that hangs costs each hundred two seconds, not each one."""

_LIVE = frozenset(TenantState) - {TenantState.DESTROYING, TenantState.DESTROYED}
TO_PROVISION = (TenantState.PENDING, TenantState.PROVISIONING, TenantState.FAILED)
"""States in which `put` provisions a tenant."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """When a workflow may be asked for.

    Attributes:
        begins_in: states in which it may begin when nothing is under way.
        done: states in which there is nothing to do.
        waits_for: workflows under way that it waits for; any other contradicts it.
    """

    begins_in: frozenset[TenantState]
    done: frozenset[TenantState] = frozenset()
    waits_for: frozenset[OperationKind] = frozenset()


_HARMLESS = frozenset({OperationKind.ROTATE_KEYS, OperationKind.CHANGE_ADDRESS, OperationKind.RECONCILE})
"""They leave the tenant's state as it is."""
_MAKING = frozenset({OperationKind.PROVISION, OperationKind.IMPORT})
_S = TenantState
_RULES: Mapping[OperationKind, _Rule] = {
    OperationKind.SUSPEND: _Rule(
        frozenset({_S.ACTIVE, _S.SUSPENDING, _S.RESUMING}), frozenset({_S.SUSPENDED}), _HARMLESS | _MAKING
    ),
    OperationKind.RESUME: _Rule(
        frozenset({_S.SUSPENDED, _S.SUSPENDING, _S.RESUMING}), frozenset({_S.ACTIVE}), _HARMLESS
    ),
    OperationKind.DESTROY: _Rule(_LIVE | {_S.DESTROYING}, waits_for=frozenset(OperationKind)),
    **dict.fromkeys(sorted(_HARMLESS), _Rule(_LIVE, waits_for=frozenset(OperationKind) - {OperationKind.DESTROY})),
}


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
class Created:
    """A tenant was made, or found. `secret_key` is there only when one was made or given just now."""

    tenant: Tenant
    operation: Operation | None
    secret_key: str | None
    new: bool


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
    """Whether this is the tenant's own key, or the one before it while both are good; compared in constant time.

    The key of a destroyed tenant still opens: its LHC goes on to remove accounts, and must be told that they are gone.
    """
    async with services.database.read() as session:
        tenant = await session.get(Tenant, instance_name)
    return tenant is not None and key_opens(tenant, key, services.clock())


def key_opens(tenant: Tenant, key: str, now: float) -> bool:
    """`opens`, of a tenant that was read already."""
    previous = tenant.previous_key_digest if now < (tenant.previous_key_until or 0) else None
    # both are compared in any case, so that the time tells nothing
    return matches(tenant.instance_name, key, tenant.key_digest) | matches(tenant.instance_name, key, previous)


async def get(services: Services, instance_name: str) -> Tenant:
    """The tenant.

    Raises:
        NotFoundError: there is none, or it was destroyed.
    """
    tenant = await find(services, instance_name)
    if tenant is None:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return tenant


async def get_known(services: Services, instance_name: str) -> Tenant:
    """The tenant, also one that is gone: what records its life can still be read.

    Raises:
        NotFoundError: there never was one.
    """
    async with services.database.read() as session:
        tenant: Tenant | None = await session.get(Tenant, instance_name)
    if tenant is None:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    return tenant


async def search(
    services: Services, *, state: TenantState | None = None, part: str | None = None, after: str = "", limit: int = 50
) -> list[Tenant]:
    """Tenants by name, whose name holds `part` and comes behind `after`; without a state those that are not gone."""
    query = select(Tenant).where(Tenant.instance_name > after).order_by(Tenant.instance_name).limit(limit)
    query = query.where(Tenant.state == state if state else Tenant.state != TenantState.DESTROYED)
    if part:
        query = query.where(Tenant.instance_name.contains(part.lower(), autoescape=True))
    async with services.database.read() as session:
        return list(await session.scalars(query))


async def put(
    services: Services,
    instance_name: str,
    spec: TenantSpec,
    cause: Cause,
    *,
    own_key: bool = True,
    must_be_new: bool = False,
    by: OperationKind = OperationKind.PROVISION,
) -> Created:
    """Create the tenant and start its provisioning, or change what it is to be. May be repeated at will.

    `own_key`: make a key for a new tenant that brings none. `must_be_new`: change none that exists.
    `by`: the workflow that makes it.

    Raises:
        InvalidInputError: the name breaks a rule, or an operator is given to a tenant that has been provisioned.
        ConflictError: it is being destroyed, or is being provisioned with another operator; or it is not new.
    """
    check_key(services, instance_name)
    now = services.clock()
    async with services.database.write() as session:
        tenant, is_first = await _lock_or_begin(services, session, instance_name)
        ending = await operations.unfinished(session, instance_name, OperationKind.DESTROY)
        if tenant.state is TenantState.DESTROYING or ending is not None:
            raise ConflictError(f"tenant '{instance_name}' is being destroyed; create it again when that is done")
        new = tenant.state is TenantState.DESTROYED
        # it was last changed when it was destroyed
        rests_until = tenant.updated_at + NAME_RESTS if new and not is_first else now
        if must_be_new and not new:
            raise ConflictError(f"there is a tenant '{instance_name}' already")
        secret_key = spec.secret_key or (new_key() if new and own_key and not spec.key_digest else None)
        if new:
            await begin(services, session, tenant, cause)
        changed = _apply(services, tenant, spec, digest(instance_name, secret_key) if secret_key else spec.key_digest)
        if changed and not new:
            _record_changes(session, now, instance_name, changed, cause)
        if changed or new:
            tenant.updated_at = now
        await session.flush()
        operation = None
        if tenant.state in TO_PROVISION:
            operation = await _open_making(services, session, tenant, spec, cause, by=by, not_before=rests_until)
        elif spec.operator and not await _has_operator(services, session, instance_name, spec.operator):
            raise InvalidInputError("operator", f"is for a tenant that is being made; '{instance_name}' exists")
    services.cache.tenants.forget(instance_name)
    if operation is not None:
        await operations.wake(services, operation)
    return Created(tenant, operation, secret_key, new=new)


async def _open_making(
    services: Services,
    session: AsyncSession,
    tenant: Tenant,
    spec: TenantSpec,
    cause: Cause,
    *,
    by: OperationKind,
    not_before: float,
) -> Operation:
    """The workflow that makes the tenant: the one under way, or a new one of that kind."""
    given = {"operator": spec.operator} if spec.operator else {}
    for under_way in await operations.all_unfinished(session, tenant.instance_name):
        same = not given or _operator_of(under_way.input) == _operator_of(given)
        if under_way.kind in _MAKING and same:
            by, given = under_way.kind, {}  # the verifiers of one password differ, since each has a salt of its own
    return await operations.open_operation(
        services, session, tenant.instance_name, by, cause, given=given, not_before=not_before
    )


def _operator_of(given: Mapping[str, Any]) -> Any:
    return given.get("operator", {}).get("username")


async def _has_operator(
    services: Services, session: AsyncSession, instance_name: str, operator: Mapping[str, Any]
) -> bool:
    name = AccountName(AccountKind.OPERATOR, operator["username"], instance_name)
    return await session.get(Account, services.naming.username(name)) is not None


async def begin(services: Services, session: AsyncSession, tenant: Tenant, cause: Cause) -> None:
    """A tenant that never was, or is gone, begins with nothing of its former life; its row is locked."""
    now = services.clock()
    await states.transition(session, now, tenant.instance_name, TenantState.PENDING, cause)
    # once more: something may have come after its former life was forgotten
    await _clear(session, tenant.instance_name)
    await session.refresh(tenant)
    tenant.incarnation = new_incarnation()
    tenant.created_at = now
    # whoever had the name before has a key that signs nothing any more
    tenant.signing_version += 1
    for name, value in _beginning_values(services).items():
        setattr(tenant, name, value)


async def _lock_or_begin(services: Services, session: AsyncSession, instance_name: str) -> tuple[Tenant, bool]:
    """The tenant's row, locked, and whether there never was one of its name.

    That one begins as one that is gone: so many may ask at once.
    """
    now = services.clock()
    made = await session.scalar(
        services.database.insert(Tenant)
        .values(
            instance_name=instance_name,
            state=TenantState.DESTROYED,
            created_at=now,
            updated_at=now,
            **_beginning_values(services),
        )
        .on_conflict_do_nothing()
        .returning(Tenant.instance_name)
    )
    return await session.get_one(Tenant, instance_name, with_for_update=True), made is not None


def _beginning_values(services: Services) -> dict[str, Any]:
    settings = services.settings
    return {
        "key_digest": None,
        "previous_key_digest": None,
        "previous_key_until": None,
        "callback_url": None,
        "online_seconds": settings.visitor_online_seconds,
        "idle_hours": settings.account_idle_hours,
        "xmpp": True,
        "visitor_tracking": True,
        "max_accounts": None,
        "max_online_visitors": None,
        "calls_per_second": None,
        "max_rooms": None,
        "max_waiting_messages": None,
        "routing": Routing.LHC,
        "owner_offline": OwnerOffline.STORE,
        "history_hours": 0.0,
        "event_format": EventFormat.LHC,
        "live_view": False,
        "previous_signing_until": None,
    }


def _apply(services: Services, tenant: Tenant, spec: TenantSpec, key_digest: str | None) -> list[str]:
    """Change the row; gives the names of what is different now."""
    # None takes a setting back to its beginning
    beginning = _beginning_values(services)
    values = {name: beginning[name] if value is None else value for name, value in spec.changes.items()}
    if "callback_url" in values:
        values["callback_url"] = callback_urls.as_meant(values["callback_url"], tenant.callback_url)
    if key_digest:
        values["key_digest"] = key_digest
    changed = [name for name, value in values.items() if getattr(tenant, name) != value]
    for name in changed:
        setattr(tenant, name, values[name])
    return changed


def _record_changes(session: AsyncSession, now: float, instance_name: str, changed: list[str], cause: Cause) -> None:
    audit.record(session, now, cause, "settings changed", instance_name=instance_name, what=", ".join(changed))


async def request(
    services: Services,
    instance_name: str,
    kind: OperationKind,
    cause: Cause,
    *,
    given: Mapping[str, Any] | None = None,
    bulk_id: str | None = None,
) -> Operation | None:
    """Start a workflow on a tenant, or find the one of that kind that is under way. None when there is nothing to do.

    One that is asked for while another is under way waits for it, or is refused when the two contradict each other.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: its state, or what is under way, does not allow it.
    """
    async with services.database.write() as session:
        operation = await _open(services, session, instance_name, kind, cause, given=given, bulk_id=bulk_id)
    services.cache.tenants.forget(instance_name)
    if operation is not None:
        await operations.wake(services, operation)
    return operation


async def _open(
    services: Services,
    session: AsyncSession,
    instance_name: str,
    kind: OperationKind,
    cause: Cause,
    *,
    given: Mapping[str, Any] | None = None,
    bulk_id: str | None,
) -> Operation | None:
    """`request`, without waking anybody. What it raises, it raises before it changes anything."""
    rule = _RULES[kind]
    tenant = await session.get(Tenant, instance_name, with_for_update=True)
    if tenant is None or tenant.state is TenantState.DESTROYED:
        raise NotFoundError(f"there is no tenant '{instance_name}'")
    under_way = await operations.all_unfinished(session, instance_name)
    others = [one for one in under_way if one.kind is not kind]
    for other in others:
        if other.kind not in rule.waits_for:
            raise ConflictError(
                f"tenant '{instance_name}' is {tenant.state}: operation '{other.id}' ({other.kind}) is under way"
            )
    if all(one.kind in _HARMLESS for one in under_way):
        if tenant.state in rule.done:
            return None
        if tenant.state not in rule.begins_in:
            raise ConflictError(f"tenant '{instance_name}' is {tenant.state}")
    operation = await operations.open_operation(
        services, session, instance_name, kind, cause, given=given, bulk_id=bulk_id
    )
    if kind is OperationKind.DESTROY:
        await _end(services, session, tenant, others, Cause.of(operation))
    return operation


async def _end(
    services: Services, session: AsyncSession, tenant: Tenant, others: list[Operation], cause: Cause
) -> None:
    """Close the door at once, unless the state is about to change; what rests is not waited for."""
    resting = {other.id for other in others if other.state is OperationState.PAUSED}
    await operations.end_resting(services, session, others, cause)
    if all(other.id in resting or other.kind in _HARMLESS for other in others):
        await states.transition(session, services.clock(), tenant.instance_name, TenantState.DESTROYING, cause)


async def destroy(services: Services, instance_name: str, cause: Cause) -> Operation:
    """Start the tenant's end; from now on it takes no traffic. What is under way is finished first.

    Raises:
        NotFoundError: there is no such tenant.
    """
    operation = await request(services, instance_name, OperationKind.DESTROY, cause)
    assert operation is not None  # noqa: S101 - no state in which there is nothing to do
    return operation


async def request_many(
    services: Services, instance_names: Sequence[str], kind: OperationKind, cause: Cause, bulk_id: str | None = None
) -> list[tuple[str, Operation | DomainError | None]]:
    """Start a workflow on each of the tenants: what `request` gave or raised, by name, each on its own."""
    outcomes: dict[str, Operation | DomainError | None] = {}
    # in order, so that two bulks at once cannot wait for each other's tenants in a ring
    for names in _batches(sorted(set(instance_names)), _OPEN_AT_ONCE):
        async with services.database.write() as session:
            for name in names:
                try:
                    outcomes[name] = await _open(services, session, name, kind, cause, bulk_id=bulk_id)
                except DomainError as error:
                    outcomes[name] = error
        for name in names:
            services.cache.tenants.forget(name)
    opened = [outcome for outcome in outcomes.values() if isinstance(outcome, Operation)]
    for some in _batches(opened, _WAKE_AT_ONCE):
        await asyncio.gather(*(operations.wake(services, one) for one in some))
    return [(name, outcomes[name]) for name in dict.fromkeys(instance_names)]


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    return (items[first : first + size] for first in range(0, len(items), size))


async def rotate_keys(
    services: Services, instance_name: str, cause: Cause, *, key_digest: str, overlap: float
) -> Operation:
    """Start giving the tenant a new key, whose digest this is; the present one opens for `overlap` seconds more.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or another rotation is under way.
        InvalidInputError: the overlap is no such time.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InvalidInputError("overlap_seconds", f"must be from 0 to {MAX_OVERLAP:.0f}")
    given = {"key_digest": key_digest, "overlap": overlap}
    operation = await request(services, instance_name, OperationKind.ROTATE_KEYS, cause, given=given)
    assert operation is not None  # noqa: S101 - there is always something to do
    return operation


async def rotate_signing_key(services: Services, instance_name: str, cause: Cause, *, overlap: float) -> str:
    """Sign the tenant's webhooks with a new key from now on, which this gives; for `overlap` seconds with both.

    Raises:
        NotFoundError: there is no such tenant.
        InvalidInputError: the overlap is no such time.
        UnavailableError: no master key is set.
    """
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InvalidInputError("overlap_seconds", f"must be from 0 to {MAX_OVERLAP:.0f}")
    now = services.clock()
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update=True)
        if tenant is None or tenant.state not in _LIVE:
            raise NotFoundError(f"there is no tenant '{instance_name}'")
        key = webhooks.signing_key(services.settings, instance_name, tenant.signing_version + 1)
        tenant.signing_version += 1
        tenant.previous_signing_until = now + overlap
        audit.record(session, now, cause, "signing key rotated", instance_name=instance_name)
    return key


async def change_address(services: Services, instance_name: str, cause: Cause, callback_url: str | None) -> Operation:
    """Start moving the tenant's callbacks to another address (None: the one that its name gives); accounts stay.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or another change is under way.
        InvalidInputError: it holds what is shown in a password's place.
    """
    known = (await get(services, instance_name)).callback_url
    given = {"callback_url": callback_urls.as_meant(callback_url, known)}
    operation = await request(services, instance_name, OperationKind.CHANGE_ADDRESS, cause, given=given)
    assert operation is not None  # noqa: S101 - there is always something to do
    return operation


async def forget(services: Services, session: AsyncSession, instance_name: str, cause: Cause) -> None:
    """Remove all that the registry holds of a tenant but what records its life.

    Its name and the digest of its key stay as well: its LHC goes on to remove accounts, and is told that they are gone.
    """
    await _clear(session, instance_name)
    await session.execute(update(Operation).where(Operation.instance_name == instance_name).values(input={}))
    values = _beginning_values(services)
    del values["key_digest"]
    await session.execute(update(Tenant).where(Tenant.instance_name == instance_name).values(**values))
    await states.transition(session, services.clock(), instance_name, TenantState.DESTROYED, cause)


async def _clear(session: AsyncSession, instance_name: str) -> None:
    for model in OF_A_TENANT:
        await session.execute(delete(model).where(model.instance_name == instance_name))


async def count_accounts(session: AsyncSession, instance_name: str) -> dict[AccountKind, int]:
    """How many accounts of each kind the tenant has."""
    rows = await session.execute(
        select(Account.kind, func.count()).where(Account.instance_name == instance_name).group_by(Account.kind)
    )
    counts = dict.fromkeys(AccountKind, 0)
    counts.update((kind, count) for kind, count in rows)
    return counts


def groups(services: Services, instance_name: str) -> list[str]:
    """The names of the tenant's two shared rosters."""
    return [rosters.group_of(services.naming, instance_name, kind) for kind in RosterKind]
