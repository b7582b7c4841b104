"""What an operator's message means to the visitor's tenant, as an event, whoever's chat it is."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import references
from tenants.conversations.contents import Kind
from tenants.conversations.references import Meant
from tenants.conversations.reports import OperatorMessage
from tenants.core.naming import Naming
from tenants.delivery.outbox import ConversationEvent, Event
from tenants.store.models import MAX_CLIENT_ID


async def event_of(session: AsyncSession, naming: Naming, message: OperatorMessage) -> ConversationEvent:
    """What the message means, in the transaction that keeps it."""
    content = message.content
    match content.kind:
        case Kind.REACTS:
            meant = await references.any_line(session, naming, message, content.about)
            return _event(message, Event.MESSAGE_REACTION, _line(meant))
        case Kind.RETRACTS:
            changed = await references.own_line(session, naming, message, content.about)
            return _event(message, Event.MESSAGE_RETRACTED, {"changes": changed})
        case Kind.EDITS:
            changed = await references.own_line(session, naming, message, content.about)
            event = Event.MESSAGE_UPDATED if changed else Event.MESSAGE_CREATED
            detail: dict[str, Any] = {"changes": changed} if changed else {"is_correction": True}
        case Kind.SAYS | Kind.SHOWS_PLACE:
            event = Event.MESSAGE_CREATED
            detail = {"is_location": True} if content.kind is Kind.SHOWS_PLACE else {}
    if content.replies_to is not None:
        answered = await references.any_line(session, naming, message, content.replies_to)
        detail["in_reply_to"] = _line(answered)
    return _event(message, event, detail)


def _line(meant: Meant | None) -> dict[str, Any]:
    """Which line is meant, as its tenant is told; nulls if it is not known any more."""
    if meant is None:
        return {"message_id": None, "written_by": None}
    return {"message_id": meant.message_id, "written_by": meant.written_by}


def _event(message: OperatorMessage, event: Event, detail: dict[str, Any]) -> ConversationEvent:
    content = message.content
    # a correction of a line that is not known stands in its place from now on
    other_id = content.about if detail.get("is_correction") else content.other_id
    return ConversationEvent(
        event,
        message.stanza_id,
        message.sender,
        message.receiver,
        message.body,
        detail,
        origin=message.origin,
        other_id=other_id if 0 < len(other_id) <= MAX_CLIENT_ID else None,
    )
