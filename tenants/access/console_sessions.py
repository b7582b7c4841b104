"""Who is logged in at the console, by which proof, and how that ends."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, delete, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from config.settings import Settings
from tenants.access import tokens
from tenants.core.digests import digest
from tenants.core.errors import NotFoundError
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import ConsoleSession, ConsoleUser, OneTimeLink, Role, Token

Query = TypeVar("Query", bound=Select[Any])

SESSION_SECONDS = 12 * 3600.0
"""How long somebody stays logged in."""
_ORDER = tuple(Role)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is logged in. `actor`: as the audit log names who it is."""

    actor: str
    role: Role

    def may(self, needed: Role) -> bool:
        """Whether that role is enough for what needs this one."""
        return _ORDER.index(self.role) >= _ORDER.index(needed)


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody logged in with; the session ends when it does. A login link is used up by the login.

    Attributes:
        user_name: of who gave a password.
        token_id: of the token that was presented.
        is_settings_token: the panel token of the settings was.
    """

    user_name: str | None = None
    token_id: str | None = None
    is_settings_token: bool = False


async def begin(services: Services, actor: str, role: Role, proof: Proof, address: str) -> str:
    """The cookie of a new session. `address`: the IP address that it was begun from."""
    now, cookie = services.clock(), secrets.token_urlsafe(32)
    async with services.database.write() as session:
        # each login removes what has expired, so the tables stay small
        await session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at <= now))
        await session.execute(delete(OneTimeLink).where(OneTimeLink.expires_at <= now))
        session.add(
            ConsoleSession(
                digest=digest_of(cookie),
                actor=actor[:100],
                role=role,
                user_name=proof.user_name,
                token_id=proof.token_id,
                secret_digest=_settings_digest(services.settings) if proof.is_settings_token else None,
                address=address[:45],
                created_at=now,
                expires_at=now + SESSION_SECONDS,
            )
        )
        audit.record(session, now, Cause(actor), "console login", what=f"{role}, from {address}")
    return cookie


async def who(services: Services, cookie: str) -> Person | None:
    """Whose session this is, while it lasts."""
    query = select(ConsoleSession).where(ConsoleSession.digest == digest_of(cookie), _lasting(services))
    async with services.database.read() as session:
        found = await session.scalar(query)
    return Person(found.actor, found.role) if found is not None else None


async def find(services: Services) -> Sequence[ConsoleSession]:
    """All sessions that last, newest first."""
    query = select(ConsoleSession).where(_lasting(services)).order_by(ConsoleSession.created_at.desc())
    async with services.database.read() as session:
        return list(await session.scalars(query))


def only_lasting(services: Services, query: Query) -> Query:
    """The query, of those sessions alone that open the console now."""
    return query.where(_lasting(services))


def _lasting(services: Services) -> ColumnElement[bool]:
    """The condition of a session that opens the console: it is not too old, and its proof is still good."""
    now = services.clock()
    good_token = exists().where(Token.id == ConsoleSession.token_id, tokens.good(now))
    return and_(
        ConsoleSession.expires_at > now,
        or_(ConsoleSession.token_id.is_(None), good_token),
        or_(
            ConsoleSession.secret_digest.is_(None), ConsoleSession.secret_digest == _settings_digest(services.settings)
        ),
    )


async def log_out(database: Database, cookie: str) -> None:
    """End the session; one that has ended is a success."""
    async with database.write() as session:
        await session.execute(delete(ConsoleSession).where(ConsoleSession.digest == digest_of(cookie)))


async def end(services: Services, session_id: str, cause: Cause) -> str:
    """End one session, by its `id` or its whole digest; gives whose it was.

    Raises:
        NotFoundError: there is no such session.
    """
    lasts = await find(services)
    found = next((one for one in lasts if session_id in {one.id, one.digest}), None)
    if found is None:
        raise NotFoundError(f"there is no session '{session_id}' at the console")
    async with services.database.write() as session:
        await session.execute(delete(ConsoleSession).where(ConsoleSession.digest == found.digest))
        _record(session, services, cause, found.actor, found.id)
    return found.actor


async def end_all_of(services: Services, actor: str, cause: Cause) -> int:
    """End all sessions of an actor, as the audit log and the list of sessions name them; gives how many there were."""
    async with services.database.write() as session:
        ended = list(
            await session.scalars(
                delete(ConsoleSession).where(ConsoleSession.actor == actor).returning(ConsoleSession.digest)
            )
        )
        if ended:
            _record(session, services, cause, actor, f"all {len(ended)}")
    return len(ended)


async def end_of_user(session: AsyncSession, user: ConsoleUser) -> None:
    """End all sessions that were begun with a person's password, in the transaction that changes or removes it."""
    await session.execute(delete(ConsoleSession).where(ConsoleSession.user_name == user.name))


def digest_of(secret: str) -> str:
    """The digest of a cookie or a link, which is what we store. Both are long and random, so it needs no salt."""
    return digest("console", secret)


def _settings_digest(settings: Settings) -> str:
    return digest_of(settings.panel_token.get_secret_value())


def _record(session: AsyncSession, services: Services, cause: Cause, actor: str, which: str) -> None:
    audit.record(session, services.clock(), cause, "console session ended", what=f"{actor}: {which}")
