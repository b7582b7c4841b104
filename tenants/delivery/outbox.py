"""What a tenant is told: the events of its conversations, kept before anybody is told that we have them.

Each conversation's events are delivered one after another (`tenants.delivery.worker`). In the format `lhc` only what
operators say to visitors and what happens in rooms is told, since its extension knows nothing else.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.naming import AccountName, Naming, RoomName
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.json_rows import ROWS, value
from tenants.store.models import (
    MAX_CLIENT_ID,
    CallbackMessage,
    Conversation,
    EventFormat,
    MessageState,
    Tenant,
)

Reason = TypeVar("Reason")


class Event(StrEnum):
    """What has happened. Schemas are in `docs/webhooks.md`."""

    MESSAGE_CREATED = "message.created"
    """An operator wrote in a chat."""
    INVITATION_CREATED = "invitation.created"
    """An operator wrote to a visitor who has no chat."""
    MESSAGE_UPDATED = "message.updated"
    """An operator wrote something else in the place of an earlier line."""
    MESSAGE_RETRACTED = "message.retracted"
    MESSAGE_REACTION = "message.reaction"
    """An operator reacted to a line, or takes that back."""
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
ABOUT_LINES = (Event.MESSAGE_UPDATED, Event.MESSAGE_RETRACTED, Event.MESSAGE_REACTION)
"""They are about what was written before."""
IN_ROOMS = (Event.ROOM_MESSAGE, Event.ROOM_JOINED, Event.ROOM_LEFT)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operator's message comes from, and what is asked there.

    Attributes:
        message_id: what the client calls it; empty when it does not.
        resource: the client's.
        wants_receipt: the client asks to be told that it has arrived (XEP-0184).
        is_markable: the client takes markers of how far it has come (XEP-0333).
    """

    message_id: str = ""
    resource: str = ""
    wants_receipt: bool = False
    is_markable: bool = False

    @property
    def known_id(self) -> str | None:
        """The id, unless there is none or it is longer than anything that we keep."""
        return self.message_id if 0 < len(self.message_id) <= MAX_CLIENT_ID else None

    @property
    def asks(self) -> dict[str, Any] | None:
        """What is asked, as it is kept with the event. None: nothing that could be answered."""
        if self.known_id is None or not (self.wants_receipt or self.is_markable):
            return None
        return {"resource": self.resource, "receipt": self.wants_receipt, "markers": self.is_markable}


NO_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class ConversationEvent:
    """An event of a conversation.

    Attributes:
        id: unique for ever; a repeat bears the same.
        operator: who did it, or whom it concerns.
        visitor: the visitor or chat whom the conversation is with, or the room that it is in.
        origin: where it comes from, when it is something that an operator wrote.
        other_id: what the operator's client may call the line as well.
    """

    event: Event
    id: str
    operator: AccountName
    visitor: AccountName | RoomName
    body: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = NO_ORIGIN
    other_id: str | None = None


def is_told(tenant: Tenant, event: Event) -> bool:
    """Whether the tenant's format has such an event."""
    return tenant.event_format is EventFormat.WEBHOOK or event in (*MESSAGES, *ABOUT_LINES, *IN_ROOMS)


async def note(services: Services, session: AsyncSession, events: Sequence[ConversationEvent]) -> set[str]:
    """Keep events, in their order; repeats are dropped. Returns the tenants to be woken after the transaction."""
    if not events:
        return set()
    now = services.clock()
    conversations = await _conversations(services, session, {one.visitor for one in events})
    rows = [_row(services, one, conversations[_key(services.naming, one.visitor)], now) for one in events]
    connection = await session.connection()
    stored = await connection.execute(
        services.database.insert(CallbackMessage)
        .on_conflict_do_nothing(index_elements=["stanza_id"])
        .returning(CallbackMessage.__table__.c.conversation_id),
        rows,
    )
    ids = {conversation_id for (conversation_id,) in stored}
    # conversations that are due already need no wake-up: they are delivered now or soon, or wait for a retry
    newly_due = {one.id: one.instance_name for one in conversations.values() if one.due_at is None and one.id in ids}
    if newly_due:
        await session.execute(
            update(Conversation)
            .where(Conversation.id.in_(newly_due))
            .values(due_at=now)
            .execution_options(synchronize_session=False)
        )
    return set(newly_due.values())


async def without_repeats(session: AsyncSession, refused: Mapping[str, Reason]) -> dict[str, Reason]:
    """Reasons by stanza ids, without those that are kept already.

    They come again because their acknowledgement was lost, and are delivered: nobody may be told that they are not.
    """
    if not refused:
        return {}
    kept = await session.scalars(select(CallbackMessage.stanza_id).where(CallbackMessage.stanza_id.in_(refused)))
    return {stanza_id: refused[stanza_id] for stanza_id in refused.keys() - set(kept)}


@dataclass(frozen=True, slots=True)
class _Conversation:
    id: int
    instance_name: str
    due_at: float | None


async def _conversations(
    services: Services, session: AsyncSession, visitors: Collection[AccountName | RoomName]
) -> dict[tuple[str, str], _Conversation]:
    """The conversations with these, locked, so that none is given back as empty meanwhile; made when there is none."""
    keys = [_key(services.naming, visitor) for visitor in visitors]
    connection = await session.connection()
    rows = await connection.execute(
        _upsert_conversations(services.database), {"rows": {f"{key[0]}/{key[1]}": list(key) for key in keys}}
    )
    return {(row.instance_name, row.receiver): _Conversation(row.id, row.instance_name, row.due_at) for row in rows}


@functools.lru_cache(maxsize=16)
def _upsert_conversations(database: Database) -> Any:
    insert = database.insert(Conversation).from_select(
        ["instance_name", "receiver"],
        select(value(0), value(1)).select_from(ROWS).where(true()).order_by(value(0), value(1)),
    )
    # a change without effect: it locks the row
    upsert = insert.on_conflict_do_update(
        index_elements=["instance_name", "receiver"], set_={"due_at": Conversation.due_at}
    )
    columns = Conversation.__table__.c
    return upsert.returning(columns.id, columns.instance_name, columns.receiver, columns.due_at)


def _key(naming: Naming, visitor: AccountName | RoomName) -> tuple[str, str]:
    return visitor.instance, _receiver(naming, visitor)


def _receiver(naming: Naming, visitor: AccountName | RoomName) -> str:
    """What LHC calls it. A room and a visitor of the same name share a conversation row, which does no harm."""
    return visitor.name if isinstance(visitor, RoomName) else naming.username(visitor)


def _row(services: Services, one: ConversationEvent, conversation: _Conversation, now: float) -> dict[str, Any]:
    return {
        "conversation_id": conversation.id,
        "instance_name": conversation.instance_name,
        "stanza_id": one.id,
        "event": one.event,
        "detail": dict(one.detail) or None,
        "sender": services.naming.username(one.operator),
        "receiver": _receiver(services.naming, one.visitor),
        "server": services.settings.xmpp_host,
        "body": one.body,
        "client_id": one.origin.known_id,
        "other_id": one.other_id,
        "asks": one.origin.asks,
        "state": MessageState.PENDING,
        "attempts": 0,
        "created_at": now,
    }
