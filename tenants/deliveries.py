"""Delivery of callbacks to LHC: one piece of work at a time is claimed, posted, and its outcome recorded.

A piece is the oldest pending message of a conversation, or the latest presence of an operator. Messages of one
conversation go one after another; conversations go side by side. How many pieces a process does at once is the matter
of `tenants.runners`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Select, delete, exists, func, insert, or_, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants import admission, callbacks, circuits, claims, registry, telling
from tenants.backoff import delay
from tenants.http_posting import Answer
from tenants.models import (
    CallbackMessage,
    Circuit,
    Conversation,
    DeliveryAttempt,
    MessageState,
    OperatorPresence,
    Tenant,
)
from tenants.services import Services

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 12
"""Tries of one callback; then a message rests as a dead letter. With the delays below that is about ten hours."""
_FIRST_DELAY, _LONGEST_DELAY, _GROWTH = 2.0, 4 * 3600.0, 3.0
_AT_ONCE = 10
"""Messages of a conversation that follow each other on one claim; then others of the tenant have their turn."""
_REMEMBER_SECONDS = 24 * 3600.0
"""How long a delivered message is kept, without its body, to recognise repeats and to be looked up."""
_REMEMBER_DEAD_SECONDS = 30 * 24 * 3600.0
"""How long a dead letter waits for its replay."""
_SWEEP_LIMIT = 200
"""Tenants woken by one sweep."""

Work = type[Conversation] | type[OperatorPresence]


@dataclass(frozen=True, slots=True)
class Piece:
    """A claimed piece of a tenant's work.

    Attributes:
        token: the claim on its row.
        probe: the claim on the tenant's circuit, when this is the one that tries it.
        more: whether more of the tenant is due, which could be done at the same time.
    """

    instance_name: str
    model: Work
    key: int | str
    token: str
    probe: str | None
    more: bool


async def claim_next(services: Services, instance_name: str) -> Piece | None:
    """Claim what has waited longest of the tenant's due work.

    None when nothing is due, the circuit is open, or the tenant is shut.
    """
    while True:
        now = services.clock()
        async with services.database.read() as session:
            if await admission.is_shut(session, instance_name) or await circuits.blocks(session, instance_name, now):
                return None
            waiting = await _longest_waiting(session, instance_name, now)
        if not waiting:
            return None
        model, key = waiting[0]
        async with services.database.write() as session:
            token = await claims.claim(session, model, key, now)
            if token is None:
                continue  # somebody else was quicker
            admitted = await circuits.admit(session, instance_name, now)
            if admitted is None:
                await claims.give_back(session, model, key, token)
                return None
        more = len(waiting) > 1 and admitted.probe is None
        return Piece(instance_name, model, key, token, admitted.probe, more)


async def _longest_waiting(session: AsyncSession, instance_name: str, now: float) -> list[tuple[Work, int | str]]:
    """The first of the tenant's due work, and a second to know that there is more."""
    found: list[tuple[float, Work, int | str]] = []
    models: tuple[Work, ...] = (Conversation, OperatorPresence)
    for model in models:
        rows = await session.execute(
            select(model.due_at, claims.key_of(model))
            .where(model.instance_name == instance_name, claims.takeable(model, now))
            .order_by(model.due_at)
            .limit(2)
        )
        found += [(due_at or 0.0, model, key) for due_at, key in rows]
    return [(model, key) for _, model, key in sorted(found, key=lambda row: row[0])]


def _always() -> bool:
    return True


async def deliver(services: Services, piece: Piece, may_go_on: Callable[[], bool] = _always) -> None:
    """Do a claimed piece of work and give it back. One that is cancelled is given back as it was found.

    `may_go_on`: asked before each further message of the conversation.
    """
    try:
        with services.keeper.keep(piece.model, piece.key, piece.token):
            if piece.probe is None:
                await _deliver(services, piece, may_go_on)
            else:
                with services.keeper.keep(Circuit, piece.instance_name, piece.probe):
                    await _deliver(services, piece, may_go_on)
    except asyncio.CancelledError:
        await _give_back(services, piece)
        raise


async def _give_back(services: Services, piece: Piece) -> None:
    async with services.database.write() as session:
        await claims.give_back(session, piece.model, piece.key, piece.token)
        await _give_probe_back(session, piece)


async def _deliver(services: Services, piece: Piece, may_go_on: Callable[[], bool]) -> None:
    if piece.model is Conversation:
        await _deliver_messages(services, piece, may_go_on)
    else:
        await _deliver_presence(services, piece)


async def _deliver_messages(services: Services, piece: Piece, may_go_on: Callable[[], bool]) -> None:
    """Deliver the conversation's oldest message, and those behind it while all goes well."""
    async with services.database.read() as session:
        tenant = await registry.find_in(session, piece.instance_name)
        message = await session.scalar(_oldest_pending(piece))
    if tenant is not None and admission.refusal(tenant):
        await _give_back(services, piece)
        return
    for left in reversed(range(_AT_ONCE)):
        answer = None
        if message is not None and tenant is not None:
            answer = await telling.tell(services, tenant, message)
        message = await _settle(services, piece, message, answer, go_on=left > 0 and may_go_on())
        if message is None:
            return


async def _settle(
    services: Services, piece: Piece, message: CallbackMessage | None, answer: Answer | None, *, go_on: bool
) -> CallbackMessage | None:
    """Record the outcome. Returns the message that follows on the same claim; None: the conversation is given back."""
    async with services.database.write() as session:
        # the lock makes a message that is being stored or replayed just now wait, or be seen
        held = await session.scalar(
            select(Conversation.claim_token).where(Conversation.id == piece.key).with_for_update()
        )
        if held != piece.token:
            return None
        retry_at = None
        if message is not None:
            retry_at = await _record(services, session, message, answer)
        following = None if retry_at else await session.scalar(_oldest_pending(piece))
        well = answer is not None and answer.error is None
        may_follow = go_on and well and following is not None
        if not may_follow or await admission.is_shut(session, piece.instance_name):
            # now, when it holds another message: behind those of the tenant that have waited longer
            due_at = retry_at or (None if following is None else services.clock())
            await claims.release(session, Conversation, piece.key, piece.token, due_at)
            following = None
        await _tell_circuit(services, session, piece, answer)
    return following


def _oldest_pending(piece: Piece) -> Select[CallbackMessage]:
    return (
        select(CallbackMessage)
        .where(CallbackMessage.conversation_id == piece.key, CallbackMessage.state == MessageState.PENDING)
        .order_by(CallbackMessage.id)
        .limit(1)
    )


async def _record(
    services: Services, session: AsyncSession, message: CallbackMessage, answer: Answer | None
) -> float | None:
    """Record what became of the message. Returns when it is to be tried again, or None. No answer: no tenant."""
    now = services.clock()
    attempts = message.attempts + 1
    retry_at = None
    error: str | None
    if answer is None:
        state, error = MessageState.DEAD, "the tenant is gone"
    else:
        error = answer.error
        await session.execute(
            insert(DeliveryAttempt).values(
                message_id=message.id, at=now, seconds=answer.seconds, http_status=answer.http_status, error=error
            )
        )
        state = MessageState.DELIVERED
        if error is not None:
            retry_at = _retry_at(answer, attempts, now)
            state = MessageState.DEAD if retry_at is None else MessageState.PENDING
    if error is not None:
        log.warning("callback failed", message_id=message.id, error=error, attempt=attempts, state=state.value)
    values: dict[str, object] = {"state": state, "attempts": attempts, "last_error": error}
    if state is not MessageState.PENDING:
        values["finished_at"] = now
    if state is MessageState.DELIVERED:
        values["body"] = None
    await session.execute(update(CallbackMessage).where(CallbackMessage.id == message.id).values(**values))
    return retry_at


def _retry_at(answer: Answer, attempts: int, now: float) -> float | None:
    """When the callback is to be tried again; None after the last try.

    `Retry-After` can put a try off, never bring it forward: else an LHC that says "at once" would use up the attempts.
    """
    if attempts >= MAX_ATTEMPTS:
        return None
    backoff = delay(attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY, growth=_GROWTH)
    return now + max(backoff, answer.retry_after or 0)


async def _deliver_presence(services: Services, piece: Piece) -> None:
    async with services.database.read() as session:
        tenant = await registry.find_in(session, piece.instance_name)
        told = await session.get(OperatorPresence, piece.key)
    if tenant is not None and admission.refusal(tenant):
        await _give_back(services, piece)
        return
    answer = None
    if told is not None and told.pending is not None and tenant is not None:
        answer = await telling.tell_presence(services, tenant, told, told.pending)
    now = services.clock()
    async with services.database.write() as session:
        current = await session.get(OperatorPresence, piece.key, with_for_update=True)
        if told is None or current is None or current.claim_token != piece.token:
            return
        current.claim_token = current.claimed_until = None
        if current.version == told.version:
            current.attempts += 1
            retry_at = None
            if answer is not None and answer.error is not None:
                log.warning("presence callback failed", error=answer.error, attempt=current.attempts)
                retry_at = _retry_at(answer, current.attempts, now) if current.retried else None
            current.due_at = retry_at
            if retry_at is None:
                current.pending = None
        await session.flush()
        await _tell_circuit(services, session, piece, answer)


async def _tell_circuit(services: Services, session: AsyncSession, piece: Piece, answer: Answer | None) -> None:
    if answer is None:
        await _give_probe_back(session, piece)
    elif answer.error is None:
        await circuits.close(session, piece.instance_name, services.clock())
    else:
        await circuits.failed(services, session, piece.instance_name, piece.probe, answer.retry_after)


async def _give_probe_back(session: AsyncSession, piece: Piece) -> None:
    if piece.probe is not None:
        await circuits.give_back(session, piece.instance_name, piece.probe)


async def sweep(services: Services) -> None:
    """Wake the open tenants that have something due and whose circuit lets it through, the longest waiting first."""
    now = services.clock()
    due = union_all(
        *(
            select(model.instance_name, model.due_at).where(claims.takeable(model, now))
            for model in (Conversation, OperatorPresence)
        )
    ).subquery()
    async with services.database.read() as session:
        instance_names = await session.scalars(
            select(due.c.instance_name)
            .outerjoin(Circuit, Circuit.instance_name == due.c.instance_name)
            .where(or_(Circuit.due_at.is_(None), claims.takeable(Circuit, now)))
            .where(~exists().where(Tenant.instance_name == due.c.instance_name, admission.SHUT))
            .group_by(due.c.instance_name)
            .order_by(func.min(due.c.due_at))
            .limit(_SWEEP_LIMIT)
        )
    for instance_name in instance_names:
        await callbacks.wake(services, instance_name)


async def purge(services: Services) -> None:
    """Forget messages that were delivered or dead long ago, with their attempts, and conversations without any."""
    now = services.clock()
    async with services.database.write() as session:
        for state, seconds in (
            (MessageState.DELIVERED, _REMEMBER_SECONDS),
            (MessageState.DEAD, _REMEMBER_DEAD_SECONDS),
        ):
            await session.execute(
                delete(CallbackMessage).where(
                    CallbackMessage.state == state, CallbackMessage.created_at < now - seconds
                )
            )
        await session.execute(
            delete(Conversation).where(
                Conversation.due_at.is_(None),
                ~exists().where(CallbackMessage.conversation_id == Conversation.id),
            )
        )
