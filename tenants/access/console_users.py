"""People who may use the console: their names, roles and passwords."""

import secrets
from functools import cache

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import select

from tenants.access import console_sessions, one_time_links, tokens
from tenants.access.console_sessions import Proof
from tenants.access.passwords import LONGEST, check_chosen
from tenants.core.digests import same
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import (
    PANEL_SCOPES,
    ConsoleUser,
    Purpose,
    Role,
    Scope,
    Token,
)

SHORTEST_PASSWORD = 12
"""The shortest password of a person at the console, who may do more than an operator."""
LONGEST_NAME = 60

_hasher = PasswordHasher()
_AT_ONCE = CapacityLimiter(2)
"""Passwords that are checked at the same time: each check takes 64 MiB of memory for a moment."""


@cache
def _nobodys() -> str:
    """The hash that is compared with a password for a name that nobody has, so that the time tells nothing.

    It is made when somebody logs in: it takes a fifth of a second, and most programs that load this never need it.
    """
    return _hasher.hash(secrets.token_urlsafe())


async def put_user(services: Services, name: str, role: Role, password: str | None, cause: Cause) -> ConsoleUser:
    """Let a person log in, or change the role or the password. The person's sessions end.

    Raises:
        InvalidInputError: naming the field and the rule; a new person needs a password.
    """
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise InvalidInputError("name", f"must be 1 to {LONGEST_NAME} printable characters")
    if password is not None:
        check_chosen(password, shortest=SHORTEST_PASSWORD, unlike=[name])
    password_hash = await _hash(password) if password is not None else None
    now = services.clock()
    async with services.database.write() as session:
        user = await session.get(ConsoleUser, name, with_for_update=True)
        is_new = user is None
        if user is None:
            if password_hash is None:
                raise InvalidInputError("password", "is needed for somebody new")
            user = ConsoleUser(name=name, role=role, password_hash=password_hash, created_at=now, changed_at=now)
            session.add(user)
        else:
            user.role, user.changed_at = role, now
            user.password_hash = password_hash or user.password_hash
            await console_sessions.end_of_user(session, user)
        action = "console user added" if is_new else "console user changed"
        audit.record(session, now, cause, action, what=f"{name} ({role})")
    return user


async def remove_user(services: Services, name: str, cause: Cause) -> None:
    """Remove the person, and end the person's sessions.

    Raises:
        NotFoundError: there is nobody of that name.
    """
    async with services.database.write() as session:
        user = await session.get(ConsoleUser, name, with_for_update=True)
        if user is None:
            raise NotFoundError(f"nobody at the console is called '{name}'")
        await console_sessions.end_of_user(session, user)
        await session.delete(user)
        audit.record(session, services.clock(), cause, "console user removed", what=name)


async def users(services: Services) -> list[ConsoleUser]:
    """All who may log in with a password, by name."""
    async with services.database.read() as session:
        return list(await session.scalars(select(ConsoleUser).order_by(ConsoleUser.name)))


async def log_in(services: Services, name: str, password: str, address: str) -> str | None:
    """The cookie of a new session, when name and password are somebody's."""
    async with services.database.read() as session:
        user = await session.get(ConsoleUser, name) if len(name) <= LONGEST_NAME else None
    # made for everybody, because otherwise the first wrong name would take longer than the first right one
    nobodys = await to_thread.run_sync(_nobodys, limiter=_AT_ONCE)
    is_right = await _verify(user.password_hash if user else nobodys, password[:LONGEST])
    if user is None or not is_right:
        return None
    return await console_sessions.begin(
        services, f"console:{user.name}", user.role, Proof(user_name=user.name), address
    )


async def log_in_by_token(services: Services, presented: str, address: str) -> str | None:
    """The cookie of a new session, when this is a panel token: one that reads makes a viewer, one that writes all."""
    if same(presented, services.settings.panel_token.get_secret_value()):
        return await console_sessions.begin(services, "panel", Role.ADMIN, Proof(is_settings_token=True), address)
    token = await tokens.check(services, presented)
    if token is None or token.scope not in PANEL_SCOPES:
        return None
    return await console_sessions.begin(
        services, f"token:{token.name}", _role_of(token), Proof(token_id=token.id), address
    )


async def log_in_by_link(services: Services, secret: str, address: str) -> str | None:
    """The cookie of a new session, when the link is good; it is not any more afterwards."""
    link = await one_time_links.take(services, Purpose.LOGIN, secret)
    if link is None or link.role is None:
        return None
    return await console_sessions.begin(services, f"link of {link.created_by}", link.role, Proof(), address)


def _role_of(token: Token) -> Role:
    return Role.ADMIN if token.scope is Scope.PANEL_WRITE else Role.VIEWER


async def _hash(password: str) -> str:
    return await to_thread.run_sync(_hasher.hash, password, limiter=_AT_ONCE)


async def _verify(password_hash: str, password: str) -> bool:
    try:
        return await to_thread.run_sync(_hasher.verify, password_hash, password, limiter=_AT_ONCE)
    except (Argon2Error, InvalidHashError):
        return False
