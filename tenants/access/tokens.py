"""Bearer tokens of the API: shown once, kept as digests, of one scope each.

A token is `lhc_<id>_<secret>`: the id finds the row, the secret opens it.
"""

import re
import secrets
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.digests import digest, matches, new_key
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import Scope, Tenant, TenantState, Token

LONGEST_NAME = 100
LONGEST_LIFE = 100 * 366 * 86400.0
"""Seconds; a token that shall live for longer can have no end instead."""
_FORM = re.compile(r"lhc_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_USE_NOTED_EVERY = 60.0
"""Seconds: the time of the last use is stored to the minute, so a token costs one write a minute."""


async def create(
    services: Services,
    *,
    name: str,
    scope: Scope,
    instance_name: str | None = None,
    expires_at: float | None = None,
    created_by: str,
    reason: str | None = None,
) -> tuple[Token, str]:
    """A new token, and what its bearer is given, which nobody can read again.

    Raises:
        InvalidInputError: naming the field that breaks a rule; a tenant's token is for one that there is.
    """
    now = services.clock()
    _check(name, scope, instance_name, expires_at, now)
    token_id, secret = secrets.token_hex(8), new_key()
    token = Token(
        id=token_id,
        name=name,
        digest=digest(token_id, secret),
        scope=scope,
        instance_name=instance_name,
        created_by=created_by[:LONGEST_NAME],
        created_at=now,
        expires_at=expires_at,
    )
    async with services.database.write() as session:
        if instance_name is not None:
            token.incarnation = (await _find_tenant(session, instance_name)).incarnation
        session.add(token)
        what = f"{token_id} ({scope}) for {name}"
        audit.record(session, now, Cause(created_by, reason), "token created", instance_name=instance_name, what=what)
    return token, f"lhc_{token_id}_{secret}"


def _check(name: str, scope: Scope, instance_name: str | None, expires_at: float | None, now: float) -> None:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInputError("name", f"must be 1 to {LONGEST_NAME} printable characters")
    if (scope is Scope.TENANT) != (instance_name is not None):
        raise InvalidInputError("instance_name", "belongs to a token of scope 'tenant', and to no other")
    if expires_at is not None and not now < expires_at < now + LONGEST_LIFE:
        raise InvalidInputError("expires_at", "must be in the future, and within 100 years")


async def _find_tenant(session: AsyncSession, instance_name: str) -> Tenant:
    """The row stays locked: the end of a tenant removes its tokens, and must not miss one."""
    tenant = await session.get(Tenant, instance_name, with_for_update=True)
    if tenant is None or tenant.state in {TenantState.DESTROYING, TenantState.DESTROYED}:
        raise InvalidInputError("instance_name", "must be the name of a tenant")
    return tenant


async def revoke(services: Services, token_id: str, cause: Cause) -> Token:
    """Let the token open nothing any more; one that is revoked already is a success.

    Raises:
        NotFoundError: there is none.
    """
    now = services.clock()
    async with services.database.write() as session:
        token = await _get(session, token_id, lock=True)
        if token.revoked_at is None:
            token.revoked_at = now
            what = f"{token_id} for {token.name}"
            audit.record(session, now, cause, "token revoked", instance_name=token.instance_name, what=what)
    services.cache.tokens.forget(token_id)
    return token


async def get(database: Database, token_id: str) -> Token:
    """The token, also one that was revoked.

    Raises:
        NotFoundError: there is none.
    """
    async with database.read() as session:
        return await _get(session, token_id)


async def find(
    database: Database,
    *,
    instance_name: str | None = None,
    revoked: bool = False,
    after: str | None = None,
    limit: int | None = None,
) -> list[Token]:
    """Tokens, newest first; those of one tenant, or of all.

    `revoked`: also those. `after`: the id of the last one of the page before.

    Raises:
        NotFoundError: there is no token of the id `after`.
    """
    query = select(Token).order_by(Token.created_at.desc(), Token.id.desc()).limit(limit)
    if instance_name is not None:
        query = query.where(Token.instance_name == instance_name)
    if not revoked:
        query = query.where(Token.revoked_at.is_(None))
    async with database.read() as session:
        if after is not None:
            last = await _get(session, after)
            same_time = and_(Token.created_at == last.created_at, Token.id < last.id)
            query = query.where(or_(Token.created_at < last.created_at, same_time))
        return list(await session.scalars(query))


async def _get(session: AsyncSession, token_id: str, *, lock: bool = False) -> Token:
    token = await session.get(Token, token_id, with_for_update=lock)
    if token is None:
        raise NotFoundError(f"there is no token '{token_id}'")
    return token


async def check(services: Services, presented: str) -> Token | None:
    """The token that was presented, when it opens anything."""
    form = _FORM.fullmatch(presented)
    if form is None:
        return None
    token_id, secret = form.groups()
    now = services.clock()
    token = services.cache.tokens.get(token_id) or await _read(services, token_id)
    if not _opens(token_id, token, secret, now):
        return None
    if token is not None and _use_is_to_be_noted(token, now):
        await _note_use(services, token_id, now)
    return token


def recall(services: Services, presented: str) -> Token | None:
    """`check`, from this process's cache alone. None also when the token must be read, or its use be noted."""
    form = _FORM.fullmatch(presented)
    token = services.cache.tokens.get(form[1]) if form is not None else None
    if form is None or token is None:
        return None
    now = services.clock()
    return token if _opens(form[1], token, form[2], now) and not _use_is_to_be_noted(token, now) else None


def is_of(token: Token, tenant: Tenant) -> bool:
    """Whether it is a token of that very tenant, not of one that bore its name before."""
    return (token.scope, token.instance_name, token.incarnation) == (
        *(Scope.TENANT, tenant.instance_name),
        tenant.incarnation,
    )


def is_good(token: Token, now: float) -> bool:
    """Whether it is neither revoked nor too old."""
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now)


def good(now: float) -> ColumnElement[bool]:
    """`is_good`, as a condition of a query."""
    return and_(Token.revoked_at.is_(None), or_(Token.expires_at.is_(None), Token.expires_at > now))


def _opens(token_id: str, token: Token | None, secret: str, now: float) -> bool:
    is_known = matches(token_id, secret, token.digest if token else None)
    return token is not None and is_known and is_good(token, now)


def _use_is_to_be_noted(token: Token, now: float) -> bool:
    return (token.last_used_at or 0) <= now - _USE_NOTED_EVERY


async def _read(services: Services, token_id: str) -> Token | None:
    now = services.clock()
    async with services.database.read() as session:
        token: Token | None = await session.get(Token, token_id)
    if token is not None:
        services.cache.tokens.keep(token_id, token, now)
    return token


async def read_again(services: Services, token_ids: Sequence[str]) -> None:
    """Read these tokens into this process's cache."""
    now = services.clock()
    async with services.database.read() as session:
        found = {token.id: token for token in await session.scalars(select(Token).where(Token.id.in_(token_ids)))}
    for token_id in token_ids:
        if token_id in found:
            services.cache.tokens.keep(token_id, found[token_id], now)
        else:
            services.cache.tokens.forget(token_id)


async def _note_use(services: Services, token_id: str, now: float) -> None:
    """Store the time of this use, once for all requests of the same moment."""
    unnoted = or_(Token.last_used_at.is_(None), Token.last_used_at <= now - _USE_NOTED_EVERY)
    async with services.database.write() as session:
        await session.execute(update(Token).where(Token.id == token_id, unnoted).values(last_used_at=now))
    services.cache.tokens.forget(token_id)
