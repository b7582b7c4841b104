"""Bearer tokens of the API: shown once, kept as digests, of one scope each.

A token is `lhc_<id>_<secret>`: the id finds the row, the secret opens it.
"""

import re
import secrets

from sqlalchemy import select, update

from tenants import audit
from tenants.errors import InvalidInputError, NotFoundError
from tenants.models import Scope, Token
from tenants.naming import check_instance
from tenants.secrets import digest, matches, new_key
from tenants.services import Services
from tenants.states import Cause

LONGEST_NAME = 100
_FORM = re.compile(r"lhc_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_USE_NOTED_EVERY = 60.0
"""Seconds: when a token was last used is known to the minute, for the price of a write a minute."""


async def create(
    services: Services,
    *,
    name: str,
    scope: Scope,
    instance_name: str | None = None,
    expires_at: float | None = None,
    created_by: str,
) -> tuple[Token, str]:
    """A new token, and what its bearer is given, which nobody can read again.

    Raises:
        InvalidInputError: naming the field.
    """
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInputError("name", f"must be 1 to {LONGEST_NAME} printable characters")
    if (scope is Scope.TENANT) != (instance_name is not None):
        raise InvalidInputError("instance_name", "belongs to a token of scope 'tenant', and to no other")
    if instance_name is not None and services.settings.hosting:
        check_instance(instance_name)
    now = services.clock()
    if expires_at is not None and expires_at <= now:
        raise InvalidInputError("expires_at", "must be in the future")
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
        session.add(token)
        audit.record(
            session,
            now,
            actor=created_by,
            action="token created",
            instance_name=instance_name,
            reason=f"{token_id} ({scope}) for {name}",
        )
    return token, f"lhc_{token_id}_{secret}"


async def revoke(services: Services, token_id: str, cause: Cause) -> Token:
    """Let the token open nothing any more; one that is revoked already is a success.

    Raises:
        NotFoundError: there is none.
    """
    now = services.clock()
    async with services.database.write() as session:
        token = await session.get(Token, token_id, with_for_update=True)
        if token is None:
            raise NotFoundError(f"there is no token '{token_id}'")
        if token.revoked_at is None:
            token.revoked_at = now
            audit.record(
                session,
                now,
                actor=cause.actor,
                action="token revoked",
                instance_name=token.instance_name,
                reason=cause.reason or token_id,
            )
    return token


async def find(services: Services, *, instance_name: str | None = None, revoked: bool = False) -> list[Token]:
    """Tokens, newest first; those of one tenant, or of all. `revoked`: also those that open nothing any more."""
    query = select(Token).order_by(Token.created_at.desc(), Token.id)
    if instance_name is not None:
        query = query.where(Token.instance_name == instance_name)
    if not revoked:
        query = query.where(Token.revoked_at.is_(None))
    async with services.database.read() as session:
        return list(await session.scalars(query))


async def check(services: Services, presented: str) -> Token | None:
    """The token that was presented, when it opens anything."""
    form = _FORM.fullmatch(presented)
    if form is None:
        return None
    token_id, secret = form.groups()
    now = services.clock()
    async with services.database.read() as session:
        token = await session.get(Token, token_id)
    known = matches(token_id, secret, token.digest if token else None)
    if token is None or not known or token.revoked_at is not None or (token.expires_at or now + 1) <= now:
        return None
    if (token.last_used_at or 0) < now - _USE_NOTED_EVERY:
        async with services.database.write() as session:
            await session.execute(update(Token).where(Token.id == token_id).values(last_used_at=now))
    return token
