"""Messages that need attention: those that wait, were given up, came back or that nobody may take."""

from typing import Any

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.status.attention_items import SHOWN, Item, Kind, Scope, count_of, first
from tenants.store.models import CallbackMessage, ChatLine, Circuit, LineState, MessageState, ReturnedMessage

Found = tuple[list[Item], int]
"""The first items of a kind, and how many there are."""

LATE_SECONDS = 120.0
"""Callbacks take less than a second as a rule."""
_UNTAKEN_SECONDS = 900.0
_READ = 20_000
"""Late messages that are looked at, oldest first: enough to name the tenants."""
_LONGEST_ERROR = 200
"""Characters of an error that are told."""


async def open_circuits(session: AsyncSession, scope: Scope) -> Found:
    """Tenants whose server fails, with what it answered."""
    is_open = Circuit.due_at.is_not(None), *scope.of(Circuit.instance_name)
    count = select(func.count()).select_from(Circuit).where(*is_open)
    shown = select(Circuit).where(*is_open).order_by(Circuit.opened_at).limit(SHOWN).subquery()
    waiting = (
        select(func.count())
        .where(CallbackMessage.instance_name == shown.c.instance_name, CallbackMessage.state == MessageState.PENDING)
        .scalar_subquery()
    )
    rows = (
        await session.execute(
            select(
                shown.c.instance_name,
                shown.c.opened_at,
                shown.c.failures,
                waiting,
                _latest_error(shown.c.instance_name, MessageState.PENDING),
                count.scalar_subquery(),
            ).order_by(shown.c.opened_at)
        )
    ).all()
    items = [_of_circuit(*row[:5]) for row in rows]
    return items, rows[0][5] if rows else 0


def _of_circuit(name: str, opened_at: float | None, failures: int, waiting: int, error: str | None) -> Item:
    answered = f"Its server fails: {_short(error)}." if error else f"Its server failed {failures} times in a row."
    cause = f"{answered} {count_of(waiting, 'message')} wait for it." if waiting else answered
    action = (
        f"`orchestrator doctor --instance {name}` tries it. When it works: `orchestrator replay {name} --all`, or wait"
        " for the next probe, within five minutes"
    )
    return Item(Kind.CIRCUIT, name, cause, opened_at, action)


async def late(session: AsyncSession, scope: Scope) -> Found:
    """Messages that have waited for long, though the circuit is not open."""
    is_late = (
        CallbackMessage.state == MessageState.PENDING,
        CallbackMessage.created_at < scope.now - LATE_SECONDS,
        *scope.of(CallbackMessage.instance_name),
    )
    oldest = (
        select(CallbackMessage.instance_name, CallbackMessage.created_at)
        .where(*is_late)
        .order_by(CallbackMessage.created_at)
        .limit(_READ)
        .subquery()
    )
    since = func.min(oldest.c.created_at)
    grouped = (
        select(oldest.c.instance_name, func.count().label("waiting"), since.label("since"))
        .outerjoin(Circuit, Circuit.instance_name == oldest.c.instance_name)
        .where(Circuit.due_at.is_(None))
        .group_by(oldest.c.instance_name)
        .order_by(since)
    )
    rows, count = await _with_error(session, grouped, MessageState.PENDING)
    return [
        Item(
            Kind.LATE,
            name,
            f"{count_of(waiting, 'message')} to its server wait for more than two minutes{_because(error)}.",
            since,
            f"`orchestrator deliveries {name}` says why of each; `orchestrator doctor` whether the workers run",
        )
        for name, waiting, since, error in rows
    ], count


async def dead_letters(session: AsyncSession, scope: Scope) -> Found:
    """Messages that were given up, by tenant."""
    since = func.min(CallbackMessage.created_at)
    grouped = (
        select(CallbackMessage.instance_name, func.count().label("dead"), since.label("since"))
        .where(CallbackMessage.state == MessageState.DEAD, *scope.of(CallbackMessage.instance_name))
        .group_by(CallbackMessage.instance_name)
        .order_by(since)
    )
    rows, count = await _with_error(session, grouped, MessageState.DEAD)
    return [
        Item(
            Kind.DEAD_LETTERS,
            name,
            f"{count_of(dead, 'message')} to its server were given up{_because(error)}.",
            since,
            f"when its server works: `orchestrator replay {name} --all`",
        )
        for name, dead, since, error in rows
    ], count


async def returned(session: AsyncSession, scope: Scope) -> Found:
    """Messages of visitors that came back and were not sent again."""
    since = func.min(ReturnedMessage.created_at)
    rows, count = await first(
        session,
        select(ReturnedMessage.instance_name, func.count(), since, func.min(ReturnedMessage.condition))
        .where(ReturnedMessage.replayed_at.is_(None), *scope.of(ReturnedMessage.instance_name))
        .group_by(ReturnedMessage.instance_name)
        .order_by(since),
    )
    return [
        Item(
            Kind.RETURNED,
            name,
            f"{count_of(number, 'message')} of visitors came back from ejabberd ({condition}).",
            since,
            f"`orchestrator returned {name}` shows them, with `--replay-all` it sends them again",
        )
        for name, number, since, condition, _ in rows
    ], count


async def untaken(session: AsyncSession, scope: Scope) -> Found:
    """What visitors wrote in chats, and no operator was sent for a while."""
    since = func.min(ChatLine.created_at)
    rows, count = await first(
        session,
        select(ChatLine.instance_name, func.count(), since)
        .where(
            ChatLine.state == LineState.WAITING,
            ChatLine.created_at < scope.now - _UNTAKEN_SECONDS,
            *scope.of(ChatLine.instance_name),
        )
        .group_by(ChatLine.instance_name)
        .order_by(since),
    )
    return [
        Item(
            Kind.UNTAKEN,
            name,
            f"{count_of(number, 'line')} of visitors wait for an operator who may take them.",
            since,
            "an operator must come online; look at departments and `receives_new_chats` of the operators",
            is_problem=False,
        )
        for name, number, since, _ in rows
    ], count


async def _with_error(session: AsyncSession, grouped: Any, state: MessageState) -> tuple[list[Any], int]:
    """The first rows of the query, each with an error of the tenant's messages in that state."""
    every = grouped.add_columns(func.count().over().label("of_all")).limit(SHOWN).subquery()
    names = [column for column in every.c if column.name != "of_all"]
    found = await session.execute(
        select(*names, _latest_error(every.c.instance_name, state), every.c.of_all).order_by(every.c.since)
    )
    rows = found.all()
    return [row[:-1] for row in rows], rows[0].of_all if rows else 0


def _latest_error(instance_name: Any, state: MessageState) -> ScalarSelect[Any]:
    """Why the tenant's oldest message in that state that was tried is not delivered."""
    return (
        select(CallbackMessage.last_error)
        .where(
            CallbackMessage.instance_name == instance_name,
            CallbackMessage.state == state,
            CallbackMessage.last_error.is_not(None),
        )
        .order_by(CallbackMessage.id)
        .limit(1)
        .scalar_subquery()
    )


def _because(error: str | None) -> str:
    return f": {_short(error)}" if error else ""


def _short(error: str) -> str:
    line = error.partition("\n")[0].rstrip(". ")
    return line if len(line) <= _LONGEST_ERROR else f"{line[:_LONGEST_ERROR]}…"
