"""The registry's tables. All times are Unix seconds (float), so that clocks can be passed in and compared anywhere."""

import secrets
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Enum, ForeignKey, Index, MetaData, String, Text, UniqueConstraint, false, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenants.core.naming import MAX_ID_DIGITS, MAX_ROOM, AccountKind

JID_PART = 191
"""Longest local part that ejabberd's SQL schemas hold; names are far shorter, this bounds foreign input."""


MAX_ID = 2**31 - 1
"""Largest id that the integer columns of every database hold."""


def new_incarnation() -> str:
    """What tells one tenant, or account, from another that bears its name before or after it.

    Empty of those that were there before incarnations were.
    """
    return secrets.token_hex(16)


_INCARNATION = String(32)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _text_enum(enum: type[StrEnum]) -> Enum:
    """Enums are stored as their lower-case values, in plain text columns: readable, and extended without DDL."""
    return Enum(enum, native_enum=False, length=16, values_callable=lambda e: [member.value for member in e])


class TenantState(StrEnum):
    """Which may follow which stands in `tenants.lifecycle.states`."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    FAILED = "failed"
    """It could not be provisioned, or that was cancelled."""


class AccountState(StrEnum):
    """`pending`: ejabberd may or may not have it yet; `active`: it has it; `removing`: it has it for a moment more."""

    PENDING = "pending"
    ACTIVE = "active"
    REMOVING = "removing"


class OperationKind(StrEnum):
    PROVISION = "provision"
    SUSPEND = "suspend"
    RESUME = "resume"
    DESTROY = "destroy"
    CHANGE_ADDRESS = "change_address"
    ROTATE_KEYS = "rotate_keys"
    IMPORT = "import"
    RECONCILE = "reconcile"


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (OperationState.PENDING, OperationState.RUNNING, OperationState.PAUSED)


class Wanted(StrEnum):
    """What a person wants of an operation that is under way; done between two steps, or two chunks of one."""

    PAUSE = "pause"
    CANCEL = "cancel"


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class MessageState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Routing(StrEnum):
    """Who decides which operator a visitor's message goes to."""

    LHC = "lhc"
    """LHC names the operator, and is told of every operator's message."""
    ORCHESTRATOR = "orchestrator"
    """The rules of `tenants.conversations.chats`."""


class EventFormat(StrEnum):
    """How a tenant is told of events."""

    LHC = "lhc"
    """As LHC's extension expects it: operators' messages and presence."""
    WEBHOOK = "webhook"
    """All events as JSON, signed as Standard Webhooks."""


class OwnerOffline(StrEnum):
    """What becomes of a visitor's message when the chat's owner is offline."""

    STORE = "store"
    """It waits for the owner in ejabberd's offline storage."""
    RELEASE = "release"
    """The chat goes back to its department."""


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
    DELIVERED = "delivered"
    """An operator's client said so (XEP-0184)."""
    FAILED = "failed"
    """It came back."""


class Claimable:
    """A row of work that one process at a time may take; see `tenants.store.claims`."""

    due_at: Mapped[float | None] = mapped_column(index=True)
    """When the work is to be done; nothing to do when null."""
    claimed_until: Mapped[float | None]
    """The claim of a process that died ends by itself at this time."""
    claim_token: Mapped[str | None] = mapped_column(String(32))


class Tenant(Base):
    __tablename__ = "tenants"

    instance_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    incarnation: Mapped[str] = mapped_column(_INCARNATION, default=new_incarnation, server_default="")
    """Another one each time that a tenant of this name is made; what is issued to the tenant is bound to it."""
    state: Mapped[TenantState] = mapped_column(_text_enum(TenantState))
    key_digest: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the tenant's own key, which is random and long; the key itself is shown once and never stored."""
    previous_key_digest: Mapped[str | None] = mapped_column(String(64))
    """The key before the last rotation, which opens until `previous_key_until`."""
    previous_key_until: Mapped[float | None]
    callback_url: Mapped[str | None] = mapped_column(String(2000))
    online_seconds: Mapped[float]
    idle_hours: Mapped[float]
    xmpp: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether the tenant may use XMPP at all (`full_xmpp_chat_supported` of the old system)."""
    visitor_tracking: Mapped[bool] = mapped_column(default=True, server_default=true())
    """Whether operators see visitors who did not begin a chat (`full_xmpp_visitors_tracking` of the old system)."""
    max_accounts: Mapped[int | None]
    """Quotas; None is no limit."""
    max_online_visitors: Mapped[int | None]
    calls_per_second: Mapped[float | None]
    max_rooms: Mapped[int | None]
    max_waiting_messages: Mapped[int | None]
    """Messages of operators that may wait for its server; None is as many as anybody may
    (`tenants.process.backlog`)."""
    routing: Mapped[Routing] = mapped_column(_text_enum(Routing), server_default=Routing.LHC.value)
    owner_offline: Mapped[OwnerOffline] = mapped_column(
        _text_enum(OwnerOffline), server_default=OwnerOffline.STORE.value
    )
    history_hours: Mapped[float] = mapped_column(default=0, server_default="0")
    """How long what was said in a chat is kept after it has arrived."""
    event_format: Mapped[EventFormat] = mapped_column(_text_enum(EventFormat), server_default=EventFormat.LHC.value)
    live_view: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether support may see at the console what is said while it passes by; see `tenants.conversations.live_view`."""
    signing_version: Mapped[int] = mapped_column(default=1, server_default="1")
    """Which of its signing keys webhooks are signed with; see `tenants.outbound.webhooks`."""
    previous_signing_until: Mapped[float | None]
    """Until then they are signed with the key before it, too."""
    created_at: Mapped[float]
    updated_at: Mapped[float]


class Account(Base):
    """An account in ejabberd that belongs to a tenant."""

    __tablename__ = "accounts"

    username: Mapped[str] = mapped_column(String(JID_PART), primary_key=True)
    incarnation: Mapped[str] = mapped_column(_INCARNATION, default=new_incarnation, server_default="")
    """Another one each time that an account of this name is made."""
    instance_name: Mapped[str] = mapped_column(ForeignKey("tenants.instance_name"), index=True)
    kind: Mapped[AccountKind] = mapped_column(_text_enum(AccountKind))
    state: Mapped[AccountState] = mapped_column(_text_enum(AccountState))
    password_digest: Mapped[str | None] = mapped_column(String(64))
    """Visitors and chats only, whose passwords are random: it lets a page view be checked without asking ejabberd."""
    created_at: Mapped[float]
    last_active_at: Mapped[float] = mapped_column(index=True)


class Operator(Base):
    """What an operator's account is for. An operator without such a row takes chats of all departments."""

    __tablename__ = "operators"

    username: Mapped[str] = mapped_column(ForeignKey("accounts.username", ondelete="CASCADE"), primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    lhc_user_id: Mapped[int | None]
    """LHC's own number of the operator."""
    nick: Mapped[str | None] = mapped_column(Text)
    departments: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """None: all of them."""
    receives_new_chats: Mapped[bool] = mapped_column(default=True, server_default=true())


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
    state: Mapped[ChatState] = mapped_column(_text_enum(ChatState))
    created_at: Mapped[float]
    pending_since: Mapped[float]
    """When it was last without an owner: what was said since then is for whoever may take it."""
    accepted_at: Mapped[float | None]
    closed_at: Mapped[float | None]


class ChatLine(Base):
    """What was said in a chat: by the visitor, until it has arrived; by anybody, while the tenant keeps history."""

    __tablename__ = "chat_lines"
    __table_args__ = (
        UniqueConstraint("instance_name", "message_id"),
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
    sender: Mapped[str] = mapped_column(String(JID_PART))
    body: Mapped[str | None] = mapped_column(Text)
    """Removed when it has arrived and nothing is kept: the row stays a while for its receipts."""
    state: Mapped[LineState] = mapped_column(_text_enum(LineState))
    sent_to: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
    """The operators whom it was sent to."""
    created_at: Mapped[float] = mapped_column(index=True)
    arrived_at: Mapped[float | None]


class RoomOrigin(StrEnum):
    """Who asked for a room."""

    LHC = "lhc"
    """LHC's extension, by XML-RPC."""
    API = "api"


class RoomState(StrEnum):
    """`pending`: ejabberd may or may not have it yet; `active`: it has it; `removing`: for a moment more."""

    PENDING = "pending"
    ACTIVE = "active"
    REMOVING = "removing"


class Room(Base):
    """A group chat of a tenant's operators. ejabberd has what stands here, but for a moment."""

    __tablename__ = "rooms"
    __table_args__ = (UniqueConstraint("instance_name", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(ForeignKey("tenants.instance_name"))
    name: Mapped[str] = mapped_column(String(MAX_ROOM))
    """As LHC knows it: without the instance."""
    title: Mapped[str] = mapped_column(Text)
    origin: Mapped[RoomOrigin] = mapped_column(_text_enum(RoomOrigin))
    state: Mapped[RoomState] = mapped_column(_text_enum(RoomState))
    created_at: Mapped[float]
    changed_at: Mapped[float]
    """When it came into its state."""

    members: Mapped[list["RoomMember"]] = relationship(order_by="RoomMember.username", lazy="selectin")


class RoomMember(Base):
    """Who is to be in a room, and the name that is shown there."""

    __tablename__ = "room_members"

    room_id: Mapped[int] = mapped_column(ForeignKey("rooms.id", ondelete="CASCADE"), primary_key=True)
    username: Mapped[str] = mapped_column(String(JID_PART), primary_key=True)
    """An operator's account; or `[name].operator`, who has none and writes in LHC's page."""
    nick: Mapped[str] = mapped_column(Text)


class VisitorSession(Base):
    """A visitor that operators may see as online. The row goes when the operators were told that the visitor left."""

    __tablename__ = "visitor_sessions"

    username: Mapped[str] = mapped_column(String(JID_PART), primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    nick: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    online_until: Mapped[float]
    version: Mapped[int] = mapped_column(default=1, server_default="1")
    """Grows with each change: commands may come twice, late, or from two API processes at once."""


EVERY_TENANT = "*"
"""In the place of an instance name: an operation that concerns all tenants."""


class Operation(Claimable, Base):
    """One run of a workflow on one tenant. Outlives its tenant: it is the record of what was done."""

    __tablename__ = "operations"
    __table_args__ = (
        Index(
            "uq_operations_unfinished",
            "instance_name",
            "kind",
            unique=True,
            sqlite_where=text("state IN ('pending', 'running', 'paused')"),
            postgresql_where=text("state IN ('pending', 'running', 'paused')"),
        ),
        Index("ix_operations_created_at_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63), index=True)
    kind: Mapped[OperationKind] = mapped_column(_text_enum(OperationKind))
    state: Mapped[OperationState] = mapped_column(_text_enum(OperationState))
    requested_by: Mapped[str] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    """Why it was asked for, in the words of who did."""
    bulk_id: Mapped[str | None] = mapped_column(String(32), index=True)
    """Shared by the operations that one request made for many tenants."""
    input: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict, server_default="{}")
    """What the workflow was given. Never a password or key, only digests and verifiers; emptied when it is over."""
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the workflow found out; small."""
    wanted: Mapped[Wanted | None] = mapped_column(_text_enum(Wanted))
    error: Mapped[str | None] = mapped_column(Text)
    celery_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[float]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]

    steps: Mapped[list["OperationStep"]] = relationship(order_by="OperationStep.position", lazy="selectin")


class OperationStep(Base):
    __tablename__ = "operation_steps"

    operation_id: Mapped[str] = mapped_column(ForeignKey("operations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    state: Mapped[StepState] = mapped_column(_text_enum(StepState))
    attempts: Mapped[int] = mapped_column(default=0)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=1)
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class AuditEntry(Base):
    """Who did what to which tenant, when and why. Never changed, never removed with the tenant."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_instance_name_id", "instance_name", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(40))
    instance_name: Mapped[str | None] = mapped_column(String(63))
    operation_id: Mapped[str | None] = mapped_column(String(32))
    old_state: Mapped[TenantState | None] = mapped_column(_text_enum(TenantState))
    new_state: Mapped[TenantState | None] = mapped_column(_text_enum(TenantState))
    reason: Mapped[str | None] = mapped_column(Text)


class Scope(StrEnum):
    """What the bearer of a token may do."""

    METRICS = "metrics"
    """Read `/metrics`, and nothing else."""
    PANEL_READ = "panel:read"
    """Read what is kept of all tenants, but not what people said."""
    PANEL_MESSAGES = "panel:messages"
    """The same, and what people said."""
    PANEL_WRITE = "panel:write"
    """All of it, and change it."""
    TENANT = "tenant"
    """Act for one tenant, and read what is its own."""


PANEL_SCOPES = frozenset({Scope.PANEL_READ, Scope.PANEL_MESSAGES, Scope.PANEL_WRITE})
"""Of those who look at all tenants."""


class Token(Base):
    """A bearer token of the API. The token itself is shown once and never stored."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    """Whose it is; the actor of what is done with it."""
    digest: Mapped[str] = mapped_column(String(64))
    scope: Mapped[Scope] = mapped_column(_text_enum(Scope))
    instance_name: Mapped[str | None] = mapped_column(String(63), index=True)
    """Of scope `tenant`: the one tenant it opens."""
    incarnation: Mapped[str] = mapped_column(_INCARNATION, default="", server_default="")
    """That tenant's, when the token was made."""
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class IdempotentRequest(Base):
    """The answer to a `POST` with an `Idempotency-Key`, given again when the request is repeated."""

    __tablename__ = "idempotent_requests"

    actor: Mapped[str] = mapped_column(String(100), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of method, path and body: the same key with another request is a mistake."""
    status: Mapped[int | None]
    """None while the first request is under way."""
    headers: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    body: Mapped[str | None] = mapped_column(Text)
    """Without secrets: those are shown once."""
    created_at: Mapped[float] = mapped_column(index=True)


class Drift(Base):
    """A difference between the registry and ejabberd, as the last comparison saw it."""

    __tablename__ = "drift"
    __table_args__ = (UniqueConstraint("instance_name", "kind", "subject"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(255))
    """The account or shared roster that differs."""
    found_at: Mapped[float]
    mended_at: Mapped[float | None]
    """None: reported only, because it was a dry run or because a person must decide."""
    detail: Mapped[str | None] = mapped_column(Text)


class Conversation(Claimable, Base):
    """The messages of operators to one visitor or chat: delivered to LHC one after another."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("instance_name", "receiver"),
        Index("ix_conversations_instance_name_due_at", "instance_name", "due_at"),
    )

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
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"))
    instance_name: Mapped[str] = mapped_column(String(63))
    stanza_id: Mapped[str] = mapped_column(String(191))
    """The bridge module's own id of the message; repeats of a message bear the same one."""
    sender: Mapped[str] = mapped_column(String(JID_PART))
    receiver: Mapped[str] = mapped_column(String(JID_PART))
    server: Mapped[str] = mapped_column(String(255))
    event: Mapped[str] = mapped_column(String(40), server_default="message.created")
    """What has happened; see `tenants.delivery.outbox`. The sender is who did it, the receiver whom the conversation is
    with."""
    detail: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the event says besides; small, and never what people wrote."""
    body: Mapped[str | None] = mapped_column(Text)
    """Removed once delivered: the row stays a while, so that a repeat is recognised."""
    state: Mapped[MessageState] = mapped_column(_text_enum(MessageState))
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
    """Null when no answer came."""
    error: Mapped[str | None] = mapped_column(Text)


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


class ReturnedMessage(Base):
    """A visitor's message that came back from ejabberd as an error: it did not reach the operator."""

    __tablename__ = "returned_messages"
    __table_args__ = (UniqueConstraint("stanza_id"),)

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


class PoolMember(Base):
    """A pool process that can serve shards, as long as it says so."""

    __tablename__ = "pool_members"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    alive_until: Mapped[float]


class ShardLease(Base):
    """Which pool process serves a shard, and until when; see `tenants.process.leases`."""

    __tablename__ = "shard_leases"

    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    owner: Mapped[str | None] = mapped_column(String(64), index=True)
    """None when its last holder let it go in good order."""
    expires_at: Mapped[float]
    token: Mapped[int]
    """Grows each time the shard is taken: who holds an older one acts no more (a fencing token)."""


class Heartbeat(Base):
    """A sign of life of a process that does work, written by the very path that does the work."""

    __tablename__ = "heartbeats"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    at: Mapped[float]


class Role(StrEnum):
    """What a person at the console may do; each may what the one before may."""

    VIEWER = "viewer"
    """See everything but what people say."""
    SUPPORT = "support"
    """Replay, retry, disconnect operators."""
    MANAGER = "manager"
    """Add and invite operators. Who makes an invitation could use it, and then reads what that operator reads."""
    ADMIN = "admin"
    """Make and end tenants, and let others in."""


class ConsoleUser(Base):
    """A person who may log in at the console."""

    __tablename__ = "console_users"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    role: Mapped[Role] = mapped_column(_text_enum(Role))
    password_hash: Mapped[str] = mapped_column(String(200))
    """Argon2id, with its parameters."""
    created_at: Mapped[float]
    changed_at: Mapped[float]
    """When role or password last changed: sessions that began before are over."""


class ConsoleSession(Base):
    """Somebody who is logged in at the console: a person, the bearer of a panel token, or of a login link."""

    __tablename__ = "console_sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Of the cookie."""
    actor: Mapped[str] = mapped_column(String(100))
    """As the audit log names who it is."""
    role: Mapped[Role] = mapped_column(_text_enum(Role))
    user_name: Mapped[str | None] = mapped_column(ForeignKey("console_users.name", ondelete="CASCADE"), index=True)
    token_id: Mapped[str | None] = mapped_column(ForeignKey("tokens.id", ondelete="CASCADE"), index=True)
    secret_digest: Mapped[str | None] = mapped_column(String(64))
    """Of the settings' panel token, when that was presented: the session ends when the settings have another one."""
    address: Mapped[str | None] = mapped_column(String(45))
    """Where it was begun from."""
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)

    @property
    def id(self) -> str:
        """As people name it."""
        return self.digest[:12]


class Purpose(StrEnum):
    """What a link opens, once."""

    LOGIN = "login"
    """The console."""
    ONBOARDING = "onboarding"
    """The page on which an operator sets a password."""


class OneTimeLink(Base):
    """A link that opens something once, for a while."""

    __tablename__ = "one_time_links"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    purpose: Mapped[Purpose] = mapped_column(_text_enum(Purpose))
    role: Mapped[Role | None] = mapped_column(_text_enum(Role))
    """Of who logs in by it."""
    instance_name: Mapped[str | None] = mapped_column(String(63), index=True)
    operator: Mapped[str | None] = mapped_column(String(JID_PART))
    """Whom it is for: a username without the instance."""
    incarnation: Mapped[str] = mapped_column(_INCARNATION, default="", server_default="")
    """That operator's account's, when the link was made."""
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)


class TrafficMinute(Base):
    """How many messages went through in a minute of all tenants, both ways; kept for a few hours."""

    __tablename__ = "traffic_minutes"

    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of Unix time."""
    to_operators: Mapped[int]
    to_visitors: Mapped[int]
