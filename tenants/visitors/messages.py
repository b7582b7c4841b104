"""What follows when a visitor writes to an operator of its tenant, whichever door it came through.

The sequence is that of a page view (`tenants.visitors.page_views`), without the quota of visitors online. Chats that
the orchestrator routes itself are in `tenants.conversations`.
"""

from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountKind, AccountName
from tenants.core.text import DEFAULT_NICK
from tenants.lifecycle import admission
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services
from tenants.store.models import Tenant
from tenants.visitors import page_views, presence
from tenants.visitors.page_views import Recalled


async def write(
    services: Services,
    visitor: AccountName,
    operator: AccountName,
    *,
    body: str,
    password: str | None,
    nick: str | None,
    status: str | None,
    field: str = "operator",
    has_browser: bool = False,
) -> None:
    """The visitor writes to the operator, and is online from now. `nick`, `status` None: the present ones.

    `field`: what the caller calls the operator. `has_browser`: operators see the visitor's own client, and need see no
    second one.

    Raises:
        InvalidInputError: it is no operator of the visitor's tenant; named as `field`.
        as `page_views.view_page`.
    """
    tenant = await admission.recent(services, visitor.instance, visitor.kind)
    if not _is_operator_of(tenant, operator):
        raise InvalidInputError(field, "must be an operator of the visitor's own instance")
    await page_views.check_password(services, tenant, visitor, password, DEFAULT_NICK if nick is None else nick)
    if has_browser:
        username = services.naming.username(visitor)
        await services.commands.publish(presence.message(services.naming, tenant, username, operator, body))
    else:
        await presence.send(services, tenant, visitor, operator, body=body, nick=nick, status=status)


async def write_known(
    services: Services,
    known: Recalled,
    operator: AccountName,
    *,
    body: str,
    password: str,
    nick: str,
    status: str | None,
) -> float | None:
    """`write` of a visitor who is known; without a database query if nick and status are no news.

    Returns:
        until when the visitor is online (Unix seconds). None: nothing has changed, and `write` is to judge the call.

    Raises:
        QueueUnavailableError, DATABASE_AWAY: it could not be stored, or not be told.
    """
    if not _is_operator_of(known.tenant, operator):
        return None
    if not page_views.may_speak_from_memory(services, known, password, CallKind.OTHER):
        return None
    online_until = await page_views.show_known(services, known, nick, status)
    if online_until is not None:
        message = presence.message(services.naming, known.tenant, known.visitor.username, operator, body)
        await services.commands.publish(message)
    return online_until


def _is_operator_of(tenant: Tenant, name: AccountName) -> bool:
    return (name.kind, name.instance) == (AccountKind.OPERATOR, tenant.instance_name)
