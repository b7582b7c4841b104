"""Links that open something once, for a while: the console, or the page where an operator sets a password."""

import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.access.console_sessions import digest_of
from tenants.core.clock import Clock
from tenants.core.errors import NotFoundError
from tenants.core.naming import AccountKind, AccountName, Naming
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import Account, AccountState, OneTimeLink, Purpose, Role

LOGIN_SECONDS = 900.0
ONBOARDING_SECONDS = 3 * 86400.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """A link to the page where an operator sets a password.

    Attributes:
        incarnation: of the account that it is for.
    """

    instance_name: str
    operator: str
    incarnation: str
    created_by: str


async def make_login(services: Services, role: Role, cause: Cause) -> str:
    """The secret of a link that lets its bearer in once, within `LOGIN_SECONDS`."""
    async with services.database.write() as session:
        return _add(services.clock, session, cause, LOGIN_SECONDS, purpose=Purpose.LOGIN, role=role)


async def make_onboarding(services: Services, instance_name: str, operator: str, cause: Cause) -> str:
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
            cause,
            "operator invited",
            instance_name=instance_name,
            what=operator,
        )
        return _add(
            services.clock,
            session,
            cause,
            ONBOARDING_SECONDS,
            purpose=Purpose.ONBOARDING,
            instance_name=instance_name,
            operator=operator,
            incarnation=account.incarnation,
        )


async def find(services: Services, purpose: Purpose, secret: str) -> OneTimeLink | None:
    """The link, if it has not expired or been used."""
    async with services.database.read() as session:
        link: OneTimeLink | None = await session.scalar(
            select(OneTimeLink).where(_opens(services.clock, purpose, secret))
        )
        return link if link is not None and await _is_of_somebody(services.naming, session, link) else None


async def find_invitation(services: Services, secret: str) -> Invitation | None:
    """The invitation, if it has not expired or been used."""
    link = await find(services, Purpose.ONBOARDING, secret)
    if link is None or link.instance_name is None or link.operator is None:
        return None
    return Invitation(link.instance_name, link.operator, link.incarnation, link.created_by)


async def take(services: Services, purpose: Purpose, secret: str) -> OneTimeLink | None:
    """The link, which is used up now; None when it has expired or somebody else was first."""
    async with services.database.write() as session:
        taken: OneTimeLink | None = await session.scalar(
            delete(OneTimeLink).where(_opens(services.clock, purpose, secret)).returning(OneTimeLink)
        )
        return taken if taken is not None and await _is_of_somebody(services.naming, session, taken) else None


def _opens(clock: Clock, purpose: Purpose, secret: str) -> ColumnElement[bool]:
    return and_(
        OneTimeLink.digest == digest_of(secret),
        OneTimeLink.purpose == purpose,
        OneTimeLink.expires_at > clock(),
    )


async def _is_of_somebody(naming: Naming, session: AsyncSession, link: OneTimeLink) -> bool:
    """Whether it is for nobody in particular, or for an operator who is still there; not for another of that name."""
    if link.instance_name is None or link.operator is None:
        return True
    name = AccountName(AccountKind.OPERATOR, link.operator, link.instance_name)
    account = await session.get(Account, naming.username(name))
    return account is not None and account.incarnation == link.incarnation


def _add(clock: Clock, session: AsyncSession, cause: Cause, seconds: float, **values: object) -> str:
    now, secret = clock(), secrets.token_urlsafe(24)
    session.add(
        OneTimeLink(
            digest=digest_of(secret), created_by=cause.actor[:80], created_at=now, expires_at=now + seconds, **values
        )
    )
    return secret
