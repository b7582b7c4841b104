"""Operators of a tenant as its API knows them: an account, what it is for, and who of them is online."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from tenants.access import one_time_links, passwords
from tenants.access.one_time_links import Invitation
from tenants.accounts import accounts, removal, rows
from tenants.core.digests import new_key
from tenants.core.errors import ConflictError, NotFoundError
from tenants.core.naming import AccountKind, AccountName, check_operator
from tenants.ejabberd.client import ClientConnection
from tenants.lifecycle import audit, hosts
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.database import Database
from tenants.store.models import Account, AccountState, Operator, Tenant

_ASKED_AT_ONCE = 10
KICKED = "Disconnected by the administrator"
_REPLACED = "A new password was set by an invitation"
_TOLD = (
    "At {at:%Y-%m-%d %H:%M} UTC the administration made an invitation to set a new password for your account {user}."
    " Whoever uses it can log in as you, and your password has stopped working. If you did not ask for it, tell your"
    " administrator at once."
)


@dataclass(frozen=True, slots=True)
class OperatorSummary:
    """An operator. `connections`: none while offline."""

    username: str
    lhc_user_id: int | None
    nick: str | None
    departments: list[str] | None
    receives_new_chats: bool
    created_at: float
    connections: Sequence[ClientConnection]


def name_of(instance_name: str, username: str) -> AccountName:
    """The operator's account by its username without the instance.

    Raises:
        InvalidInputError: an operator may not bear that name.
    """
    return AccountName(AccountKind.OPERATOR, check_operator(username), instance_name)


async def put(
    services: Services, tenant: Tenant, username: str, changes: Mapping[str, Any], password: str | None
) -> bool:
    """Create the operator, or change what it is for, and its password when one is given. True when it is new.

    Raises:
        InvalidInputError: the name or the password breaks a rule; or a new operator has no password.
        ConflictError: the tenant is shut; or ejabberd has such an account that is not the tenant's.
        QuotaExceededError: it would be one more than the tenant may have.
    """
    name = name_of(tenant.instance_name, username)
    known = await rows.find_when_free(services, name)
    is_new = known is None or known.state is AccountState.PENDING
    if is_new and password is None:
        raise NotFoundError(f"tenant '{tenant.instance_name}' has no operator '{username}'; a new one needs a password")
    if password is not None:
        passwords.check_chosen(password, unlike=passwords.names(name.ident, name.instance))
        await accounts.register(services, tenant, name, password)
        await accounts.join_roster(services, name, changes.get("nick"))
    stored = {"username": services.naming.username(name), "instance_name": tenant.instance_name}
    defaults = {"departments": None, "receives_new_chats": True, "lhc_user_id": None, "nick": None}
    insert = services.database.insert(Operator).values(**stored, **{**defaults, **changes})
    async with services.database.write() as session:
        if changes:
            await session.execute(insert.on_conflict_do_update(index_elements=["username"], set_=dict(changes)))
        else:
            await session.execute(insert.on_conflict_do_nothing())
    return is_new


async def get(services: Services, instance_name: str, username: str) -> OperatorSummary:
    """The operator as it is now.

    Raises:
        NotFoundError: the tenant has none of that name.
    """
    full = services.naming.username(name_of(instance_name, username))
    async with services.database.read() as session:
        account, operator = await session.get(Account, full), await session.get(Operator, full)
    if account is None or account.kind is not AccountKind.OPERATOR or account.state is AccountState.REMOVING:
        raise NotFoundError(f"tenant '{instance_name}' has no operator '{username}'")
    return await _view(services, account, operator)


async def find(services: Services, instance_name: str, *, after: str = "", limit: int = 50) -> list[OperatorSummary]:
    """The tenant's operators by name, with their connections."""
    suffix = services.naming.username_suffix(instance_name)
    async with services.database.read() as session:
        rows = await session.execute(
            select(Account, Operator)
            .outerjoin(Operator, Operator.username == Account.username)
            .where(
                Account.instance_name == instance_name,
                Account.kind == AccountKind.OPERATOR,
                Account.state != AccountState.REMOVING,
                Account.username > (f"{after}{suffix}" if after else ""),
            )
            .order_by(Account.username)
            .limit(limit)
        )
        found = rows.all()
    gate = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def view(account: Account, operator: Operator | None) -> OperatorSummary:
        async with gate:
            return await _view(services, account, operator)

    return list(await asyncio.gather(*(view(account, operator) for account, operator in found)))


async def homes_of(database: Database, usernames: Collection[str]) -> dict[str, str]:
    """The hosts of those of these names that the registry knows as operators: ejabberd may have accounts of others.

    Raises:
        DATABASE_AWAY: they could not be read.
    """
    query = (
        select(Account.username, Tenant.xmpp_host)
        .join(Tenant, Tenant.instance_name == Account.instance_name)
        .where(Account.username.in_(usernames), Account.kind == AccountKind.OPERATOR)
    )
    async with database.read() as session:
        return {username: host for username, host in await session.execute(query)}  # noqa: C416 - rows are no tuples to mypy


async def add_and_invite(services: Services, tenant: Tenant, username: str, cause: Cause) -> str:
    """A new operator with a password that nobody knows; gives the secret of the page where one is set.

    Raises:
        ConflictError: there is such an operator already; or as `put`.
        InvalidInputError, QuotaExceededError: as `put`.
    """
    known = await rows.find_when_free(services, name_of(tenant.instance_name, username))
    if known is not None and known.state is AccountState.ACTIVE:
        raise ConflictError(f"tenant '{tenant.instance_name}' has an operator '{username}': invite that one")
    if not await put(services, tenant, username, {}, new_key()):
        # somebody else was quicker, and may have handed the account on already
        await _tell(services, tenant.instance_name, username)
    return await one_time_links.make_onboarding(services, tenant.instance_name, username, cause)


async def invite(services: Services, instance_name: str, username: str, cause: Cause) -> str:
    """The secret of a page where the operator sets a new password; the operator is told that there is one.

    Raises:
        NotFoundError: the tenant has none of that name.
        UnavailableError: the operator cannot be told, and is not invited.
    """
    await get(services, instance_name, username)
    await _tell(services, instance_name, username)
    return await one_time_links.make_onboarding(services, instance_name, username, cause)


async def _tell(services: Services, instance_name: str, username: str) -> None:
    full = services.naming.username(name_of(instance_name, username))
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    at = datetime.fromtimestamp(services.clock(), UTC)
    await ejabberd.tell(full, _TOLD.format(at=at, user=f"{full}@{ejabberd.host}"))


async def accept_invitation(services: Services, invitation: Invitation, password: str, address: str) -> None:
    """Set the password that was chosen, and end the connections that were opened with the one before.

    Raises:
        DomainError: as `accounts.change_password`.
    """
    name = name_of(invitation.instance_name, invitation.operator)
    await accounts.change_password(services, name, password, incarnation=invitation.incarnation)
    operator = await get(services, invitation.instance_name, invitation.operator)
    await _disconnect(services, operator, invitation.instance_name, _REPLACED)
    what = f"{invitation.operator}, by an invitation that {invitation.created_by} made, from {address}"
    await audit.note(services, Cause(f"operator {invitation.operator}"), invitation.instance_name, "password set", what)


async def remove(services: Services, instance_name: str, username: str) -> None:
    """End the operator's account; one that is gone already is a success."""
    await removal.remove(services, name_of(instance_name, username))


async def kick(services: Services, instance_name: str, username: str, cause: Cause) -> int:
    """End the operator's connections. Returns how many there were.

    Raises:
        NotFoundError: the tenant has none of that name.
    """
    operator = await get(services, instance_name, username)
    await _disconnect(services, operator, instance_name, KICKED)
    if operator.connections:
        await audit.note(services, cause, instance_name, "operator disconnected", username)
    return len(operator.connections)


async def _disconnect(services: Services, operator: OperatorSummary, instance_name: str, reason: str) -> None:
    full = services.naming.username(name_of(instance_name, operator.username))
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    for connection in operator.connections:
        await ejabberd.kick(full, connection.resource, reason)


async def _view(services: Services, account: Account, operator: Operator | None) -> OperatorSummary:
    name = services.naming.parse_username(account.username)
    ejabberd = await hosts.ejabberd_of(services, name.instance)
    return OperatorSummary(
        username=name.ident,
        lhc_user_id=operator.lhc_user_id if operator else None,
        nick=operator.nick if operator else None,
        departments=operator.departments if operator else None,
        receives_new_chats=operator.receives_new_chats if operator else True,
        created_at=account.created_at,
        connections=await ejabberd.connections(account.username),
    )
