"""People at the console: who they are, what they log in by, and links that open something once."""

import secrets

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.access import console_sessions, tokens
from tenants.access.console_sessions import Proof, digest_of
from tenants.access.passwords import LONGEST, check_chosen
from tenants.core.digests import same
from tenants.core.errors import InvalidInputError, NotFoundError
from tenants.core.naming import AccountKind, AccountName
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import (
    PANEL_SCOPES,
    Account,
    AccountState,
    ConsoleUser,
    OneTimeLink,
    Purpose,
    Role,
    Scope,
    Token,
)

LOGIN_LINK_SECONDS = 900.0
ONBOARDING_SECONDS = 3 * 86400.0
SHORTEST_PASSWORD = 12
"""Of people at the console, who may more than an operator."""
LONGEST_NAME = 60

_hasher = PasswordHasher()
_AT_ONCE = CapacityLimiter(2)
"""Passwords that are looked at at the same time: each takes 64 MiB for a moment."""
_NOBODYS = _hasher.hash(secrets.token_urlsafe())
"""What the password of a name that nobody has is compared with, so that the time tells nothing."""


async def put_user(services: Services, name: str, role: Role, password: str | None, cause: Cause) -> ConsoleUser:
    """Let a person log in, or change role or password; who is logged in as that person is no longer.

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
    """Let the person log in no more, and out now.

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
    is_right = await _verify(user.password_hash if user else _NOBODYS, password[:LONGEST])
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
    link = await take_link(services, Purpose.LOGIN, secret)
    if link is None or link.role is None:
        return None
    return await console_sessions.begin(services, f"link of {link.created_by}", link.role, Proof(), address)


async def make_login_link(services: Services, role: Role, cause: Cause) -> str:
    """The secret of a link that lets its bearer in once, within `LOGIN_LINK_SECONDS`."""
    async with services.database.write() as session:
        return _add_link(services, session, cause, LOGIN_LINK_SECONDS, purpose=Purpose.LOGIN, role=role)


async def make_onboarding_link(services: Services, instance_name: str, operator: str, cause: Cause) -> str:
    """The secret of a page where the operator sets a password, once, within `ONBOARDING_SECONDS`.

    A new one makes those before it worthless. It is worthless as soon as this very account is gone.

    Raises:
        NotFoundError: the tenant has no such operator.
    """
    username = services.naming.username(AccountName(AccountKind.OPERATOR, operator, instance_name))
    async with services.database.write() as session:
        account = await session.get(Account, username, with_for_update={"read": True})
        if account is None or account.state is AccountState.REMOVING:
            raise NotFoundError(f"tenant '{instance_name}' has no operator '{operator}'")
        await session.execute(
            delete(OneTimeLink).where(OneTimeLink.instance_name == instance_name, OneTimeLink.operator == operator)
        )
        audit.record(
            session,
            services.clock(),
            Cause(cause.actor),
            "operator invited",
            instance_name=instance_name,
            what=operator,
        )
        return _add_link(
            services,
            session,
            cause,
            ONBOARDING_SECONDS,
            purpose=Purpose.ONBOARDING,
            instance_name=instance_name,
            operator=operator,
            incarnation=account.incarnation,
        )


async def find_link(services: Services, purpose: Purpose, secret: str) -> OneTimeLink | None:
    """The link, while it is good."""
    async with services.database.read() as session:
        link: OneTimeLink | None = await session.scalar(select(OneTimeLink).where(_opens(services, purpose, secret)))
        return link if link is not None and await _is_of_somebody(services, session, link) else None


async def take_link(services: Services, purpose: Purpose, secret: str) -> OneTimeLink | None:
    """The link, when it was good until now: whoever takes it first has it alone."""
    async with services.database.write() as session:
        taken: OneTimeLink | None = await session.scalar(
            delete(OneTimeLink).where(_opens(services, purpose, secret)).returning(OneTimeLink)
        )
        return taken if taken is not None and await _is_of_somebody(services, session, taken) else None


def _opens(services: Services, purpose: Purpose, secret: str) -> ColumnElement[bool]:
    return and_(
        OneTimeLink.digest == digest_of(secret),
        OneTimeLink.purpose == purpose,
        OneTimeLink.expires_at > services.clock(),
    )


async def _is_of_somebody(services: Services, session: AsyncSession, link: OneTimeLink) -> bool:
    """Whether it is for nobody in particular, or for an operator who is still there; not for another of that name."""
    if link.instance_name is None or link.operator is None:
        return True
    name = AccountName(AccountKind.OPERATOR, link.operator, link.instance_name)
    account = await session.get(Account, services.naming.username(name))
    return account is not None and account.incarnation == link.incarnation


def _add_link(services: Services, session: AsyncSession, cause: Cause, seconds: float, **values: object) -> str:
    now, secret = services.clock(), secrets.token_urlsafe(24)
    session.add(
        OneTimeLink(
            digest=digest_of(secret), created_by=cause.actor[:80], created_at=now, expires_at=now + seconds, **values
        )
    )
    return secret


def _role_of(token: Token) -> Role:
    return Role.ADMIN if token.scope is Scope.PANEL_WRITE else Role.VIEWER


async def _hash(password: str) -> str:
    return await to_thread.run_sync(_hasher.hash, password, limiter=_AT_ONCE)


async def _verify(password_hash: str, password: str) -> bool:
    try:
        return await to_thread.run_sync(_hasher.verify, password_hash, password, limiter=_AT_ONCE)
    except (Argon2Error, InvalidHashError):
        return False
