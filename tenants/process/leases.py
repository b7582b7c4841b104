"""Leases: which pool process serves which shard, and how the shards are shared out.

A lease has a term; its holder renews it many times in a term. A process that dies stops renewing, and others take its
shards when the term ends. Every change is a compare-and-swap, and each taking gives a new, larger token: with it a
change in the database is refused to a holder of yesterday (`check`).

Terms are measured on the processes' own clocks, which must not differ by more than about a second (NTP).
"""

import os
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.process.services import Services
from tenants.store.database import rows_changed
from tenants.store.models import PoolMember, ShardLease

TERM = 6.0
"""Seconds until a lease that is not renewed ends: long for a busy machine, and a takeover is still done within 10."""

HANDOVER = 3.0
"""Seconds in which a shard that was let go in good order has its next holder: two renewals, on a busy machine."""


class LeaseLostError(Exception):
    """The shard has another holder by now: the change was not made."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard, and the token with which it was taken."""

    shard: int
    token: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease just taken. `deserted_by` names the process that held it to the end of its term, if one did."""

    lease: Lease
    deserted_by: str | None


@dataclass(frozen=True, slots=True)
class Renewal:
    """Which leases are still ours, and how many processes share the shards."""

    kept: frozenset[int]
    members: int


def new_member_name() -> str:
    """A name for this process: the machine's for people and `is_alive_here`, the rest makes it unique for ever."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


async def is_alive_here(services: Services) -> bool:
    """Whether a pool process of this machine, or container, said lately that it is there."""
    async with services.database.read() as session:
        alive = await session.scalars(select(PoolMember.name).where(PoolMember.alive_until > services.clock()))
    return any(name.rsplit("-", 2)[0] == _machine() for name in alive)


def _machine() -> str:
    return socket.gethostname()[:32]


async def prepare(services: Services) -> None:
    """Make the row of each shard; harmless when they are there."""
    async with services.database.write() as session:
        insert = services.database.insert(ShardLease)
        await session.execute(
            insert.on_conflict_do_nothing(),
            [{"shard": shard, "expires_at": 0.0, "token": 0} for shard in range(services.settings.shard_count)],
        )


async def renew(services: Services, name: str, held: Collection[Lease]) -> Renewal:
    """Say that the process of this name is there, and renew its leases."""
    now = services.clock()
    async with services.database.write() as session:
        await session.execute(
            services.database.insert(PoolMember)
            .values(name=name, alive_until=now + TERM)
            .on_conflict_do_update(index_elements=["name"], set_={"alive_until": now + TERM})
        )
        await session.execute(delete(PoolMember).where(PoolMember.alive_until < now - 10 * TERM))
        members = await session.scalar(select(func.count()).where(PoolMember.alive_until > now))
        tokens = {lease.shard: lease.token for lease in held}
        renewed = await session.execute(
            update(ShardLease)
            .where(ShardLease.owner == name, ShardLease.shard.in_(tokens))
            .values(expires_at=now + TERM)
            .returning(ShardLease.shard, ShardLease.token)
        )
        kept = frozenset(shard for shard, token in renewed.all() if tokens[shard] == token)
    return Renewal(kept, members or 1)


async def take(services: Services, name: str, at_most: int) -> list[Taken]:
    """Take shards that nobody holds, those first that have been without a holder for longest."""
    now = services.clock()
    free = or_(ShardLease.owner.is_(None), ShardLease.expires_at <= now)
    taken: list[Taken] = []
    async with services.database.write() as session:
        found = await session.execute(
            select(ShardLease.shard, ShardLease.token, ShardLease.owner)
            .where(free, ShardLease.shard < services.settings.shard_count)
            .order_by(ShardLease.expires_at, ShardLease.shard)
            .limit(at_most)
        )
        for shard, token, owner in found.all():
            swapped = await session.execute(
                update(ShardLease)
                .where(ShardLease.shard == shard, ShardLease.token == token, free)
                .values(owner=name, token=token + 1, expires_at=now + TERM)
            )
            if rows_changed(swapped):
                taken.append(Taken(Lease(shard, token + 1), owner if owner != name else None))
    return taken


async def release(services: Services, name: str, shards: Collection[int], *, leaving: bool = False) -> None:
    """Let shards go, for others to take at once. `leaving`: the process does not want any others, either."""
    async with services.database.write() as session:
        await session.execute(
            update(ShardLease)
            .where(ShardLease.owner == name, ShardLease.shard.in_(shards))
            .values(owner=None, expires_at=services.clock())
        )
        if leaving:
            await session.execute(delete(PoolMember).where(PoolMember.name == name))


async def check(session: AsyncSession, lease: Lease) -> None:
    """Within a transaction: let it go on only if this is still the shard's lease.

    Raises:
        LeaseLostError: the shard was taken by another since.
    """
    token = await session.scalar(
        # on PostgreSQL the row stays locked to the end of the transaction; SQLite has one writer at a time
        select(ShardLease.token).where(ShardLease.shard == lease.shard).with_for_update(read=True)
    )
    if token != lease.token:
        raise LeaseLostError(f"shard {lease.shard}")


async def count_held(services: Services) -> int:
    """How many shards have a holder now."""
    async with services.database.read() as session:
        held = await session.scalar(
            select(func.count()).where(ShardLease.owner.is_not(None), ShardLease.expires_at > services.clock())
        )
    return held or 0


async def count_served(services: Services) -> int:
    """How many shards have a holder, or are just given from one to the next: nobody need be alarmed by that."""
    now = services.clock()
    held = and_(ShardLease.owner.is_not(None), ShardLease.expires_at > now)
    changing_hands = and_(ShardLease.owner.is_(None), ShardLease.expires_at > now - HANDOVER)
    async with services.database.read() as session:
        served = await session.scalar(select(func.count()).where(or_(held, changing_hands)))
    return served or 0
