"""Requests that were answered already: repeated with the same `Idempotency-Key`, they are answered the same again.

After the IETF draft "The Idempotency-Key HTTP Header Field". A request that failed is forgotten: repeating it tries
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, update

from tenants.core.errors import ConflictError, InvalidInputError
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import IdempotentRequest

LONGEST_KEY = 200
_REMEMBER_SECONDS = 24 * 3600.0
_UNDER_WAY_SECONDS = 60.0
"""Seconds; a request that is under way for longer has died with its process."""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a request was answered, without the secrets in it: those are shown once."""

    status: int
    headers: Mapping[str, str]
    body: str


async def begin(services: Services, actor: str, key: str, fingerprint: str) -> StoredAnswer | None:
    """The answer of the same request before; or None: it is the first, and is to be ended by `finish` or `abandon`.

    Raises:
        InvalidInputError: the key is none, or was used for another request.
        ConflictError: the first one is still under way.
    """
    if not 0 < len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidInputError("Idempotency-Key", f"must be 1 to {LONGEST_KEY} printable characters")
    now = services.clock()
    async with services.database.write() as session:
        await session.execute(
            delete(IdempotentRequest).where(
                IdempotentRequest.actor == actor,
                IdempotentRequest.key == key,
                IdempotentRequest.status.is_(None),
                IdempotentRequest.created_at < now - _UNDER_WAY_SECONDS,
            )
        )
        inserted = await session.scalar(
            services.database.insert(IdempotentRequest)
            .values(actor=actor, key=key, fingerprint=fingerprint, created_at=now)
            .on_conflict_do_nothing()
            .returning(IdempotentRequest.key)
        )
        if inserted is not None:
            return None
        known = await session.get_one(IdempotentRequest, (actor, key))
    if known.fingerprint != fingerprint:
        raise InvalidInputError("Idempotency-Key", "was used for another request")
    if known.status is None:
        raise ConflictError("the request with this Idempotency-Key is under way")
    return StoredAnswer(known.status, known.headers or {}, known.body or "")


async def finish(database: Database, actor: str, key: str, answer: StoredAnswer) -> None:
    """Keep what the request was answered."""
    async with database.write() as session:
        await session.execute(
            update(IdempotentRequest)
            .where(IdempotentRequest.actor == actor, IdempotentRequest.key == key)
            .values(status=answer.status, headers=dict(answer.headers), body=answer.body)
        )


async def abandon(database: Database, actor: str, key: str) -> None:
    """The request failed, and changed nothing: it may be tried again."""
    async with database.write() as session:
        await session.execute(
            delete(IdempotentRequest).where(
                IdempotentRequest.actor == actor, IdempotentRequest.key == key, IdempotentRequest.status.is_(None)
            )
        )


async def recall(database: Database, actor: str, key: str) -> StoredAnswer | None:
    """The answer that `keep` has stored, for a caller whose requests may only be repeats."""
    async with database.read() as session:
        known = await session.get(IdempotentRequest, (actor, key))
    return StoredAnswer(known.status, known.headers or {}, known.body or "") if known and known.status else None


async def keep(services: Services, actor: str, key: str, answer: StoredAnswer) -> None:
    """Keep what was answered, if nothing is kept yet, of a request that may run twice at the same time."""
    async with services.database.write() as session:
        await session.execute(
            services.database.insert(IdempotentRequest)
            .values(
                actor=actor,
                key=key,
                fingerprint="",
                status=answer.status,
                headers=dict(answer.headers),
                body=answer.body,
                created_at=services.clock(),
            )
            .on_conflict_do_nothing()
        )


async def purge(services: Services) -> None:
    """Forget answers that are older than a day."""
    async with services.database.write() as session:
        await session.execute(
            delete(IdempotentRequest).where(IdempotentRequest.created_at < services.clock() - _REMEMBER_SECONDS)
        )
