"""What a tenant is told: the events of its conversations, kept before anybody is told that we have them.

Each conversation's events are delivered one after another (`tenants.deliveries`). In the format `lhc` only messages of
operators are told, and what happens in rooms
are told, since its extension knows nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.database import rows_changed
from tenants.models import CallbackMessage, Conversation, EventFormat, MessageState, Tenant
from tenants.naming import AccountName, RoomName
from tenants.services import Services


class Event(StrEnum):
    """What has happened. Schemas are in `docs/webhooks.md`."""

    MESSAGE_CREATED = "message.created"
    """An operator wrote in a chat."""
    INVITATION_CREATED = "invitation.created"
    """An operator wrote to a visitor who has no chat."""
    CHAT_ACCEPTED = "chat.accepted"
    CHAT_TRANSFERRED = "chat.transferred"
    OPERATOR_CONNECTED = "operator.connected"
    OPERATOR_DISCONNECTED = "operator.disconnected"
    OPERATOR_PING = "operator.ping"
    TYPING = "typing"
    """An operator began or ceased to write."""
    MESSAGE_DELIVERED = "message.delivered"
    """An operator's client has a visitor's message."""
    MESSAGE_FAILED = "message.failed"
    """A visitor's message came back."""
    ROOM_MESSAGE = "room.message"
    """An operator wrote in a room of the tenant's."""
    ROOM_JOINED = "room.joined"
    ROOM_LEFT = "room.left"


MESSAGES = (Event.MESSAGE_CREATED, Event.INVITATION_CREATED)
"""They hold what an operator wrote to a visitor."""
IN_ROOMS = (Event.ROOM_MESSAGE, Event.ROOM_JOINED, Event.ROOM_LEFT)


@dataclass(frozen=True, slots=True)
class Happening:
    """An event of a conversation.

    Attributes:
        id: unique for ever; a repeat bears the same.
        operator: who did it, or whom it concerns.
        visitor: the visitor or chat whom the conversation is with, or the room that it is in.
    """

    event: Event
    id: str
    operator: AccountName
    visitor: AccountName | RoomName
    body: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


def is_told(tenant: Tenant, event: Event) -> bool:
    """Whether the tenant's format has such an event."""
    return tenant.event_format is EventFormat.WEBHOOK or event in (*MESSAGES, *IN_ROOMS)


async def note(services: Services, session: AsyncSession, happenings: list[Happening]) -> set[str]:
    """Keep events, in their order; repeats are dropped. Returns the tenants to be woken after the transaction."""
    now = services.clock()
    # always in the same order, so that two of these transactions never wait for each other
    visitors = sorted({one.visitor for one in happenings}, key=lambda one: _receiver(services, one))
    found = {visitor: await _conversation(services, session, visitor, now) for visitor in visitors}
    woken: set[str] = set()
    for one in happenings:
        conversation_id, newly_due = found[one.visitor]
        stored = await session.scalar(
            services.database.insert(CallbackMessage)
            .values(
                conversation_id=conversation_id,
                instance_name=one.visitor.instance,
                stanza_id=one.id,
                event=one.event,
                detail=dict(one.detail) or None,
                sender=services.naming.username(one.operator),
                receiver=_receiver(services, one.visitor),
                server=services.settings.xmpp_host,
                body=one.body,
                state=MessageState.PENDING,
                attempts=0,
                created_at=now,
            )
            .on_conflict_do_nothing(index_elements=["stanza_id"])
            .returning(CallbackMessage.id)
        )
        if newly_due and stored is not None:
            woken.add(one.visitor.instance)
    return woken


def _receiver(services: Services, visitor: AccountName | RoomName) -> str:
    """What LHC calls it. Should a room be named as a visitor is, the two share one line, which harms neither."""
    return visitor.name if isinstance(visitor, RoomName) else services.naming.username(visitor)


async def _conversation(
    services: Services, session: AsyncSession, visitor: AccountName | RoomName, now: float
) -> tuple[int, bool]:
    """The conversation's id, and whether it becomes due. It may be so already, and perhaps waits out a failure."""
    insert = services.database.insert(Conversation).values(
        instance_name=visitor.instance, receiver=_receiver(services, visitor)
    )
    upsert = insert.on_conflict_do_update(
        index_elements=["instance_name", "receiver"],
        # a change without effect: it locks the row, so that its holder does not give it back as empty meanwhile
        set_={"due_at": Conversation.due_at},
    ).returning(Conversation.id)
    conversation_id: int = (await session.execute(upsert)).scalar_one()
    newly_due = await session.execute(
        update(Conversation).where(Conversation.id == conversation_id, Conversation.due_at.is_(None)).values(due_at=now)
    )
    return conversation_id, bool(rows_changed(newly_due))
