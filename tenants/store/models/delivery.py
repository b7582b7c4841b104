"""What tenants' servers are to be told, and how the attempts went."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import JID_PART, Base, Claimable, text_enum

MAX_CLIENT_ID = 191
"""Characters of an id that operators' clients give to their messages. One that is longer is not kept."""


class MessageState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Conversation(Claimable, Base):
    """The messages of operators to one visitor or chat: delivered to LHC one after another."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("instance_name", "receiver"),
        Index("ix_conversations_instance_name_due_at", "instance_name", "due_at"),
    )
    LOCK_ORDER = ("instance_name", "receiver")

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    receiver: Mapped[str] = mapped_column(String(JID_PART))


class CallbackMessage(Base):
    """A message of an operator, stored before ejabberd is told that we have it; or another event of a conversation."""

    __tablename__ = "callback_messages"
    __table_args__ = (
        UniqueConstraint("stanza_id"),
        Index("ix_callback_messages_conversation_id_state", "conversation_id", "state"),
        Index("ix_callback_messages_instance_name_state_id", "instance_name", "state", "id"),
        # nearly all rows are delivered ones
        Index(
            "ix_callback_messages_undelivered",
            "state",
            "created_at",
            sqlite_where=text("state <> 'delivered'"),
            postgresql_where=text("state <> 'delivered'"),
        ),
        # by tenant: the few rows that only `tenants.status.attention` looks for
        Index(
            "ix_callback_messages_dead",
            "instance_name",
            "created_at",
            sqlite_where=text("state = 'dead'"),
            postgresql_where=text("state = 'dead'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    instance_name: Mapped[str] = mapped_column(String(63))
    stanza_id: Mapped[str] = mapped_column(String(191))
    """The bridge module's own id of the message; repeats of a message bear the same one."""
    sender: Mapped[str] = mapped_column(String(JID_PART))
    receiver: Mapped[str] = mapped_column(String(JID_PART))
    server: Mapped[str] = mapped_column(String(255))
    """Told by workers of versions that knew one host alone; now the tenant's row says it."""
    event: Mapped[str] = mapped_column(String(40), server_default="message.created")
    """What has happened; see `tenants.delivery.outbox`. The sender is who did it, the receiver whom the conversation is
    with."""
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the event says besides; small, and never what people wrote."""
    body: Mapped[str | None] = mapped_column(Text)
    """Removed once delivered: the row stays a while, so that a repeat is recognised."""
    client_id: Mapped[str | None] = mapped_column(String(MAX_CLIENT_ID))
    """What the operator's client calls the message; null when it does not."""
    other_id: Mapped[str | None] = mapped_column(String(MAX_CLIENT_ID))
    """What it may call it as well, when it refers to it later."""
    asks: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What that client asks for, of which resource (`tenants.delivery.outbox.Origin`); null: nothing."""
    state: Mapped[MessageState] = mapped_column(text_enum(MessageState))
    attempts: Mapped[int] = mapped_column(default=0)
    """Tries since it was stored, or since its last replay."""
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(index=True)
    finished_at: Mapped[float | None]


class DeliveryAttempt(Base):
    """One try to deliver a message, and what came of it. Lives as long as its message."""

    __tablename__ = "delivery_attempts"

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("callback_messages.id", ondelete="CASCADE"), index=True)
    at: Mapped[float]
    """When its outcome was known."""
    seconds: Mapped[float]
    http_status: Mapped[int | None]
    """Null when no status could be read."""
    error: Mapped[str | None] = mapped_column(Text)
    warning: Mapped[str | None] = mapped_column(Text)
    """What is strange about an answer that counts as received: a web page came, say, where LHC answers nothing."""


class Circuit(Claimable, Base):
    """A tenant's circuit breaker, made by its first failure; see `tenants.delivery.circuits`.

    Closed while `due_at` is null; else that is when the next probe may go. The claim is the probe under way.
    """

    __tablename__ = "circuits"

    instance_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    """Callbacks that failed one after another."""
    openings: Mapped[int] = mapped_column(default=0)
    """Times it opened without a success between them."""
    opened_at: Mapped[float | None]
    """When the first of these openings was."""


class OperatorPresence(Claimable, Base):
    """The latest presence of an operator and the callback that LHC is still to get of it: one, never a queue."""

    __tablename__ = "operator_presences"
    __table_args__ = (Index("ix_operator_presences_instance_name_due_at", "instance_name", "due_at"),)

    username: Mapped[str] = mapped_column(String(JID_PART), primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    online: Mapped[bool]
    pending: Mapped[str | None] = mapped_column(Text)
    """The body of the callback that is due."""
    retried: Mapped[bool] = mapped_column(default=False)
    """Whether the pending callback is worth a retry: a coming or going is, a ping is not."""
    version: Mapped[int] = mapped_column(default=0)
    """Grows with each new callback, so that a delivery never clears a newer one."""
    attempts: Mapped[int] = mapped_column(default=0)
    refused_at: Mapped[float | None]
    """When the server began to refuse this operator's presence; None: the last one passed, or none was refused."""
