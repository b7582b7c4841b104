"""Chats, what was said in them, and what came back."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.core.naming import MAX_ID_DIGITS
from tenants.store.models.base import JID_PART, Base, text_enum


class ChatState(StrEnum):
    PENDING = "pending"
    """Nobody has answered yet."""
    OWNED = "owned"
    CLOSED = "closed"


class LineState(StrEnum):
    """What became of a line that a visitor wrote."""

    WAITING = "waiting"
    """For an operator who may take the chat."""
    SENT = "sent"
    UNCONFIRMED = "unconfirmed"
    """It was sent a while ago, and no client has said that it has it. Shown (`ChatLine.state_at`), never stored."""
    DELIVERED = "delivered"
    """An operator's client said so (XEP-0184)."""
    FAILED = "failed"
    """It came back."""
    RETRACTED = "retracted"
    """The visitor took it back."""


_CONFIRMED_WITHIN = 300.0
"""Seconds: a client that is there says so within three; one that hangs is disconnected within two minutes."""


class Chat(Base):
    """A chat as the rules of `tenants.conversations.chats` know it."""

    __tablename__ = "chats"
    __table_args__ = (
        UniqueConstraint("instance_name", "chat_id"),
        Index(
            "uq_chats_open",
            "username",
            unique=True,
            sqlite_where=text("state <> 'closed'"),
            postgresql_where=text("state <> 'closed'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    chat_id: Mapped[str] = mapped_column(String(MAX_ID_DIGITS))
    """LHC's own number of the chat."""
    username: Mapped[str] = mapped_column(String(JID_PART))
    """The account that it is spoken from: the visitor's, or one made for it. An account has one open chat at most."""
    nick: Mapped[str] = mapped_column(Text)
    department: Mapped[str | None] = mapped_column(String(100))
    """None: operators of all departments may take it."""
    owner: Mapped[str | None] = mapped_column(String(JID_PART))
    """The operator who has it."""
    accepted_by: Mapped[str | None] = mapped_column(String(191))
    """The id of the message, or of the request, by which it got its owner."""
    state: Mapped[ChatState] = mapped_column(text_enum(ChatState))
    created_at: Mapped[float]
    pending_since: Mapped[float]
    """When it was last without an owner: what was said since then is for whoever may take it."""
    accepted_at: Mapped[float | None]
    closed_at: Mapped[float | None]


class ChatLine(Base):
    """What was said in a chat: by the visitor, until it has arrived; by anybody, while the tenant keeps history."""

    __tablename__ = "chat_lines"
    __table_args__ = (
        UniqueConstraint("chat_id", "message_id"),
        Index("ix_chat_lines_chat_id_id", "chat_id", "id"),
        Index(
            "ix_chat_lines_waiting",
            "created_at",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    message_id: Mapped[str] = mapped_column(String(191))
    """What the tenant calls it, within its chat; or ours."""
    sender: Mapped[str] = mapped_column(String(JID_PART))
    body: Mapped[str | None] = mapped_column(Text)
    """Removed when it has arrived and nothing is kept: the row stays a while for its receipts."""
    state: Mapped[LineState] = mapped_column(text_enum(LineState))
    sent_to: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
    """The operators whom it was sent to."""
    created_at: Mapped[float] = mapped_column(index=True)
    arrived_at: Mapped[float | None]

    def state_at(self, now: float) -> LineState:
        """The state as it is shown at that time. What an operator wrote (`sent_to` is empty) nobody confirms."""
        waits = self.state is LineState.SENT and bool(self.sent_to)
        return LineState.UNCONFIRMED if waits and now > self.created_at + _CONFIRMED_WITHIN else self.state


class ReturnedMessage(Base):
    """A visitor's message that came back from ejabberd as an error: it did not reach the operator."""

    __tablename__ = "returned_messages"
    __table_args__ = (
        UniqueConstraint("stanza_id"),
        Index(
            "ix_returned_messages_waiting",
            "instance_name",
            "created_at",
            sqlite_where=text("replayed_at IS NULL"),
            postgresql_where=text("replayed_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    stanza_id: Mapped[str] = mapped_column(String(191))
    """The bridge module's own id of the report; repeats of a report bear the same one."""
    message_id: Mapped[str] = mapped_column(String(191))
    """The id that the message bore on its way to the operator."""
    visitor: Mapped[str] = mapped_column(String(JID_PART))
    operator: Mapped[str] = mapped_column(String(JID_PART))
    body: Mapped[str] = mapped_column(Text)
    condition: Mapped[str] = mapped_column(String(50))
    """The error's condition (RFC 6120, 8.3.3)."""
    reason: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float] = mapped_column(index=True)
    replayed_at: Mapped[float | None]
    """When it was sent again; should it come back once more, that is a row of its own."""
