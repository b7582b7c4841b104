"""Who may call the API or log in at the console."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import INCARNATION, JID_PART, Base, text_enum


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
    scope: Mapped[Scope] = mapped_column(text_enum(Scope))
    instance_name: Mapped[str | None] = mapped_column(String(63), index=True)
    """Of scope `tenant`: the one tenant it opens."""
    incarnation: Mapped[str] = mapped_column(INCARNATION, default="", server_default="")
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
    role: Mapped[Role] = mapped_column(text_enum(Role))
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
    role: Mapped[Role] = mapped_column(text_enum(Role))
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
    purpose: Mapped[Purpose] = mapped_column(text_enum(Purpose))
    role: Mapped[Role | None] = mapped_column(text_enum(Role))
    """Of who logs in by it."""
    instance_name: Mapped[str | None] = mapped_column(String(63), index=True)
    operator: Mapped[str | None] = mapped_column(String(JID_PART))
    """Whom it is for: a username without the instance."""
    incarnation: Mapped[str] = mapped_column(INCARNATION, default="", server_default="")
    """That operator's account's, when the link was made."""
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[float]
    expires_at: Mapped[float] = mapped_column(index=True)
