"""Visitors online: what LHC tells of them becomes a session row and a command to the tenant's shard.

The row is what a pool process restores after a restart, and what `user_sessions_info` answers from; the command is
what makes the pool act at once.
"""

import uuid
from dataclasses import replace

from sqlalchemy import select

from tenants.core.naming import AccountKind, AccountName
from tenants.core.text import DEFAULT_NICK, clean
from tenants.process.cache import KnownVisitor
from tenants.process.services import Services
from tenants.shards.commands import SendMessage, ShowVisitor
from tenants.store.models import Tenant, VisitorSession
from tenants.visitors import sessions
from tenants.visitors.sessions import VisitorView

DEFAULT_STATUS = "-"
RESOURCE = "lhc"
"""The resource of every virtual session."""


async def find_session(services: Services, username: str) -> VisitorSession | None:
    """The visitor's session, while it is online."""
    async with services.database.read() as session:
        found: VisitorSession | None = await session.scalar(
            select(VisitorSession).where(sessions.online(username, services.clock()))
        )
    return found


async def check_quota(services: Services, tenant: Tenant, name: AccountName) -> None:
    """Whether the visitor may come online; asked before an account is made for it, and again by `show`.

    Raises:
        QuotaExceededError: it would be one more than the tenant may have.
    """
    if _is_counted(tenant, name):
        async with services.database.read() as session:
            if not await sessions.is_online(session, services.naming.username(name), services.clock()):
                await sessions.refuse_crowd(session, services.naming, tenant, services.clock())


async def show(services: Services, tenant: Tenant, name: AccountName, nick: str | None, status: str | None) -> None:
    """A page view: the visitor is online from now for the tenant's window. `nick`, `status` None keep the present ones.

    Raises:
        ConflictError: the tenant was shut just now, or lost the feature.
        QuotaExceededError: the visitor would be one more than the tenant may have.
        UnavailableError: the account is gone, or being removed just now.
        QueueUnavailableError: the command could not be accepted.
    """
    said = _view(services, tenant, name, nick, status)
    if _is_counted(tenant, name):
        shown = await sessions.store_counted(services, tenant, said)
    else:
        shown = await sessions.store(services, said)
    await services.commands.publish(shown)
    _remember(services, shown)


async def send(
    services: Services,
    tenant: Tenant,
    name: AccountName,
    operator: AccountName,
    *,
    body: str,
    nick: str | None,
    status: str | None,
) -> None:
    """A message to an operator; it counts as activity, so the visitor is online as by a page view.

    However many are: what a person wrote is not lost for that. `nick`, `status` None keep the present ones.

    Raises:
        ConflictError: the tenant was shut just now, or lost the feature.
        UnavailableError: the account is gone, or being removed just now.
        QueueUnavailableError: the message could not be accepted.
    """
    shown = await sessions.store(services, _view(services, tenant, name, nick, status))
    message = _message(tenant, shown.username, services.naming.username(operator), body)
    await services.commands.publish(shown, message)
    _remember(services, shown)


async def show_known(services: Services, tenant: Tenant, visitor: KnownVisitor, nick: str, status: str | None) -> None:
    """`show`, for a visitor who is known from memory to be online, and so counts already.

    Without news its window is only noted to be longer, and stored soon.

    Raises:
        as `show`; UnavailableError also when the account has another password by now.
    """
    if nick == visitor.nick and status in {None, visitor.status}:
        services.cache.renew(visitor, services.clock() + tenant.online_seconds, viewed=status is not None)
        return
    name = services.naming.parse_username(visitor.username)
    said = _view(services, tenant, name, nick, status, password_digest=visitor.password_digest)
    shown = await sessions.store(services, said)
    await services.commands.publish(shown)
    _remember(services, shown)


async def show_again(services: Services, tenant: Tenant, visitor: KnownVisitor, over: int) -> bool:
    """Show what a known visitor said last and nobody stored, in place of the session of version `over` (0: of none).

    Returns:
        whether the visitor is shown; not if there is another session by now.

    Raises:
        as `show`.
    """
    name = services.naming.parse_username(visitor.username)
    said = replace(_view(services, tenant, name, visitor.nick, visitor.status), over=over)
    shown = await sessions.store_over(services, tenant if _is_counted(tenant, name) else None, said)
    if shown is None:
        return False
    await services.commands.publish(shown)
    _remember(services, shown)
    return True


async def send_known(
    services: Services, tenant: Tenant, visitor: KnownVisitor, operator: AccountName, body: str
) -> None:
    """A message of a visitor who was shown just now, to an operator of the same tenant.

    Raises:
        QueueUnavailableError: the message could not be accepted.
    """
    await services.commands.publish(_message(tenant, visitor.username, services.naming.username(operator), body))


def _message(tenant: Tenant, username: str, operator: str, body: str) -> SendMessage:
    return SendMessage(
        instance_name=tenant.instance_name,
        incarnation=tenant.incarnation,
        username=username,
        operator=operator,
        body=clean(body),
        message_id=uuid.uuid4().hex,
    )


def _remember(services: Services, shown: ShowVisitor) -> None:
    """Only what the pool will be told: a page view that was refused is not known as one that was seen."""
    services.cache.keep_session(shown.username, shown.nick, shown.status, shown.online_until, shown.version)


def _view(
    services: Services,
    tenant: Tenant,
    name: AccountName,
    nick: str | None,
    status: str | None,
    *,
    password_digest: str | None = None,
) -> VisitorView:
    return VisitorView(
        name,
        services.naming.username(name),
        DEFAULT_NICK if nick is None else clean(nick),
        "" if status is None else clean(status),
        services.clock() + tenant.online_seconds,
        keeps_nick=nick is None,
        keeps_status=status is None,
        password_digest=password_digest,
        incarnation=tenant.incarnation,
    )


def _is_counted(tenant: Tenant, name: AccountName) -> bool:
    """Whether the quota of visitors online is of concern. Chats are not: somebody waits for an answer there."""
    return tenant.max_online_visitors is not None and name.kind is AccountKind.VISITOR
