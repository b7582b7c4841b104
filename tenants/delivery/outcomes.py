"""Records what became of callbacks: those that were received, many at once; the others each by itself."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from sqlalchemy import ScalarSelect, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.backoff import delay
from tenants.core.clock import Clock
from tenants.delivery import circuits, history, refusals
from tenants.delivery.claim_work import Piece, find_oldest_pending
from tenants.lifecycle import admission
from tenants.outbound.poster import Answer
from tenants.process.services import Batched, Services
from tenants.store import claims
from tenants.store.models import (
    CallbackMessage,
    Circuit,
    Conversation,
    DeliveryAttempt,
    MessageState,
    OperatorPresence,
    Tenant,
)

log = structlog.get_logger(__name__)

_FIRST_DELAY, _LONGEST_DELAY, _GROWTH = 2.0, 4 * 3600.0, 3.0
_NEWEST = 100
"""Messages of a tenant that are looked at, for whether its server takes any."""
_THIS_ONE_ALONE = (
    ", while the server takes others: it does not know this chat or visitor any more, or cannot take this message"
)


async def record(
    services: Services, piece: Piece, message: CallbackMessage | None, answer: Answer | None, *, go_on: bool
) -> CallbackMessage | None:
    """Record the outcome. No answer: no tenant, or no message.

    Returns the message that follows on the same claim; None: the conversation is given back.
    """
    if message is not None and answer is not None and answer.error is None and piece.probe is None:
        return await _RECORD_OUTCOME.do(services, _Received(piece, message, answer, go_on))
    return await _record_one(services, piece, message, answer, go_on=go_on)


def retry_at(answer: Answer, attempts: int, now: float, *, others_received: bool = False) -> float | None:
    """When the callback is to be tried again; None after the last try (`tenants.delivery.refusals`).

    `Retry-After` can put a try off, never bring it forward: else an LHC that says "at once" would use up the attempts.
    """
    status, takes_others = answer.http_status, answer.takes_others
    if attempts >= refusals.most_tries(status, others_received=others_received, takes_others=takes_others):
        return None
    backoff = delay(attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY, growth=_GROWTH)
    return now + max(backoff, answer.retry_after or 0)


async def tell_circuit(
    services: Services, session: AsyncSession, piece: Piece, answer: Answer | None, *, counts: bool = True
) -> None:
    """Let the tenant's circuit know how it went. `counts`: whether a failure says something of the server."""
    if answer is None:
        await give_probe_back(session, piece)
    elif answer.error is None or answer.takes_others:
        await circuits.close(session, piece.instance_name, services.clock())
    elif counts or piece.probe is not None:
        await circuits.failed(services, session, piece.instance_name, piece.probe, answer.retry_after)


async def give_probe_back(session: AsyncSession, piece: Piece) -> None:
    """The piece did not go: if it was a probe, another may."""
    if piece.probe is not None:
        await circuits.give_back(session, piece.instance_name, piece.probe)


@dataclass(frozen=True, slots=True)
class _Received:
    """A message that LHC received. `go_on`: whether another may follow on the same claim."""

    piece: Piece
    message: CallbackMessage
    answer: Answer
    go_on: bool


async def _record_all(services: Services, received: Sequence[_Received]) -> list[CallbackMessage | None]:
    now = services.clock()
    names = {one.piece.instance_name for one in received}
    async with services.database.write() as session:
        # asked first, because others wait for what is locked below
        shut, failing = await _look_at(session, names)
        # the locks make messages that are being stored or replayed just now wait, or be seen
        held = await _hold(session, received)
        await _record_received(session, held, now)
        following = await find_oldest_pending(session, [one.piece.key for one in held])
        released = {
            one.piece.key
            for one in held
            if not one.go_on or one.piece.key not in following or one.piece.instance_name in shut
        }
        going_on = {one.piece.token: following[one.piece.key] for one in held if one.piece.key not in released}
        await _release(session, released - following.keys(), due_at=None)
        # behind those of the tenant that have waited longer
        await _release(session, released & following.keys(), due_at=now)
        for instance_name in failing:
            await circuits.close(session, instance_name, now)
    return [going_on.get(one.piece.token) for one in received]


_RECORD_OUTCOME = Batched("record_outcome", _record_all)


async def _look_at(session: AsyncSession, names: Collection[str]) -> tuple[set[str], list[str]]:
    """Which of these tenants are shut, and which failed before, by their names."""
    rows = await session.execute(
        select(Tenant.instance_name, admission.SHUT, Circuit.failures > 0)
        .outerjoin(Circuit, Circuit.instance_name == Tenant.instance_name)
        .where(Tenant.instance_name.in_(names), or_(admission.SHUT, Circuit.failures > 0))
        .order_by(Tenant.instance_name)
    )
    marks = [(name, is_shut, has_failed) for name, is_shut, has_failed in rows]
    return {name for name, is_shut, _ in marks if is_shut}, [name for name, _, has_failed in marks if has_failed]


async def _hold(session: AsyncSession, received: Sequence[_Received]) -> list[_Received]:
    """Lock the conversations. Returns those whose claims are still held."""
    rows = await session.execute(
        select(Conversation.id, Conversation.claim_token)
        .where(Conversation.id.in_([one.piece.key for one in received]))
        .order_by(*claims.order_of(Conversation))
        .with_for_update()
    )
    tokens = {key: token for key, token in rows}  # noqa: C416 - rows are no tuples to mypy
    return [one for one in received if tokens.get(one.piece.key) == one.piece.token]


async def _record_received(session: AsyncSession, received: Sequence[_Received], now: float) -> None:
    if not received:
        return
    attempts = [_attempt(one.message, one.answer, now) for one in received]
    await session.execute(insert(DeliveryAttempt), attempts)
    await session.execute(
        update(CallbackMessage)
        .where(CallbackMessage.id.in_([one.message.id for one in received]))
        .values(
            state=MessageState.DELIVERED,
            attempts=CallbackMessage.attempts + 1,
            last_error=None,
            finished_at=now,
            body=None,
        )
        .execution_options(synchronize_session=False)
    )


def _attempt(message: CallbackMessage, answer: Answer, now: float) -> dict[str, object]:
    """The row of a try."""
    return {
        "message_id": message.id,
        "at": now,
        "seconds": answer.seconds,
        "http_status": answer.http_status,
        "error": answer.error,
        "warning": answer.warning,
    }


async def _release(session: AsyncSession, conversation_ids: Collection[int], *, due_at: float | None) -> None:
    """Give conversations back, which are locked and ours."""
    if conversation_ids:
        await session.execute(
            update(Conversation)
            .where(Conversation.id.in_(conversation_ids))
            .values(claim_token=None, claimed_until=None, due_at=due_at)
            .execution_options(synchronize_session=False)
        )


async def _record_one(
    services: Services, piece: Piece, message: CallbackMessage | None, answer: Answer | None, *, go_on: bool
) -> CallbackMessage | None:
    async with services.database.write() as session:
        # see `_record_all`
        held = await session.scalar(
            select(Conversation.claim_token).where(Conversation.id == piece.key).with_for_update()
        )
        if held != piece.token:
            return None
        again_at = None
        if message is not None:
            again_at = await _record_attempt(services.clock, session, message, answer)
        following = None if again_at else (await find_oldest_pending(session, [piece.key])).get(piece.key)
        well = answer is not None and answer.error is None
        may_follow = go_on and well and following is not None
        if not may_follow or await admission.is_shut(session, piece.instance_name):
            # now, when it holds another message: behind those of the tenant that have waited longer
            due_at = again_at or (None if following is None else services.clock())
            await claims.release(session, Conversation, piece.key, piece.token, due_at)
            following = None
        counts = message is None or answer is None or well or await _says_more(session, message, answer)
        await tell_circuit(services, session, piece, answer, counts=counts)
    return following


async def _says_more(session: AsyncSession, message: CallbackMessage, answer: Answer) -> bool:
    """Whether a failure says something of the server: a refusal does so once for each conversation, until it passes."""
    if not refusals.is_refusal(answer.http_status):
        return True
    before = select(CallbackMessage.state).where(
        CallbackMessage.conversation_id == message.conversation_id, CallbackMessage.id < message.id
    )
    last = await session.scalar(before.order_by(CallbackMessage.id.desc()).limit(1))
    return message.attempts == 0 and last is not MessageState.DEAD


async def _record_attempt(
    clock: Clock, session: AsyncSession, message: CallbackMessage, answer: Answer | None
) -> float | None:
    """Record what became of the message. Returns when it is to be tried again, or None. No answer: no tenant."""
    now = clock()
    attempts = message.attempts + 1
    again_at = None
    error: str | None
    if answer is None:
        state, error = MessageState.DEAD, "the tenant is gone"
    else:
        error = answer.error
        await session.execute(insert(DeliveryAttempt).values(_attempt(message, answer, now)))
        state = MessageState.DELIVERED
        if error is not None:
            others = await _others_received(session, message, answer, attempts)
            again_at = retry_at(answer, attempts, now, others_received=others)
            state = MessageState.DEAD if again_at is None else MessageState.PENDING
            error += _THIS_ONE_ALONE if others or answer.takes_others else ""
    if error is not None:
        log.warning("callback failed", message_id=message.id, error=error, attempt=attempts, state=state.value)
    values: dict[str, object] = {"state": state, "attempts": attempts, "last_error": error}
    if state is not MessageState.PENDING:
        values["finished_at"] = now
    if state is MessageState.DELIVERED:
        values["body"] = None
    await session.execute(update(CallbackMessage).where(CallbackMessage.id == message.id).values(**values))
    return again_at


async def _others_received(session: AsyncSession, message: CallbackMessage, answer: Answer, attempts: int) -> bool:
    """Whether something else of the tenant was received since the message was first tried; asked only if it matters."""
    if not _depends_on_others(answer, attempts):
        return False
    tries = select(DeliveryAttempt.at).where(DeliveryAttempt.message_id == message.id)
    tries_now = tries.order_by(DeliveryAttempt.id.desc()).limit(attempts).subquery()
    since = select(func.min(tries_now.c.at)).scalar_subquery()
    return await _received_since(session, message.instance_name, since)


def _depends_on_others(answer: Answer, attempts: int) -> bool:
    """Whether the number of tries depends on what the server took meanwhile: see `refusals`."""
    return answer.http_status == HTTPStatus.INTERNAL_SERVER_ERROR and attempts >= refusals.MAX_REFUSALS


async def _received_since(session: AsyncSession, instance_name: str, since: float | ScalarSelect[float]) -> bool:
    received = exists().where(
        DeliveryAttempt.message_id.in_(history.newest_received(instance_name, _NEWEST)),
        DeliveryAttempt.http_status.is_not(None),
        DeliveryAttempt.error.is_(None),
        DeliveryAttempt.at > since,
    )
    return bool(await session.scalar(select(received)))


async def record_presence(
    services: Services, piece: Piece, told: OperatorPresence | None, answer: Answer | None
) -> None:
    """Record what became of an operator's presence. No answer: no tenant, or nothing to tell any more.

    One that is refused counts once for the operator, until one passes, as it is with conversations. It is not kept
    when its tries are over: the next coming, going or ping says how it is by then.
    """
    async with services.database.write() as session:
        current = await session.get(OperatorPresence, piece.key, with_for_update=True)
        if told is None or current is None or current.claim_token != piece.token:
            return
        current.claim_token = current.claimed_until = None
        counts = answer is None or _mark_refused(current, answer, services.clock())
        if current.version == told.version:
            current.attempts += 1
            current.due_at = await _presence_again_at(session, current, answer, services.clock())
            if current.due_at is None:
                current.pending = None
        await session.flush()
        await tell_circuit(services, session, piece, answer, counts=counts)


def _mark_refused(presence: OperatorPresence, answer: Answer, now: float) -> bool:
    """Keep since when the presence is refused. Returns whether the answer says something new of the server."""
    if answer.error is None:
        presence.refused_at = None
        return True
    if not refusals.is_refusal(answer.http_status):
        return True
    is_first = presence.refused_at is None
    presence.refused_at = now if is_first else presence.refused_at
    return is_first


async def _presence_again_at(
    session: AsyncSession, presence: OperatorPresence, answer: Answer | None, now: float
) -> float | None:
    if answer is None or answer.error is None:
        return None
    log.warning("presence callback failed", error=answer.error, attempt=presence.attempts)
    if not presence.retried:
        return None
    others = (
        presence.refused_at is not None
        and _depends_on_others(answer, presence.attempts)
        and await _received_since(session, presence.instance_name, presence.refused_at)
    )
    return retry_at(answer, presence.attempts, now, others_received=others)
