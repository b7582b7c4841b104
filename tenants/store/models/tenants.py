"""Tenants as the registry knows them, with their settings."""

from enum import StrEnum

from sqlalchemy import String, false, true
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import INCARNATION, Base, new_incarnation, text_enum


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


class Tenant(Base):
    __tablename__ = "tenants"

    instance_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    incarnation: Mapped[str] = mapped_column(INCARNATION, default=new_incarnation, server_default="")
    """Another one each time that a tenant of this name is made; what is issued to the tenant is bound to it."""
    state: Mapped[TenantState] = mapped_column(text_enum(TenantState))
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
    routing: Mapped[Routing] = mapped_column(text_enum(Routing), server_default=Routing.LHC.value)
    owner_offline: Mapped[OwnerOffline] = mapped_column(
        text_enum(OwnerOffline), server_default=OwnerOffline.STORE.value
    )
    history_hours: Mapped[float] = mapped_column(default=0, server_default="0")
    """How long what was said in a chat is kept after it has arrived."""
    event_format: Mapped[EventFormat] = mapped_column(text_enum(EventFormat), server_default=EventFormat.LHC.value)
    live_view: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether support may see at the console what is said while it passes by; see `tenants.conversations.live_view`."""
    signing_version: Mapped[int] = mapped_column(default=1, server_default="1")
    """Which of its signing keys webhooks are signed with; see `tenants.outbound.webhooks`."""
    previous_signing_until: Mapped[float | None]
    """Until then they are signed with the key before it, too."""
    created_at: Mapped[float]
    updated_at: Mapped[float]
