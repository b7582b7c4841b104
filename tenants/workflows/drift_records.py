"""Rows of the differences between ejabberd and the registry that a comparison found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, select, update

from tenants.core.chunks import chunks
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import EVERY_TENANT, Drift
from tenants.workflows.drift import FOR_A_PERSON, OF_LOSS, Difference, DriftKind

Query = TypeVar("Query", bound=Select[Any])
_REMEMBER_SECONDS = 30 * 86400.0
"""How long a difference that was mended can be read."""
_AT_ONCE = 200
"""Differences that are recorded, or mended, together."""


async def find(
    database: Database,
    instance_name: str | None = None,
    *,
    unmended: bool = True,
    after: int = 0,
    limit: int = 50,
) -> list[Drift]:
    """Differences that were found, oldest first; only those that are still there, or also those that were mended."""
    query = select(Drift).where(Drift.id > after).order_by(Drift.id).limit(limit)
    if instance_name is not None:
        query = query.where(Drift.instance_name == instance_name)
    if unmended:
        query = query.where(Drift.mended_at.is_(None))
    async with database.read() as session:
        return list(await session.scalars(query))


async def record(database: Database, found: Sequence[tuple[str, Difference]], now: float) -> int:
    """Record what was found at the time `now`. Returns how many differences that are."""
    # the same thing can be seen twice, as in both rosters
    rows = {
        (instance_name, one.kind, one.subject): {
            "instance_name": instance_name,
            "kind": one.kind,
            "subject": one.subject,
            "found_at": now,
            "mended_at": None,
            "detail": one.detail,
        }
        for instance_name, one in found
    }
    for some in chunks(list(rows.values()), _AT_ONCE):
        insert = database.insert(Drift).values(some)
        changed = {name: insert.excluded[name] for name in ("found_at", "mended_at", "detail")}
        async with database.write() as session:
            await session.execute(
                insert.on_conflict_do_update(index_elements=["instance_name", "kind", "subject"], set_=changed)
            )
    return len(rows)


async def forget_gone(database: Database, scope: str, skipped: Sequence[str], started: float) -> None:
    """Remove the differences that a comparison begun at `started` has not found again; it left `skipped` out."""
    gone = delete(Drift).where(Drift.mended_at.is_(None), Drift.found_at < started)
    if scope != EVERY_TENANT:
        gone = gone.where(Drift.instance_name == scope)
    async with database.write() as session:
        await session.execute(gone.where(Drift.instance_name.not_in(skipped)))


async def count_to_mend(database: Database, scope: str) -> int:
    """How many differences wait to be mended."""
    query = select(func.count()).select_from(Drift).where(Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with database.read() as session:
        return await session.scalar(_within(query, scope)) or 0


async def count_of_loss(database: Database, scope: str) -> int:
    """How many of those that wait would remove something, forget it or make it anew."""
    query = select(func.count()).select_from(Drift).where(Drift.mended_at.is_(None), Drift.kind.in_(OF_LOSS))
    async with database.read() as session:
        return await session.scalar(_within(query, scope)) or 0


async def to_mend(database: Database, scope: str, condition: ColumnElement[bool], after: int) -> list[Drift]:
    """Some of the differences that wait to be mended, by id, behind the id `after`."""
    query = select(Drift).where(condition, Drift.id > after, Drift.mended_at.is_(None), Drift.kind.not_in(FOR_A_PERSON))
    async with database.read() as session:
        return list(await session.scalars(_within(query, scope).order_by(Drift.id).limit(_AT_ONCE)))


def _within(query: Query, scope: str) -> Query:
    return query if scope == EVERY_TENANT else query.where(Drift.instance_name == scope)


def together(page: Sequence[Drift]) -> dict[tuple[str, DriftKind], list[Drift]]:
    """The differences by tenant and kind: those of one tenant and one kind are mended together."""
    groups: dict[tuple[str, DriftKind], list[Drift]] = defaultdict(list)
    for one in page:
        groups[one.instance_name, DriftKind(one.kind)].append(one)
    return groups


async def note_outcome(services: Services, found: Sequence[Drift], left: Mapping[str, str]) -> None:
    """Record what came of mending: `left` has the subjects that still differ, and why; the others are mended."""
    async with services.database.write() as session:
        for one in found:
            values = {"detail": left[one.subject]} if one.subject in left else {"mended_at": services.clock()}
            await session.execute(update(Drift).where(Drift.id == one.id).values(**values))


async def forget_old(services: Services) -> None:
    """Remove the differences that were mended long ago."""
    async with services.database.write() as session:
        await session.execute(delete(Drift).where(Drift.mended_at < services.clock() - _REMEMBER_SECONDS))
