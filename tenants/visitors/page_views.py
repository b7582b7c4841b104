"""What follows from a page view, whichever door it came through.

    a door (JSON face, XML-RPC face, tenant's API, fast path): parses the call, words the answer
      -> view_page         is the tenant open? a visitor too many? account and password
           -> presence.show    session row (`sessions`), command to the pool, memory of this process
      -> view_known_page   the same from memory: password, rate of calls
           -> no news: noted in memory, stored soon by `write_behind`; news: presence.show_known

A door that asks the database has counted the call before it parses it, also one that is refused. The fast path has it
counted here, since what it does not answer itself goes on to another door, which counts it.
"""

from dataclasses import dataclass

from tenants.accounts import accounts
from tenants.core.digests import matches
from tenants.core.errors import DomainError, QuotaExceededError
from tenants.core.naming import AccountName
from tenants.lifecycle import admission
from tenants.process.cache import KnownVisitor
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.shards.queues import QueueUnavailableError
from tenants.store.models import Tenant
from tenants.visitors import presence


class WrongPasswordError(DomainError):
    """The visitor's account has another password."""


async def view_page(services: Services, visitor: AccountName, *, password: str | None, nick: str, status: str) -> float:
    """The visitor is on a page, and online from now. An account that does not exist is made.

    `password` None: the tenant itself speaks for its visitor.

    Returns:
        until when the visitor is online (Unix seconds).

    Raises:
        WrongPasswordError: nothing has changed.
        NotFoundError: there is no such tenant.
        ConflictError: it is not active, or lacks the feature.
        QuotaExceededError: the visitor, or its account, would be one more than the tenant may have.
        UnavailableError: account or session cannot be made now; or the pool cannot be told (QueueUnavailableError).
    """
    tenant = await admission.recent(services, visitor.instance, visitor.kind)
    await presence.check_quota(services, tenant, visitor)
    await check_password(services, tenant, visitor, password, nick)
    return await presence.show(services, tenant, visitor, nick, status)


async def register_online(services: Services, visitor: AccountName, *, password: str, nick: str, status: str) -> None:
    """A new visitor or chat account with that password, or a new password of one that there is; online at once.

    Raises:
        as `view_page`; TakenError: ejabberd has an account of that name which the registry does not know.
    """
    tenant = await admission.recent(services, visitor.instance, visitor.kind)
    await presence.check_quota(services, tenant, visitor)
    await accounts.register_visitor(services, tenant, visitor, password, nick)
    await presence.show(services, tenant, visitor, nick, status)


async def check_password(
    services: Services, tenant: Tenant, visitor: AccountName, password: str | None, nick: str
) -> None:
    """Whether the password is right, of an account that is made if need be. `password` None: none is needed.

    Raises:
        as `view_page`.
    """
    if password is None:
        await accounts.ensure(services, tenant, visitor, nick)
    elif not await accounts.ensure_visitor(services, tenant, visitor, password, nick):
        raise WrongPasswordError("the visitor's password is another one")


@dataclass(frozen=True, slots=True)
class Recalled:
    """A visitor who is online, and its tenant, which carries its traffic, as this process knows them."""

    tenant: Tenant
    visitor: KnownVisitor


def recall(services: Services, username: str) -> Recalled | None:
    """The visitor of that username and its tenant, if both are known well enough (`tenants.process.cache`).

    Raises:
        InvalidInputError: it is nobody's name.
    """
    tenant = services.cache.tenants.get(services.naming.parse_username(username).instance)
    visitor = services.cache.visitor(username, tenant.incarnation) if tenant is not None else None
    if tenant is None or visitor is None or admission.refusal(tenant, visitor.kind):
        return None
    return Recalled(tenant, visitor)


async def view_known_page(
    services: Services, known: Recalled, *, password: str | None, nick: str, status: str
) -> float | None:
    """`view_page` of a visitor who is known; without a database query if there is no news.

    Returns:
        until when the visitor is online. None: nothing has changed, and `view_page` is to judge the call.

    Raises:
        QueueUnavailableError, DATABASE_AWAY: it could not be stored, or not be told.
    """
    if not may_speak_from_memory(services, known, password, CallKind.PAGE_VIEW):
        return None
    return await show_known(services, known, nick, status)


def may_speak_from_memory(services: Services, known: Recalled, password: str | None, kind: CallKind) -> bool:
    """Whether the password is right, and the tenant may make one more call now; then the call is counted."""
    if password is not None and not matches(known.visitor.username, password, known.visitor.password_digest):
        return False
    try:
        services.calls.admit_at_once(known.tenant, kind)
    except QuotaExceededError:
        return False
    return True


async def show_known(services: Services, known: Recalled, nick: str, status: str | None) -> float | None:
    """The visitor was active just now. `status` None: it did not view a page, and the status stays as it is.

    Returns, raises: as `view_known_page`.
    """
    tenant, visitor = known.tenant, known.visitor
    if nick == visitor.nick and status in {None, visitor.status}:
        online_until = services.clock() + tenant.online_seconds
        services.cache.renew(visitor, online_until, viewed=status is not None)
        return online_until
    try:
        return await presence.show_known(services, tenant, visitor, nick, status)
    except QueueUnavailableError:
        raise
    except DomainError:
        # the visitor or the tenant is not quite as it was known; nothing has changed yet
        services.cache.forget_visitor(visitor.username)
        return None
