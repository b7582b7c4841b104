"""Accounts in ejabberd, what operators are for, and which visitors are online."""

from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String, Text, text, true
from sqlalchemy.orm import Mapped, mapped_column

from tenants.core.naming import AccountKind
from tenants.store.models.base import INCARNATION, JID_PART, Base, new_incarnation, text_enum


class AccountState(StrEnum):
    """`pending`: ejabberd may or may not have it yet; `active`: it has it; `removing`: it has it for a moment more."""

    PENDING = "pending"
    ACTIVE = "active"
    REMOVING = "removing"


class Account(Base):
    """An account in ejabberd that belongs to a tenant."""

    __tablename__ = "accounts"
    __table_args__ = (
        # a handful among all visitors' accounts
        Index(
            "ix_accounts_operators",
            "instance_name",
            "username",
            sqlite_where=text("kind = 'operator'"),
            postgresql_where=text("kind = 'operator'"),
        ),
    )

    username: Mapped[str] = mapped_column(String(JID_PART), primary_key=True)
    incarnation: Mapped[str] = mapped_column(INCARNATION, default=new_incarnation, server_default="")
    """Another one each time that an account of this name is made."""
    instance_name: Mapped[str] = mapped_column(ForeignKey("tenants.instance_name"), index=True)
    kind: Mapped[AccountKind] = mapped_column(text_enum(AccountKind))
    state: Mapped[AccountState] = mapped_column(text_enum(AccountState))
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
