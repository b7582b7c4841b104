"""Group chats of operators."""

from enum import StrEnum

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from tenants.core.naming import MAX_ROOM
from tenants.store.models.base import JID_PART, Base, text_enum

ROOMS_BY_DEFAULT = 200
"""Rooms of a tenant for which nothing else was set."""


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
    """A group chat of a tenant's operators. ejabberd has the same rooms, except while one is being made or removed."""

    __tablename__ = "rooms"
    __table_args__ = (UniqueConstraint("instance_name", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    instance_name: Mapped[str] = mapped_column(ForeignKey("tenants.instance_name"))
    name: Mapped[str] = mapped_column(String(MAX_ROOM))
    """As LHC knows it: without the instance."""
    title: Mapped[str] = mapped_column(Text)
    origin: Mapped[RoomOrigin] = mapped_column(text_enum(RoomOrigin))
    state: Mapped[RoomState] = mapped_column(text_enum(RoomState))
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
