"""Accounts of a tenant in ejabberd and in the registry. The registry's row comes first, so a crash leaves no orphan.

Who removes an account claims its row first (state `removing`), and it goes last. Who meets such a row waits, so an
account that is made anew is never taken for the one before. `last_active_at` of such a row is when it was claimed: a
claim whose holder died ends by itself, and `tenants.accounts.expiry` takes it up.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum

import structlog
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.accounts import bulk_registration
from tenants.core import scram
from tenants.core.digests import digest, matches, new_key
from tenants.core.errors import InvalidInputError, NotFoundError, QuotaExceededError, TakenError, UnavailableError
from tenants.core.naming import AccountKind, AccountName, RosterName
from tenants.core.scram import Verifier
from tenants.core.text import DEFAULT_NICK, clean
from tenants.ejabberd import rosters
from tenants.ejabberd.errors import NotAppliedError, PasswordRefusedError, UserExistsError, UserUnknownError
from tenants.lifecycle import admission
from tenants.process.services import Batched, Services
from tenants.shards.commands import CloseVisitor
from tenants.store.database import rows_changed
from tenants.store.models import Account, AccountState, Chat, ChatState, RoomMember, Tenant, TenantState, VisitorSession

log = structlog.get_logger(__name__)

REMOVAL_TERM = 60.0
"""Seconds until a claim on an account that is to be removed ends by itself."""
_REMOVAL_SECONDS = 30.0
"""For the call that removes accounts: well within the claim's term."""
_WAIT_SECONDS, _WAIT_PAUSE = 2.0, 0.1
"""How long a call waits for an account that is being removed: LHC waits 5 s for the call."""
_FULL_SECONDS = 300.0
"""When a tenant with as many accounts as it may have may try again: idle ones will have gone."""


class Registered(StrEnum):
    """What registering did."""

    CREATED = "created"
    UPDATED = "updated"
    """It existed and is the tenant's: it has the password now."""


async def find(services: Services, name: AccountName) -> Account | None:
    """The account's row."""
    return await _FIND_ACCOUNT.do(services, services.naming.username(name))


async def _find_all(services: Services, usernames: Sequence[str]) -> list[Account | None]:
    async with services.database.read() as session:
        accounts = await session.scalars(select(Account).where(Account.username.in_(usernames)))
        found = {account.username: account for account in accounts}
    return [found.get(username) for username in usernames]


_FIND_ACCOUNT = Batched("find_account", _find_all)


async def find_when_free(services: Services, name: AccountName) -> Account | None:
    """The account's row; one that is being removed just now is waited for.

    Raises:
        UnavailableError: it is still being removed.
    """
    deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
    while True:
        account = await find(services, name)
        if account is None or account.state is not AccountState.REMOVING:
            return account
        if asyncio.get_running_loop().time() > deadline:
            raise UnavailableError(f"account '{account.username}' is being removed; try again in a moment")
        await asyncio.sleep(_WAIT_PAUSE)


async def register(services: Services, tenant: Tenant, name: AccountName, password: str) -> Registered:
    """Create the account, or set the password of one that is the tenant's already.

    Raises:
        TakenError: ejabberd has an account of that name which the registry does not know.
        ConflictError: the tenant was shut.
        InvalidInputError: the password cannot be one.
        QuotaExceededError: it would be one more than the tenant may have.
        UnavailableError: the account is being removed.
    """
    scram.prepare(password)
    username = services.naming.username(name)
    await find_when_free(services, name)
    # Asked before our row is there: whoever registers the same name at this moment has put the row there first.
    taken = await services.ejabberd.has_user(username)
    new = await _begin(services, tenant, name, _digest(name, username, password))
    if taken and new:
        await _forget_pending(services, username)
        raise TakenError(f"User {username}@{services.settings.xmpp_host} already registered")
    try:
        await _set_in_ejabberd(services, username, password)
    except InvalidInputError:
        if new:
            await _forget_pending(services, username)
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
    if nick and nick != DEFAULT_NICK:
        # before the roster push, which takes the contact's name from here
        await services.ejabberd.set_nickname(username, clean(nick))
    await services.ejabberd.add_to_roster(username, rosters.group_of(services.naming, name.instance, name.roster))


async def leave_roster(services: Services, name: AccountName, roster: RosterName) -> None:
    """Remove the account from the roster; unknown names are a success."""
    await services.ejabberd.remove_from_roster(services.naming.username(name), services.naming.group(roster))


async def change_password(
    services: Services, name: AccountName, password: str, *, incarnation: str | None = None
) -> None:
    """Set the account's password; given an incarnation, of that very account.

    Raises:
        NotFoundError: the tenant has no such account.
    """
    username = services.naming.username(name)
    scram.prepare(password)
    account = await find_when_free(services, name)
    if account is None or incarnation not in {None, account.incarnation}:
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
    services.cache.forget_visitor(username)


async def remove(services: Services, name: AccountName) -> None:
    """End the account: the visitor leaves, contact and account go. One that is gone already is a success.

    So is one of a tenant that is being destroyed: it goes with all others.

    Raises:
        NotAppliedError: ejabberd did not remove it; `tenants.accounts.expiry` tries again.
        UnavailableError: ejabberd cannot be reached; the same. Or somebody else is removing it still.
    """
    username = services.naming.username(name)
    async with services.database.write() as session:
        tenant = await admission.hold_unless_ending(session, name.instance)
        if tenant is None:
            return
        # also one that the registry does not know: who registers it at this moment waits
        claimed = await _insert(services, session, name, None, AccountState.REMOVING) or rows_changed(
            await session.execute(
                update(Account)
                .where(Account.username == username, claimable(services.clock()))
                .values(state=AccountState.REMOVING, last_active_at=services.clock())
            )
        )
    services.cache.forget_visitor(username)
    if not claimed:
        await find_when_free(services, name)
        return
    if name.kind is not AccountKind.OPERATOR:
        await services.commands.publish(
            CloseVisitor(instance_name=name.instance, incarnation=tenant.incarnation, username=username)
        )
    if left := await remove_claimed(services, [username]):
        raise NotAppliedError("lhc_remove_users", 0, f"{username}: {left.get(username)}")


def claimable(now: float) -> ColumnElement[bool]:
    """The condition that an account's row may be claimed for its removal: nobody is at it, or whoever was died."""
    return or_(Account.state != AccountState.REMOVING, Account.last_active_at < now - REMOVAL_TERM)


async def remove_claimed(services: Services, usernames: Sequence[str]) -> dict[str, str]:
    """Remove accounts whose rows the caller has claimed: roster members first, so that operators see contacts go.

    Returns:
        What is left in ejabberd: the name, and what of it. Their claims have ended, for somebody to try again.

    Raises:
        UnavailableError: ejabberd did not answer; all the claims have ended.
    """
    left = dict.fromkeys(usernames, "ejabberd did not answer")
    try:
        async with asyncio.timeout(_REMOVAL_SECONDS):
            left = await services.ejabberd.bulk.remove_users(usernames)
    except TimeoutError:
        raise UnavailableError("ejabberd did not remove accounts in time") from None
    finally:
        await _end_claims(services, [username for username in usernames if username not in left], list(left))
    return left


async def _end_claims(services: Services, gone: Sequence[str], left: Sequence[str]) -> None:
    async with services.database.write() as session:
        if gone:
            await session.execute(delete(VisitorSession).where(VisitorSession.username.in_(gone)))
            await session.execute(delete(RoomMember).where(RoomMember.username.in_(gone)))
            await _give_chats_back(session, gone, services.clock())
            await session.execute(delete(Account).where(_removing(gone)))
        if left:
            await session.execute(update(Account).where(_removing(left)).values(last_active_at=0))


async def _give_chats_back(session: AsyncSession, owners: Sequence[str], now: float) -> None:
    """Nobody has the chats of operators who are gone: who bears such a name later is somebody else."""
    await session.execute(
        update(Chat)
        .where(Chat.owner.in_(owners), Chat.state == ChatState.OWNED)
        .values(owner=None, accepted_by=None, state=ChatState.PENDING, pending_since=now)
        .execution_options(synchronize_session=False)
    )


def _removing(usernames: Sequence[str]) -> ColumnElement[bool]:
    return and_(Account.username.in_(usernames), Account.state == AccountState.REMOVING)


async def adopt(services: Services, instance_name: str, names: Sequence[AccountName]) -> list[AccountName]:
    """Let the registry know accounts that ejabberd has. Returns those that it did not know.

    Which passwords they have only ejabberd knows: it is asked when one is presented. A tenant that is gone stays so.
    """
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update={"read": True}, populate_existing=True)
        if tenant is None or tenant.state is TenantState.DESTROYED:
            return []
        return [name for name in names if await _insert(services, session, name, None, AccountState.ACTIVE)]


async def claim_unknown(services: Services, names: Sequence[AccountName]) -> list[str]:
    """Claim names that the registry does not know, for removal: who registers one at this moment waits."""
    async with services.database.write() as session:
        return [
            services.naming.username(name)
            for name in names
            if await _insert(services, session, name, None, AccountState.REMOVING)
        ]


async def claim(services: Services, usernames: Sequence[str], condition: ColumnElement[bool]) -> list[str]:
    """Claim those of the accounts for removal whose rows still fulfil the condition."""
    async with services.database.write() as session:
        claimed = await session.scalars(
            update(Account)
            .where(Account.username.in_(usernames), condition)
            .values(state=AccountState.REMOVING, last_active_at=services.clock())
            .returning(Account.username)
            .execution_options(synchronize_session=False)
        )
        return list(claimed)


async def give_back(services: Services, usernames: Sequence[str], state: AccountState = AccountState.REMOVING) -> None:
    """Accounts in that state are there after all; which passwords they have, only ejabberd knows."""
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username.in_(usernames), Account.state == state)
            .values(state=AccountState.ACTIVE, password_digest=None, last_active_at=services.clock())
        )


async def install_operator(services: Services, name: AccountName, verifier: Verifier, nick: str | None) -> None:
    """An operator's account by the verifier of its password, a member of its roster. May be repeated at will.

    Raises:
        NotAppliedError: ejabberd did not make the account.
    """
    username = services.naming.username(name)
    async with services.database.write() as session:
        await _insert(services, session, name, None)
    outcome = await services.ejabberd.bulk.register({username: verifier})
    if outcome.get(username) not in {"created", "updated"}:
        raise NotAppliedError("lhc_register_scram", 0, f"{username}: {outcome.get(username)}")
    await join_roster(services, name, nick)
    async with services.database.write() as session:
        await session.execute(update(Account).where(Account.username == username).values(state=AccountState.ACTIVE))


async def ensure_visitor(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> bool:
    """Whether the visitor's password is right; an account that does not exist is made with it.

    LHC keeps its own row of an account whose registration failed, and later speaks for an account that is not there.
    """
    account = await find_when_free(services, name)
    if account is not None and account.state is AccountState.ACTIVE:
        if account.password_digest is None:
            return await _learn_password(services, account.username, password)
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
    account = await find_when_free(services, name)
    if account is None or account.state is not AccountState.ACTIVE:
        await _make(services, tenant, name, new_key(), nick, is_new=account is None)
    elif account.password_digest is not None:
        services.cache.keep_account(tenant, account, account.password_digest)


async def register_visitor(services: Services, tenant: Tenant, name: AccountName, password: str, nick: str) -> None:
    """Create the visitor's account, or set the password of the tenant's own; a contact of the operators.

    Raises:
        as `register`.
    """
    await _make(services, tenant, name, password, nick, is_new=await find_when_free(services, name) is None)


async def _make(
    services: Services, tenant: Tenant, name: AccountName, password: str, nick: str, *, is_new: bool
) -> None:
    if not is_new or not await bulk_registration.create(services, tenant, name, password, nick):
        await register(services, tenant, name, password)
        await join_roster(services, name, nick)


async def _learn_password(services: Services, username: str, password: str) -> bool:
    """Ask ejabberd, of an account that was imported, and keep the digest of what is right."""
    if not password or not await services.ejabberd.check_password(username, password):
        return False
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username == username, Account.password_digest.is_(None))
            .values(password_digest=digest(username, password))
        )
    return True


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


async def _begin(services: Services, tenant: Tenant, name: AccountName, password_digest: str | None) -> bool:
    """Put the row there, or keep the one that is there from expiring just now. True when this call made it."""
    limit = tenant.max_accounts
    async with services.database.write() as session:
        # The door may have been closed since it was asked. With a limit accounts are made one by one, to be counted.
        await admission.hold(session, name.instance, name.kind, alone=limit is not None)
        if await _insert(services, session, name, password_digest):
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
        await _insert(services, session, name, None, AccountState.REMOVING)
        state = await session.scalar(select(Account.state).where(Account.username == username))
    if state is AccountState.REMOVING:
        await remove_claimed(services, [username])
    raise UnavailableError(f"account '{username}' was removed meanwhile")


async def _insert(
    services: Services,
    session: AsyncSession,
    name: AccountName,
    password_digest: str | None,
    state: AccountState = AccountState.PENDING,
) -> bool:
    """Put the row there when it is not. True when this call made it."""
    now = services.clock()
    made = await session.scalar(
        services.database.insert(Account)
        .values(
            username=services.naming.username(name),
            instance_name=name.instance,
            kind=name.kind,
            state=state,
            password_digest=password_digest,
            created_at=now,
            last_active_at=now,
        )
        .on_conflict_do_nothing()
        .returning(Account.username)
    )
    return made is not None


def _digest(name: AccountName, username: str, password: str) -> str | None:
    return None if name.kind is AccountKind.OPERATOR else digest(username, password)
