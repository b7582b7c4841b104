"""Accounts of a tenant in ejabberd and in the registry. The registry's row comes first, so a crash leaves no orphan.

Who meets a row that is being removed (`tenants.accounts.removal`) waits, so an account that is made anew is never taken
for the one before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.accounts import bulk_registration, removal, rows
from tenants.core import scram
from tenants.core.digests import digest, matches, new_key
from tenants.core.errors import InvalidInputError, NotFoundError, QuotaExceededError, TakenError, UnavailableError
from tenants.core.naming import AccountKind, AccountName, RosterName
from tenants.core.scram import Verifier
from tenants.core.text import own_nick
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Ejabberd
from tenants.ejabberd.errors import NotAppliedError, PasswordRefusedError, UserExistsError, UserUnknownError
from tenants.lifecycle import admission, hosts
from tenants.process.services import Services
from tenants.store.database import Database, rows_changed
from tenants.store.models import Account, AccountState, Tenant

log = structlog.get_logger(__name__)

_UNFINISHED_SECONDS = 10.0
"""How old a row is whose account was never said to be made: who registered it has died, or waits no more."""
_FULL_SECONDS = 300.0
"""When a tenant with as many accounts as it may have may try again: idle ones will have gone."""


class Registered(StrEnum):
    """What registering did."""

    CREATED = "created"
    UPDATED = "updated"
    """It existed and is the tenant's: it has the password now."""


async def register(
    services: Services, tenant: Tenant, name: AccountName, password: str, *, takes_over: bool = True
) -> Registered:
    """Create the account, or set the password of one that is the tenant's already.

    With `takes_over` false one that was made before keeps its password, which must be the one that is given.

    Raises:
        TakenError: ejabberd has an account of that name which the registry does not know; or it has another password.
        ConflictError: the tenant was shut.
        InvalidInputError: the password cannot be one.
        QuotaExceededError: it would be one more than the tenant may have.
        UnavailableError: the account is being removed.
    """
    scram.prepare(password)
    username = services.naming.username(name)
    known = await rows.find_when_free(services, name)
    # Asked before our row is there: whoever registers the same name at this moment has put the row there first.
    ejabberd = services.ejabberd.at(tenant.xmpp_host)
    taken = await ejabberd.has_user(username)
    may_overwrite = takes_over or _is_unfinished(known, services.clock())
    new = await _begin(services, tenant, name, _digest(name, username, password))
    if taken and new:
        await _forget_pending(services.database, username)
        raise _taken(ejabberd, username)
    try:
        await _set_in_ejabberd(ejabberd, username, password, may_overwrite=may_overwrite)
    except (InvalidInputError, TakenError):
        if new:
            await _forget_pending(services.database, username)
        raise
    async with services.database.write() as session:
        kept = await session.execute(
            update(Account)
            .where(Account.username == username, Account.state != AccountState.REMOVING)
            .values(state=AccountState.ACTIVE, password_digest=_digest(name, username, password))
        )
    services.cache.forget_visitor(username)
    if not rows_changed(kept):
        await _take_back(services, name)
    return Registered.CREATED if new else Registered.UPDATED


async def join_roster(services: Services, name: AccountName, nick: str | None = None) -> None:
    """Make the account a contact of its tenant's operators: bearing `nick`, if it is the visitor's own."""
    username = services.naming.username(name)
    ejabberd = await hosts.ejabberd_of(services, name.instance)
    if called := own_nick(nick):
        # before the roster push, which takes the contact's name from here
        await ejabberd.bulk.set_nicks({username: called})
    await ejabberd.add_to_roster(username, rosters.group_of(services.naming, name.instance, name.roster))


async def leave_roster(services: Services, name: AccountName, roster: RosterName) -> None:
    """Remove the account from the roster; unknown names are a success."""
    ejabberd = await hosts.ejabberd_of(services, name.instance)
    await ejabberd.remove_from_roster(services.naming.username(name), services.naming.group(roster))


async def change_password(
    services: Services, name: AccountName, password: str, *, incarnation: str | None = None
) -> None:
    """Set the account's password; given an incarnation, of that very account.

    Raises:
        NotFoundError: the tenant has no such account.
    """
    username = services.naming.username(name)
    scram.prepare(password)
    account = await rows.find_when_free(services, name)
    if account is None or incarnation not in {None, account.incarnation}:
        raise NotFoundError(f"there is no account '{username}'")
    ejabberd = await hosts.ejabberd_of(services, name.instance)
    # ejabberd first: it may still refuse
    try:
        with _password_refusal_named():
            await ejabberd.change_password(username, password)
    except UserUnknownError:
        raise NotFoundError(f"there is no account '{username}'") from None
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username == username)
            .values(password_digest=_digest(name, username, password))
        )
    services.cache.forget_visitor(username)


async def install_operator(services: Services, name: AccountName, verifier: Verifier, nick: str | None) -> None:
    """An operator's account by the verifier of its password, a member of its roster. May be repeated at will.

    Raises:
        NotAppliedError: ejabberd did not make the account.
    """
    username = services.naming.username(name)
    async with services.database.write() as session:
        await rows.insert(services, session, name, None)
    ejabberd = await hosts.ejabberd_of(services, name.instance)
    outcome = await ejabberd.bulk.register({username: verifier})
    if outcome.get(username) not in {"created", "updated"}:
        raise NotAppliedError("lhc_register_scram", 0, f"{username}: {outcome.get(username)}")
    await join_roster(services, name, nick)
    async with services.database.write() as session:
        await session.execute(update(Account).where(Account.username == username).values(state=AccountState.ACTIVE))


async def ensure_visitor(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> bool:
    """Whether the visitor's password is right; an account that does not exist is made with it.

    LHC keeps its own row of an account whose registration failed, and later speaks for an account that is not there.
    """
    account = await rows.find_when_free(services, name)
    if account is not None and account.state is AccountState.ACTIVE:
        if account.password_digest is None:
            return await _learn_password(services, tenant, account.username, password)
        if not matches(account.username, password, account.password_digest):
            return False
        services.cache.keep_account(tenant, account, account.password_digest)
        return True
    if not password:
        return False
    await _make(services, tenant, name, password, nick, is_new=account is None)
    return True


async def ensure(services: Services, tenant: Tenant, name: AccountName, nick: str) -> None:
    """The visitor's or chat's account, a contact of the operators; made when there is none, for nobody to log in to.

    Raises:
        ConflictError: the tenant was shut.
        QuotaExceededError: it would be one more than the tenant may have.
        UnavailableError: the account is being removed.
    """
    account = await rows.find_when_free(services, name)
    if account is None or account.state is not AccountState.ACTIVE:
        await _make(services, tenant, name, new_key(), nick, is_new=account is None)
    elif account.password_digest is not None:
        services.cache.keep_account(tenant, account, account.password_digest)


async def register_visitor(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> None:
    """Create the visitor's account, or set the password of the tenant's own; a contact of the operators.

    Raises:
        as `register`.
    """
    await _make(services, tenant, name, password, nick, is_new=await rows.find_when_free(services, name) is None)


async def _make(
    services: Services, tenant: Tenant, name: AccountName, password: str, nick: str, *, is_new: bool
) -> None:
    if not is_new or not await bulk_registration.create(services, tenant, name, password, nick):
        await register(services, tenant, name, password)
        await join_roster(services, name, nick)


async def _learn_password(services: Services, tenant: Tenant, username: str, password: str) -> bool:
    """Ask ejabberd, of an account that was imported, and keep the digest of what is right."""
    if not password or not await services.ejabberd.at(tenant.xmpp_host).check_password(username, password):
        return False
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username == username, Account.password_digest.is_(None))
            .values(password_digest=digest(username, password))
        )
    return True


async def _forget_pending(database: Database, username: str) -> None:
    async with database.write() as session:
        await session.execute(
            delete(Account).where(Account.username == username, Account.state == AccountState.PENDING)
        )


async def _set_in_ejabberd(ejabberd: Ejabberd, username: str, password: str, *, may_overwrite: bool) -> None:
    """The account with that password, whether or not it is there yet.

    Raises:
        TakenError: it is there with another one, which is not to be overwritten.
    """
    with _password_refusal_named():
        try:
            await ejabberd.register(username, password)
        except UserExistsError:
            if may_overwrite:
                await ejabberd.change_password(username, password)
            elif not await ejabberd.check_password(username, password):
                raise _taken(ejabberd, username) from None


def _taken(ejabberd: Ejabberd, username: str) -> TakenError:
    return TakenError(f"User {username}@{ejabberd.host} already registered")


def _is_unfinished(known: Account | None, now: float) -> bool:
    """Whether the account was begun a while ago, and nobody was told that it is there."""
    return known is not None and known.state is AccountState.PENDING and known.created_at < now - _UNFINISHED_SECONDS


@contextmanager
def _password_refusal_named() -> Iterator[None]:
    """The last word on a password is ejabberd's: another version of it may allow other characters."""
    try:
        yield
    except PasswordRefusedError:
        raise InvalidInputError("password", "must be one that SASLprep takes (RFC 4013)") from None


async def _begin(services: Services, tenant: Tenant, name: AccountName, password_digest: str | None) -> bool:
    """Put the row there, or keep the one that is there from expiring just now. True when this call made it."""
    limit = tenant.max_accounts
    async with services.database.write() as session:
        # The door may have been closed since it was asked. With a limit accounts are made one by one, to be counted.
        await admission.hold(session, name.instance, name.kind, alone=limit is not None)
        if await rows.insert(services, session, name, password_digest):
            if limit is not None and await _count(session, name.instance) > limit:
                raise QuotaExceededError(f"tenant '{name.instance}' may have {limit} accounts", _FULL_SECONDS)
            return True
        touched = await session.execute(
            update(Account)
            .where(Account.username == services.naming.username(name), Account.state != AccountState.REMOVING)
            .values(last_active_at=services.clock())
        )
        if not rows_changed(touched):
            raise UnavailableError(f"account '{services.naming.username(name)}' is being removed")
    return False


async def _count(session: AsyncSession, instance_name: str) -> int:
    counted = select(func.count()).select_from(Account).where(Account.instance_name == instance_name)
    return await session.scalar(counted) or 0


async def _take_back(services: Services, name: AccountName) -> None:
    """Remove what was registered while its row went, unless somebody else registers it anew; raise UnavailableError."""
    username = services.naming.username(name)
    async with services.database.write() as session:
        await rows.insert(services, session, name, None, AccountState.REMOVING)
        state = await session.scalar(select(Account.state).where(Account.username == username))
    if state is AccountState.REMOVING:
        await removal.remove_claimed(services, [username])
    raise UnavailableError(f"account '{username}' was removed meanwhile")


def _digest(name: AccountName, username: str, password: str) -> str | None:
    return None if name.kind is AccountKind.OPERATOR else digest(username, password)
