"""Shows visitors as online: what they said becomes a session row and a command to the tenant's shard.

Whether they may is asked before, in `tenants.visitors.page_views` and `tenants.visitors.messages`.

The row is what a pool process restores after a restart, and what `user_sessions_info` answers from; the command is
what makes the pool act at once.
"""

import uuid
from dataclasses import replace

from sqlalchemy import select

from tenants.accounts import rows
from tenants.core.naming import AccountKind, AccountName, Naming
from tenants.core.text import DEFAULT_NICK, clean
from tenants.lifecycle import admission
from tenants.process.cache import KnownVisitor
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.models import AccountState, Tenant, VisitorSession
from tenants.visitors import sessions
from tenants.visitors.sessions import Policy, VisitorView

RESOURCE = "lhc"
"""The resource of every virtual session."""
SAID = "said-"
"""How the ids of visitors' messages begin of which nothing is kept: an answer to one is known as such."""


async def find_session(services: Services, name: AccountName) -> VisitorSession | None:
    """The visitor's virtual session, while it is online; operators have none."""
    if name.kind is AccountKind.OPERATOR:
        return None
    username = services.naming.username(name)
    async with services.database.read() as session:
        found: VisitorSession | None = await session.scalar(
            select(VisitorSession).where(sessions.online(username, services.clock()))
        )
    return found


async def has_account(services: Services, name: AccountName) -> bool:
    """Whether it is a visitor or a chat that can be shown as online; operators cannot."""
    if name.kind is AccountKind.OPERATOR:
        return False
    account = await rows.find(services, name)
    return account is not None and account.state is AccountState.ACTIVE


async def check_quota(services: Services, tenant: Tenant, name: AccountName) -> None:
    """Whether the visitor may come online; asked before an account is made for it, and again by `show`.

    Raises:
        QuotaExceededError: it would be one more than the tenant may have.
    """
    if _is_counted(tenant, name):
        async with services.database.read() as session:
            if not await sessions.is_online(session, services.naming.username(name), services.clock()):
                await sessions.refuse_crowd(session, services.naming, tenant, services.clock())


async def show(services: Services, tenant: Tenant, name: AccountName, nick: str | None, status: str | None) -> float:
    """The visitor is online from now for the tenant's window. `nick`, `status` None keep the present ones.

    Returns:
        the end of the window (Unix seconds).

    Raises:
        ConflictError: the tenant was shut just now, or lost the feature.
        QuotaExceededError: the visitor would be one more than the tenant may have.
        UnavailableError: the account is gone, or being removed just now.
        QueueUnavailableError: the command could not be accepted.
    """
    return await _show(services, _view(services, tenant, name, nick, status), _quota(tenant, name))


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

    The quota of visitors online does not matter: what a person wrote is not lost for that. `nick`, `status` None keep
    the present ones.

    Raises:
        ConflictError: the tenant was shut just now, or lost the feature.
        UnavailableError: the account is gone, or being removed just now.
        QueueUnavailableError: the message could not be accepted.
    """
    view = _view(services, tenant, name, nick, status)
    await _show(services, view, sessions.FREE, message(services.naming, tenant, view.username, operator, body))


async def show_known(services: Services, tenant: Tenant, visitor: KnownVisitor, nick: str, status: str | None) -> float:
    """`show`, for a visitor who is known from memory to be online, and so is counted already.

    Raises:
        as `show`; UnavailableError also when the account has another password by now.
    """
    name = services.naming.parse_username(visitor.username)
    view = _view(services, tenant, name, nick, status)
    return await _show(services, replace(view, password_digest=visitor.password_digest), sessions.FREE)


async def show_again(services: Services, tenant: Tenant, visitor: KnownVisitor, over: int) -> bool:
    """Show what a known visitor said last and nobody stored, in place of the session of version `over` (0: of none).

    Returns:
        whether the visitor is shown; not if there is another session by now.

    Raises:
        as `show`.
    """
    name = services.naming.parse_username(visitor.username)
    view = _view(services, tenant, name, visitor.nick, visitor.status)
    try:
        await _show(services, view, replace(_quota(tenant, name), only_over=over))
    except sessions.NotStoredError:
        return False
    return True


async def change(services: Services, name: AccountName, resource: str, *, nick: str | None, status: str | None) -> None:
    """Another nick and status of one of the visitor's sessions: the virtual one, or one of a client. None: as it is.

    The virtual one begins now, if the visitor has an account: what is to be said of it is said before its first
    message. So the quota does not matter, as with a message.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is not active, or lacks the feature.
        NoSessionError: there is no session of that resource.
        UnavailableError: it cannot be stored, told or changed now.
    """
    tenant = await admission.get(services, name.instance, name.kind)
    if resource == RESOURCE and await has_account(services, name):
        await _show(services, _view(services, tenant, name, nick, status), sessions.FREE)
    else:
        ejabberd = services.ejabberd.at(tenant.xmpp_host)
        await ejabberd.present(services.naming.username(name), resource, nick=nick, status=status)


def message(naming: Naming, tenant: Tenant, username: str, operator: AccountName, body: str) -> SendMessage:
    """The command that takes what the visitor wrote to the operator."""
    return SendMessage(
        instance_name=tenant.instance_name,
        incarnation=tenant.incarnation,
        username=username,
        operator=naming.username(operator),
        body=clean(body),
        message_id=f"{SAID}{uuid.uuid4().hex}",
    )


async def _show(services: Services, view: VisitorView, policy: Policy, *messages: SendMessage) -> float:
    """First the row, then the command, then this process's memory: it knows only what the pool will be told."""
    shown = await sessions.store(services, view, policy)
    await services.commands.publish(shown, *messages)
    services.cache.keep_session(shown.username, shown.nick, shown.status, shown.online_until, shown.version)
    return shown.online_until


def _view(services: Services, tenant: Tenant, name: AccountName, nick: str | None, status: str | None) -> VisitorView:
    return VisitorView(
        name,
        services.naming.username(name),
        DEFAULT_NICK if nick is None else clean(nick),
        "" if status is None else clean(status),
        services.clock() + tenant.online_seconds,
        keeps_nick=nick is None,
        keeps_status=status is None,
        incarnation=tenant.incarnation,
    )


def _quota(tenant: Tenant, name: AccountName) -> Policy:
    return Policy(counted_for=tenant) if _is_counted(tenant, name) else sessions.FREE


def _is_counted(tenant: Tenant, name: AccountName) -> bool:
    """Whether the quota of visitors online is of concern. Chats are not: somebody waits for an answer there."""
    return tenant.max_online_visitors is not None and name.kind is AccountKind.VISITOR
