"""Visitors online: what LHC tells of them becomes a session row and a command to the tenant's shard.

The row is what a pool process restores after a restart, and what `user_sessions_info` answers from; the command is
what makes the pool act at once.
"""

import re
import uuid

from sqlalchemy import select, update

from tenants.commands import SendMessage, ShowVisitor
from tenants.models import Account, Tenant, VisitorSession
from tenants.naming import AccountName
from tenants.services import Services

DEFAULT_NICK = "Online visitor"
DEFAULT_STATUS = "-"
RESOURCE = "lhc"
"""The resource of every virtual session."""

_LINE_END = re.compile("\r\n?")
_FORBIDDEN_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text as XML can carry it: line ends are line feeds (XML 1.0, 2.11), what it forbids (2.2) becomes U+FFFD.

    A visitor's message must not be lost for a vertical tab that came with a paste, and must not break the stream.
    """
    return _FORBIDDEN_IN_XML.sub("\ufffd", _LINE_END.sub("\n", text))


async def find_session(services: Services, username: str) -> VisitorSession | None:
    """The visitor's session, while it is online."""
    async with services.database.read() as session:
        found: VisitorSession | None = await session.scalar(
            select(VisitorSession).where(
                VisitorSession.username == username, VisitorSession.online_until > services.clock()
            )
        )
    return found


async def show(services: Services, tenant: Tenant, name: AccountName, nick: str, status: str | None) -> None:
    """A page view: the visitor is online from now for the tenant's window. `status` None keeps the present one.

    Raises:
        QueueUnavailableError: the command could not be accepted.
    """
    await services.commands.publish(await _store(services, tenant, name, nick, status))


async def send(
    services: Services,
    tenant: Tenant,
    name: AccountName,
    operator: AccountName,
    *,
    body: str,
    nick: str,
    status: str | None,
) -> None:
    """A message to an operator; it counts as activity, so the visitor is online as by a page view.

    Raises:
        QueueUnavailableError: the message could not be accepted.
    """
    shown = await _store(services, tenant, name, nick, status)
    message = SendMessage(
        instance_name=name.instance,
        username=shown.username,
        operator=services.naming.username(operator),
        body=clean(body),
        message_id=uuid.uuid4().hex,
    )
    await services.commands.publish(shown, message)


async def _store(services: Services, tenant: Tenant, name: AccountName, nick: str, status: str | None) -> ShowVisitor:
    username = services.naming.username(name)
    now = services.clock()
    online_until = now + tenant.online_seconds
    values = {"nick": clean(nick), "status": clean(status or ""), "online_until": online_until}
    changed = dict(values)
    if status is None:
        del changed["status"]
    async with services.database.write() as session:
        stored = await session.execute(
            services.database.insert(VisitorSession)
            .values(username=username, instance_name=name.instance, **values)
            .on_conflict_do_update(index_elements=["username"], set_={**changed, "version": VisitorSession.version + 1})
            .returning(VisitorSession.status, VisitorSession.version)
        )
        kept_status, version = stored.one()
        await session.execute(update(Account).where(Account.username == username).values(last_active_at=now))
    return ShowVisitor(
        instance_name=name.instance,
        username=username,
        nick=clean(nick),
        status=kept_status,
        online_until=online_until,
        version=version,
    )
