"""Visitors online: what LHC tells of them becomes a session row and a command to the tenant's shard.

The row is what a pool process restores after a restart, and what `user_sessions_info` answers from; the command is
what makes the pool act at once.
"""

import re
import uuid

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants import admission
from tenants.commands import SendMessage, ShowVisitor
from tenants.database import rows_changed
from tenants.errors import InvalidInputError, QuotaExceededError, UnavailableError
from tenants.models import Account, AccountState, Tenant, VisitorSession
from tenants.naming import AccountKind, AccountName, Naming
from tenants.services import Services

DEFAULT_NICK = "Online visitor"
DEFAULT_STATUS = "-"
RESOURCE = "lhc"
"""The resource of every virtual session."""

_CROWD_SECONDS = 30.0
"""When a visitor who was one too many may try again: somebody will have left."""

_LINE_END = re.compile("\r\n?")
_FORBIDDEN_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text as XML can carry it: line ends are line feeds (XML 1.0, 2.11), what it forbids (2.2) becomes U+FFFD.

    A visitor's message must not be lost for a vertical tab that came with a paste, and must not break the stream.
    """
    return _FORBIDDEN_IN_XML.sub("\ufffd", _LINE_END.sub("\n", text))


def check_text(text: str, field: str) -> str:
    """The text with line feeds for line ends, which is how it arrives.

    Raises:
        InvalidInputError: it holds what XML forbids, and could not arrive as it is.
    """
    if _FORBIDDEN_IN_XML.search(text):
        raise InvalidInputError(field, "must not hold control characters or surrogates (XML 1.0, 2.2)")
    return _LINE_END.sub("\n", text)


async def find_session(services: Services, username: str) -> VisitorSession | None:
    """The visitor's session, while it is online."""
    async with services.database.read() as session:
        found: VisitorSession | None = await session.scalar(
            select(VisitorSession).where(_online(username, services.clock()))
        )
    return found


async def check_room(services: Services, tenant: Tenant, name: AccountName) -> None:
    """Whether the visitor may come online; asked before an account is made for it, and again by `show`.

    Raises:
        QuotaExceededError: it would be one more than the tenant may have.
    """
    if _is_counted(tenant, name):
        async with services.database.read() as session:
            if not await _is_online(session, services.naming.username(name), services.clock()):
                await _refuse_crowd(session, services.naming, tenant, services.clock())


async def show(services: Services, tenant: Tenant, name: AccountName, nick: str, status: str | None) -> None:
    """A page view: the visitor is online from now for the tenant's window. `status` None keeps the present one.

    Raises:
        ConflictError: the tenant was shut just now, or lost the feature.
        QuotaExceededError: the visitor would be one more than the tenant may have.
        UnavailableError: the account is gone, or being removed just now.
        QueueUnavailableError: the command could not be accepted.
    """
    shown = await _store(services, tenant, name, nick, status, counted=_is_counted(tenant, name))
    await services.commands.publish(shown)
    _remember(services, shown)


async def keep_online(services: Services, tenant: Tenant, name: AccountName, nick: str) -> None:
    """Who writes is online: shown again when not half of the window is left, which costs little in a lively chat.

    Raises:
        as `show`.
    """
    found = await find_session(services, services.naming.username(name))
    if found is None or found.online_until < services.clock() + tenant.online_seconds / 2:
        await show(services, tenant, name, nick, None)


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
    shown = await _store(services, tenant, name, nick, status, counted=False)
    message = SendMessage(
        instance_name=name.instance,
        username=shown.username,
        operator=services.naming.username(operator),
        body=clean(body),
        message_id=uuid.uuid4().hex,
    )
    await services.commands.publish(shown, message)
    _remember(services, shown)


def _remember(services: Services, shown: ShowVisitor) -> None:
    """Only what the pool will be told: a page view that was refused is not known as one that was seen."""
    services.known.keep_session(shown.username, shown.nick, shown.status, shown.online_until, shown.version)


async def _store(
    services: Services, tenant: Tenant, name: AccountName, nick: str | None, status: str | None, *, counted: bool
) -> ShowVisitor:
    username = services.naming.username(name)
    now = services.clock()
    online_until = now + tenant.online_seconds
    said = {key: clean(text) for key, text in (("nick", nick), ("status", status)) if text is not None}
    new = {"nick": DEFAULT_NICK, "status": "", **said, "online_until": online_until}
    changed = {**said, "online_until": online_until, "version": VisitorSession.version + 1}
    async with services.database.write() as session:
        further = counted and not await _is_online(session, username, now)
        # The door may have been closed since it was asked. Further visitors come one by one, to be counted.
        await admission.hold(session, name.instance, name.kind, alone=further)
        if further:
            await _refuse_crowd(session, services.naming, tenant, now)
        stored = await session.execute(
            services.database.insert(VisitorSession)
            .values(username=username, instance_name=name.instance, **new)
            .on_conflict_do_update(index_elements=["username"], set_=changed)
            .returning(VisitorSession.nick, VisitorSession.status, VisitorSession.version)
        )
        present_nick, present_status, version = stored.one()
        touched = await session.execute(
            update(Account)
            .where(Account.username == username, Account.state == AccountState.ACTIVE)
            .values(last_active_at=now)
        )
        if not rows_changed(touched):
            raise UnavailableError(f"account '{username}' is being removed just now; it can be made anew in a moment")
    return ShowVisitor(
        instance_name=name.instance,
        username=username,
        nick=present_nick,
        status=present_status,
        online_until=online_until,
        version=version,
    )


def _is_counted(tenant: Tenant, name: AccountName) -> bool:
    """Whether the quota of visitors online is of concern. Chats are not: somebody waits for an answer there."""
    return tenant.max_online_visitors is not None and name.kind is AccountKind.VISITOR


async def _is_online(session: AsyncSession, username: str, now: float) -> bool:
    return await session.scalar(select(VisitorSession.username).where(_online(username, now))) is not None


def _online(username: str, now: float) -> ColumnElement[bool]:
    return and_(VisitorSession.username == username, VisitorSession.online_until > now)


async def _refuse_crowd(session: AsyncSession, naming: Naming, tenant: Tenant, now: float) -> None:
    """Raise QuotaExceededError when no further visitor of the tenant may come online."""
    online = await session.scalar(
        select(func.count())
        .select_from(VisitorSession)
        .where(
            VisitorSession.instance_name == tenant.instance_name,
            VisitorSession.online_until > now,
            VisitorSession.username.not_like(f"%.chat{naming.username_suffix(tenant.instance_name)}"),
        )
    )
    if (online or 0) >= (tenant.max_online_visitors or 0):
        raise QuotaExceededError(
            f"tenant '{tenant.instance_name}' may have {tenant.max_online_visitors} visitors online", _CROWD_SECONDS
        )
