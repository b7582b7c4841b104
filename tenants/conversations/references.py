"""Which line an operator's client means when it edits, retracts, answers or reacts: it knows but its own ids.

Of operators' lines the rows of their deliveries hold them, for as long as these are kept (`tenants.delivery.worker`);
of visitors' lines the stanzas bore them (`tenants.conversations.stanza_ids`).
"""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import stanza_ids
from tenants.conversations.reports import OperatorMessage
from tenants.core.naming import Naming
from tenants.delivery.outbox import Event
from tenants.outbound import webhooks
from tenants.store.models import CallbackMessage, ChatLine, Conversation

_LINES = (Event.MESSAGE_CREATED, Event.INVITATION_CREATED, Event.MESSAGE_UPDATED)


class Writer(StrEnum):
    """Who wrote a line."""

    OPERATOR = "operator"
    VISITOR = "visitor"


@dataclass(frozen=True, slots=True)
class Meant:
    """A line as its tenant knows it. `message_id`: None if the tenant gave it none."""

    message_id: str | None
    written_by: Writer


async def own_line(session: AsyncSession, naming: Naming, message: OperatorMessage, reference: str) -> str | None:
    """The line that the operator wrote to the visitor under that id, as the bridge's id of the stanza that it came in.

    None if it is not known, or not any more.
    """
    if not reference:
        return None
    found = await session.scalar(
        select(CallbackMessage)
        .join(Conversation, Conversation.id == CallbackMessage.conversation_id)
        .where(
            Conversation.instance_name == message.receiver.instance,
            Conversation.receiver == naming.username(message.receiver),
            CallbackMessage.sender == naming.username(message.sender),
            CallbackMessage.event.in_(_LINES),
            or_(CallbackMessage.client_id == reference, CallbackMessage.other_id == reference),
        )
        # the latest: a client may begin anew with its ids
        .order_by(CallbackMessage.id.desc())
        .limit(1)
    )
    if found is None:
        return None
    # an edit's id stands for the line that was edited
    first: str = (found.detail or {}).get("changes", found.stanza_id)
    return first


async def any_line(session: AsyncSession, naming: Naming, message: OperatorMessage, reference: str) -> Meant | None:
    """The line of either of them that the operator's client knows under that id."""
    key = stanza_ids.line_key(reference)
    line = None if key is None else await session.get(ChatLine, key)
    if line is not None and _is_of(naming, line, message, reference):
        return Meant(line.message_id, Writer.VISITOR)
    if stanza_ids.is_of_visitor(reference):
        return Meant(None, Writer.VISITOR)
    own = await own_line(session, naming, message, reference)
    return None if own is None else Meant(webhooks.event_id(own), Writer.OPERATOR)


def _is_of(naming: Naming, line: ChatLine, message: OperatorMessage, reference: str) -> bool:
    """Whether the visitor wrote the line, and that very operator was sent it under that id."""
    was_sent = stanza_ids.is_of_line(reference, line, naming.username(message.sender))
    return was_sent and line.sender == naming.username(message.receiver)
