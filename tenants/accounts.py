"""Accounts of a tenant in ejabberd and in the registry. The registry's row comes first, so a crash leaves no orphan."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import structlog
from sqlalchemy import delete, select, update

from tenants import rosters, scram
from tenants.commands import CloseVisitor
from tenants.database import rows_changed
from tenants.ejabberd import NotAppliedError, PasswordRefusedError, UserExistsError, UserUnknownError
from tenants.errors import ConflictError, InvalidInputError, NotFoundError
from tenants.models import Account, AccountState, Tenant, VisitorSession
from tenants.naming import AccountKind, AccountName, RosterName
from tenants.scram import Verifier
from tenants.secrets import digest, matches
from tenants.services import Services
from tenants.visitors import DEFAULT_NICK, clean

log = structlog.get_logger(__name__)

_EXPIRY_BATCH = 200


class Registered(StrEnum):
    """What registering did."""

    CREATED = "created"
    UPDATED = "updated"
    """It existed and is the tenant's: it has the password now."""


async def find(services: Services, name: AccountName) -> Account | None:
    """The account's row."""
    async with services.database.read() as session:
        return await session.get(Account, services.naming.username(name))


async def register(services: Services, tenant: Tenant, name: AccountName, password: str) -> Registered:
    """Create the account, or set the password of one that is the tenant's already.

    Raises:
        ConflictError: ejabberd has an account of that name which the registry does not know.
        InvalidInputError: the password cannot be one.
    """
    scram.prepare(password)
    username = services.naming.username(name)
    # Asked before our row is there: whoever registers the same name at this moment has put the row there first.
    taken = await services.ejabberd.has_user(username)
    new = await _insert(services, tenant.instance_name, name, _digest(name, username, password))
    if taken and new:
        await _forget_pending(services, username)
        raise ConflictError(f"User {username}@{services.settings.xmpp_host} already registered")
    try:
        await _set_in_ejabberd(services, username, password)
    except InvalidInputError:
        if new:
            await _forget_pending(services, username)
        raise
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username == username)
            .values(state=AccountState.ACTIVE, password_digest=_digest(name, username, password))
        )
    return Registered.CREATED if new else Registered.UPDATED


async def join_roster(services: Services, name: AccountName, nick: str | None = None) -> None:
    """Make the account a contact of its tenant's operators: bearing `nick`, if it is the visitor's own."""
    username = services.naming.username(name)
    if nick and nick != DEFAULT_NICK:
        # before the roster push, which takes the contact's name from here
        await services.ejabberd.set_nickname(username, clean(nick))
    await services.ejabberd.add_to_roster(username, rosters.group_of(services.naming, name.instance, name.roster))


async def leave_roster(services: Services, name: AccountName, roster: RosterName) -> None:
    """Remove the account from the roster; unknown names are a success."""
    await services.ejabberd.remove_from_roster(services.naming.username(name), services.naming.group(roster))


async def change_password(services: Services, name: AccountName, password: str) -> None:
    """Set the account's password.

    Raises:
        NotFoundError: the tenant has no such account.
    """
    username = services.naming.username(name)
    scram.prepare(password)
    if await find(services, name) is None:
        raise NotFoundError(f"there is no account '{username}'")
    # ejabberd first: it may still refuse
    try:
        with _password_refusal_named():
            await services.ejabberd.change_password(username, password)
    except UserUnknownError:
        raise NotFoundError(f"there is no account '{username}'") from None
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username == username)
            .values(password_digest=_digest(name, username, password))
        )


async def remove(services: Services, name: AccountName) -> None:
    """End the account: the visitor leaves, contact and account go. One that is gone already is a success."""
    username = services.naming.username(name)
    if name.kind is not AccountKind.OPERATOR:
        await services.commands.publish(CloseVisitor(instance_name=name.instance, username=username))
    await _remove_from_ejabberd(services, username)
    async with services.database.write() as session:
        await session.execute(delete(VisitorSession).where(VisitorSession.username == username))
        await session.execute(delete(Account).where(Account.username == username))


async def adopt(services: Services, names: Sequence[AccountName]) -> int:
    """Let the registry know accounts that ejabberd has. Returns how many it did not know.

    Which passwords they have only ejabberd knows: it is asked when one is presented.
    """
    now = services.clock()
    adopted = 0
    async with services.database.write() as session:
        for name in names:
            made = await session.scalar(
                services.database.insert(Account)
                .values(
                    username=services.naming.username(name),
                    instance_name=name.instance,
                    kind=name.kind,
                    state=AccountState.ACTIVE,
                    created_at=now,
                    last_active_at=now,
                )
                .on_conflict_do_nothing()
                .returning(Account.username)
            )
            adopted += made is not None
    return adopted


async def install_operator(services: Services, name: AccountName, verifier: Verifier, nick: str | None) -> None:
    """An operator's account by the verifier of its password, a member of its roster. May be repeated at will.

    Raises:
        NotAppliedError: ejabberd did not make the account.
    """
    username = services.naming.username(name)
    await _insert(services, name.instance, name, None)
    outcome = await services.ejabberd.bulk.register({username: verifier})
    if outcome.get(username) not in {"created", "updated"}:
        raise NotAppliedError("lhc_register_scram", 0, f"{username}: {outcome.get(username)}")
    await join_roster(services, name, nick)
    async with services.database.write() as session:
        await session.execute(update(Account).where(Account.username == username).values(state=AccountState.ACTIVE))


async def _remove_from_ejabberd(services: Services, username: str) -> None:
    """Roster member first, so that operators see the contact go; then the account with its sessions."""
    if left := await services.ejabberd.bulk.remove_users([username]):
        raise NotAppliedError("lhc_remove_users", 0, f"{username}: {left.get(username)}")


async def ensure_visitor(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> bool:
    """Whether the visitor's password is right; an account that does not exist is made with it.

    LHC keeps its own row of an account whose registration failed, and later speaks for an account that is not there.
    """
    account = await find(services, name)
    if account is not None and account.state is AccountState.ACTIVE:
        return matches(account.username, password, account.password_digest)
    if not password:
        return False
    await register(services, tenant, name, password)
    await join_roster(services, name, nick)
    return True


async def expire(services: Services) -> int:
    """Remove visitor and chat accounts that were idle for longer than their tenant allows. Returns how many.

    Never an operator, never one that is online; one batch, the next run takes the next.
    """
    now = services.clock()
    async with services.database.read() as session:
        online = select(VisitorSession.username)
        usernames = list(
            await session.scalars(
                select(Account.username)
                .join(Tenant, Tenant.instance_name == Account.instance_name)
                .where(
                    Account.kind != AccountKind.OPERATOR,
                    Account.last_active_at < now - Tenant.idle_hours * 3600,
                    Account.username.not_in(online),
                )
                .order_by(Account.last_active_at)
                .limit(_EXPIRY_BATCH)
            )
        )
    for username in usernames:
        await remove(services, services.naming.parse_username(username))
    if usernames:
        log.info("idle accounts removed", count=len(usernames))
    return len(usernames)


async def _forget_pending(services: Services, username: str) -> None:
    async with services.database.write() as session:
        await session.execute(
            delete(Account).where(Account.username == username, Account.state == AccountState.PENDING)
        )


async def _set_in_ejabberd(services: Services, username: str, password: str) -> None:
    """The account with that password, whether or not it is there yet."""
    with _password_refusal_named():
        try:
            await services.ejabberd.register(username, password)
        except UserExistsError:
            await services.ejabberd.change_password(username, password)


@contextmanager
def _password_refusal_named() -> Iterator[None]:
    """The last word is the one of ejabberd; one of another version may know other characters."""
    try:
        yield
    except PasswordRefusedError:
        raise InvalidInputError("password", "must be one that SASLprep takes (RFC 4013)") from None


async def _insert(services: Services, instance_name: str, name: AccountName, password_digest: str | None) -> bool:
    """Put the row there when it is not. True when this call made it."""
    username = services.naming.username(name)
    now = services.clock()
    async with services.database.write() as session:
        made = await session.execute(
            services.database.insert(Account)
            .values(
                username=username,
                instance_name=instance_name,
                kind=name.kind,
                state=AccountState.PENDING,
                password_digest=password_digest,
                created_at=now,
                last_active_at=now,
            )
            .on_conflict_do_nothing()
        )
    return bool(rows_changed(made))


def _digest(name: AccountName, username: str, password: str) -> str | None:
    return None if name.kind is AccountKind.OPERATOR else digest(username, password)
