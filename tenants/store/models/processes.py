"""Processes: who is alive, who serves which shard, how much went through."""

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from tenants.store.models.base import Base


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
    batches: Mapped[dict[str, dict[str, float]] | None] = mapped_column(JSON(none_as_null=True))
    """How busy its batches were then, by their names: the attributes of `BatchFigures`."""


class TrafficMinute(Base):
    """How many messages went through in a minute of all tenants, both ways; kept for a few hours."""

    __tablename__ = "traffic_minutes"

    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Of Unix time."""
    to_operators: Mapped[int]
    to_visitors: Mapped[int]
