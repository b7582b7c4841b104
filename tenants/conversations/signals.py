"""Small signs between operators' clients and visitors: who is typing, what has arrived, and what came back.

They are events of a conversation. That somebody types is told at most once in a while and is of no use later, so it is
dropped rather than kept when the tenant cannot be told at once.
"""

import uuid
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import stanza_ids
from tenants.conversations.reports import Receipt, Returned, Typing
from tenants.core.naming import AccountName, Naming
from tenants.delivery import outbox
from tenants.delivery.outbox import ConversationEvent, Event
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.store.models import CallbackMessage, ChatLine, LineState, MessageState, Routing, Tenant


async def typing(services: Services, sign: Typing) -> None:
    """Tell the tenant, unless it is still to be told of an earlier sign, or has none of such an event."""
    username = services.naming.username(sign.receiver)
    async with services.database.write() as session:
        tenant = await session.get(Tenant, sign.receiver.instance)
        if (
            tenant is None
            or admission.refusal(tenant)
            or admission.stranger(tenant, sign.host)
            or not outbox.is_told(tenant, Event.TYPING)
        ):
            return
        waits = await session.scalar(
            select(CallbackMessage.id)
            .where(
                CallbackMessage.instance_name == sign.receiver.instance,
                CallbackMessage.receiver == username,
                CallbackMessage.state == MessageState.PENDING,
            )
            .limit(1)
        )
        if waits is not None:
            return
        detail = {"composing": sign.composing}
        told = ConversationEvent(Event.TYPING, uuid.uuid4().hex, sign.sender, sign.receiver, detail=detail)
        woken = await outbox.note(services, session, [told])
    await services.delivery.wake(*woken)


async def receipt(services: Services, receipts: Sequence[Receipt]) -> None:
    """Note that lines have arrived, and tell their tenants; of each line once, whoever has it first."""
    async with services.database.write() as session:
        events: list[ConversationEvent] = []
        lines = await _lines(session, [one.message_id for one in receipts])
        for one in receipts:
            line = _of_stanza(lines, services.naming, one.receiver, one.sender, one.message_id)
            if line is None or line.state in {LineState.DELIVERED, LineState.RETRACTED}:
                continue
            tenant = await session.get_one(Tenant, line.instance_name)
            if admission.stranger(tenant, one.host):
                continue
            line.state, line.arrived_at = LineState.DELIVERED, services.clock()
            if outbox.is_told(tenant, Event.MESSAGE_DELIVERED):
                events.append(
                    ConversationEvent(
                        Event.MESSAGE_DELIVERED,
                        f"{one.message_id}/delivered",
                        one.sender,
                        one.receiver,
                        detail={"message_id": line.message_id},
                    )
                )
        woken = await outbox.note(services, session, events)
    await services.delivery.wake(*woken)


async def failed(services: Services, session: AsyncSession, reports: Sequence[Returned]) -> set[str]:
    """Note that messages came back, in the transaction that keeps them. Returns the tenants to be woken after it.

    Of LHC's own lines none is known: there all that comes back is told.
    """
    events: list[ConversationEvent] = []
    lines = await _lines(session, [report.message_id for report in reports])
    for report in reports:
        tenant = await session.get(Tenant, report.visitor.instance)
        if tenant is None or not outbox.is_told(tenant, Event.MESSAGE_FAILED):
            continue
        # also of a change of the line: that has an id which begins with the line's
        said = report.message_id.partition(".")[0]
        line = _of_stanza(lines, services.naming, report.visitor, report.operator, said)
        if line is None and tenant.routing is Routing.ORCHESTRATOR:
            continue  # nothing that the tenant said: an operator's client may give back what it likes
        if line is not None and said == report.message_id and _is_out(line, services.naming.username(report.operator)):
            line.state = LineState.FAILED
        detail = {
            "message_id": line.message_id if line else report.message_id,
            "condition": report.condition,
            "reason": report.reason,
        }
        event_id = f"{report.stanza_id}/failed"
        events.append(ConversationEvent(Event.MESSAGE_FAILED, event_id, report.operator, report.visitor, detail=detail))
    return await outbox.note(services, session, events)


def _is_out(line: ChatLine, operator: str) -> bool:
    """Whether the line is on its way to the operator alone; that it was sent may not be noted yet."""
    is_noted_soon = line.state is LineState.WAITING and operator not in line.sent_to
    return line.state is LineState.SENT or is_noted_soon


async def _lines(session: AsyncSession, named: Iterable[str]) -> dict[int, ChatLine]:
    """The rows that may have been sent under these ids, by their keys; locked, always in the same order."""
    keys = {key for stanza_id in named if (key := stanza_ids.line_key(stanza_id)) is not None}
    if not keys:
        return {}
    rows = select(ChatLine).where(ChatLine.id.in_(keys)).order_by(ChatLine.id).with_for_update()
    return {line.id: line for line in await session.scalars(rows)}


def _of_stanza(
    lines: dict[int, ChatLine], naming: Naming, visitor: AccountName, operator: AccountName, stanza_id: str
) -> ChatLine | None:
    """What the visitor wrote and that very operator was sent under this id."""
    key = stanza_ids.line_key(stanza_id)
    line = None if key is None else lines.get(key)
    if line is None or line.sender != naming.username(visitor):
        return None
    return line if stanza_ids.of_line(line, naming.username(operator)) == stanza_id else None
