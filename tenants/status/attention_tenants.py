"""What of tenants needs attention beside messages: quotas, operations, drift, operators."""

from typing import Any

from sqlalchemy import and_, exists, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from tenants.core.naming import AccountKind
from tenants.process import heartbeats
from tenants.process.backlog import MAX_WAITING
from tenants.status.attention_items import SHOWN, Item, Kind, Scope, count_of, first
from tenants.status.attention_messages import Found
from tenants.store.models import (
    EVERY_TENANT,
    ROOMS_BY_DEFAULT,
    UNFINISHED,
    Account,
    AccountState,
    CallbackMessage,
    Circuit,
    Drift,
    Heartbeat,
    MessageState,
    Operation,
    OperationKind,
    OperationState,
    OperationStep,
    OperatorPresence,
    Room,
    Tenant,
    TenantState,
    VisitorSession,
)

NEAR = 0.8
"""The share of a quota from which on it is told."""
_DAY = 86400.0
_FAILED_DAYS = 30
_ATTEMPTS = 3
"""A step that failed so often is no passing matter."""
BACKUP_SECONDS = 2 * _DAY
_IN_USE = (TenantState.ACTIVE, TenantState.SUSPENDED)


async def quotas(session: AsyncSession, scope: Scope) -> Found:
    """Tenants that have as much of something as they may, or nearly."""
    online = VisitorSession.online_until > scope.now
    items: list[Item] = []
    total = 0
    for what, model, limit, condition, setting in (
        ("accounts", Account, Tenant.max_accounts, true(), "max_accounts"),
        ("visitors online", VisitorSession, Tenant.max_online_visitors, online, "max_online_visitors"),
        ("group chats", Room, func.coalesce(Tenant.max_rooms, ROOMS_BY_DEFAULT), true(), "max_rooms"),
    ):
        query = (
            select(Tenant.instance_name, func.count().label("used"), func.min(limit).label("most"))
            .join(model, model.instance_name == Tenant.instance_name)
            .where(limit > 0, condition, *scope.of(Tenant.instance_name))
            .group_by(Tenant.instance_name)
            .having(func.count() >= NEAR * func.min(limit))
        )
        rows, count = await first(session, query.order_by(func.count().desc(), Tenant.instance_name))
        total += count
        items += [_of_quota(name, used, most, what, setting) for name, used, most, _ in rows]
    waiting, count = await _full_backlogs(session, scope)
    return [*waiting, *items], total + count


async def _full_backlogs(session: AsyncSession, scope: Scope) -> Found:
    """As many messages wait as may. Only where the server fails: else they do not get so many."""
    waiting = (
        select(func.count())
        .where(CallbackMessage.instance_name == Tenant.instance_name, CallbackMessage.state == MessageState.PENDING)
        .scalar_subquery()
    )
    most = func.coalesce(Tenant.max_waiting_messages, MAX_WAITING)
    counted = (
        select(Tenant.instance_name, waiting.label("used"), most.label("most"))
        .join(Circuit, Circuit.instance_name == Tenant.instance_name)
        .where(Circuit.due_at.is_not(None), *scope.of(Tenant.instance_name))
        .order_by(Circuit.opened_at)
        .limit(10 * SHOWN)
        .subquery()
    )
    rows, count = await first(session, select(counted).where(counted.c.used >= NEAR * counted.c.most))
    return [
        _of_quota(name, used, most, "waiting messages", "max_waiting_messages") for name, used, most, _ in rows
    ], count


def _of_quota(name: str, used: int, most: int, what: str, setting: str) -> Item:
    is_full = used >= most
    consequence = "further ones are refused" if is_full else f"{most - used:,} left"
    return Item(
        Kind.QUOTA,
        name,
        f"{used:,} of {most:,} {what} ({used / most:.0%}): {consequence}.",
        None,
        f"`orchestrator tenant update {name} --set {setting}=…` allows more",
        is_problem=is_full,
        subject=setting,
    )


async def failed_operations(session: AsyncSession, scope: Scope) -> Found:
    """Operations that failed and after which nothing has mended it; those that rest, or fail again and again."""
    later = aliased(Operation)
    is_mended = exists().where(
        later.instance_name == Operation.instance_name,
        later.created_at > Operation.created_at,
        or_(later.kind == Operation.kind, later.kind == OperationKind.DESTROY),
    )
    is_failed = and_(
        Operation.state == OperationState.FAILED,
        Operation.finished_at > scope.now - _FAILED_DAYS * _DAY,
        ~is_mended,
    )
    rows, count = await first(
        session,
        select(Operation.id, Operation.instance_name, Operation.kind, Operation.error, Operation.finished_at)
        .where(is_failed, *scope.of(Operation.instance_name))
        .order_by(Operation.finished_at.desc()),
    )
    items = [
        _of_operation(id_, name, f"{_words(kind)} failed: {error or 'no reason was given'}", at, "retry")
        for id_, name, kind, error, at, _ in rows
    ]
    hindered, more = await _hindered_operations(session, scope)
    return [*items, *hindered], count + more


async def _hindered_operations(session: AsyncSession, scope: Scope) -> Found:
    """Unfinished operations that a person paused, or of which a step fails again and again."""
    fails = and_(
        OperationStep.operation_id == Operation.id,
        OperationStep.attempts >= _ATTEMPTS,
        OperationStep.error.is_not(None),
        OperationStep.finished_at.is_(None),
    )
    columns = (Operation.id, Operation.instance_name, Operation.kind, Operation.state, Operation.created_at)
    rows, count = await first(
        session,
        select(*columns, OperationStep.name, OperationStep.error, OperationStep.attempts)
        .outerjoin(OperationStep, fails)
        .where(
            Operation.state.in_(UNFINISHED),
            or_(Operation.state == OperationState.PAUSED, OperationStep.name.is_not(None)),
            *scope.of(Operation.instance_name),
        )
        .order_by(Operation.created_at),
    )
    items = []
    for id_, name, kind, state, at, step, error, attempts, _ in rows:
        if state == OperationState.PAUSED:
            items.append(_of_operation(id_, name, f"{_words(kind)} rests: somebody paused it", at, "resume"))
        else:
            cause = f"{_words(kind)} does not get on: {step} has failed {attempts} times ({error})"
            items.append(_of_operation(id_, name, cause, at, "show"))
    return items, count


def _of_operation(id_: str, name: str, cause: str, at: float, verb: str) -> Item:
    action = f"`orchestrator operation {verb} {id_}`"
    is_problem = verb != "resume"
    return Item(Kind.OPERATION, _tenant(name), f"{cause.rstrip('. ')}.", at, action, is_problem, id_)


async def drift(session: AsyncSession, scope: Scope) -> Found:
    """Differences from ejabberd that a person is to look at, by tenant and kind."""
    since = func.min(Drift.found_at)
    rows, count = await first(
        session,
        select(Drift.instance_name, Drift.kind, func.count(), since, func.min(Drift.subject))
        .where(Drift.mended_at.is_(None), *scope.of(Drift.instance_name))
        .group_by(Drift.instance_name, Drift.kind)
        .order_by(since),
    )
    return [_of_drift(name, kind, number, at, subject) for name, kind, number, at, subject, _ in rows], count


def _of_drift(name: str, kind: str, number: int, since: float, subject: str) -> Item:
    example = subject if number == 1 else f"{subject} and others"
    of_which = "" if name == EVERY_TENANT else f" {name}"
    if kind == "operator_lost":
        cause = f"{count_of(number, 'operator')} lost the account at ejabberd, and cannot log in ({example})."
        action = "invite them at the console, or set their passwords in LHC"
    else:
        cause = f"{count_of(number, 'difference')} from ejabberd for you to decide: {_words(kind)} ({example})."
        action = (
            f"`orchestrator drift{of_which}` shows them; `orchestrator reconcile{of_which}` mends what can be mended"
        )
    return Item(Kind.DRIFT, _tenant(name), cause, since, action, subject=kind)


async def operators_without_login(session: AsyncSession, scope: Scope) -> Found:
    """Operators of whom no presence was ever seen, though the account is older than a day."""
    since = func.min(Account.created_at)
    rows, count = await first(
        session,
        select(Account.instance_name, func.count(), since, func.min(Account.username))
        .join(Tenant, Tenant.instance_name == Account.instance_name)
        .outerjoin(OperatorPresence, OperatorPresence.username == Account.username)
        .where(
            Account.kind == AccountKind.OPERATOR,
            Account.state == AccountState.ACTIVE,
            Account.created_at < scope.now - _DAY,
            OperatorPresence.username.is_(None),
            Tenant.state.in_(_IN_USE),
            *scope.of(Account.instance_name),
        )
        .group_by(Account.instance_name)
        .order_by(since),
    )
    return [
        Item(
            Kind.LOGIN,
            name,
            f"No login yet of {count_of(number, 'operator')} ({username if number == 1 else f'{username} …'}).",
            at,
            "invite them at the console, or remove them",
            is_problem=False,
        )
        for name, number, at, username, _ in rows
    ], count


async def old_backup(session: AsyncSession, scope: Scope) -> Found:
    """The latest backup, if one was ever made, is too old."""
    if scope.instance_name is not None:
        return [], 0
    made: float | None = await session.scalar(select(Heartbeat.at).where(Heartbeat.name == heartbeats.BACKUP))
    if made is None or made > scope.now - BACKUP_SECONDS:
        return [], 0
    days = (scope.now - made) / _DAY
    cause = f"The latest backup was made {days:.0f} days ago."
    return [Item(Kind.BACKUP, None, cause, made, "make one, and look why none was made since")], 1


def _tenant(instance_name: str) -> str | None:
    return None if instance_name == EVERY_TENANT else instance_name


def _words(kind: Any) -> str:
    return str(kind).replace("_", " ")
