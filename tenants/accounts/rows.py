"""Rows of accounts in the registry: found, made, and claimed for a removal.

Who removes an account claims its row first (state `removing`). `last_active_at` of such a row is when it was claimed: a
claim whose holder died ends by itself, and `tenants.accounts.expiry` takes it up.
"""

import asyncio
from collections.abc import Sequence

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.errors import UnavailableError
from tenants.core.naming import AccountName
from tenants.process.services import Batched, Services
from tenants.store.models import Account, AccountState, Tenant, TenantState

REMOVAL_TERM = 60.0
"""Seconds until a claim on an account that is to be removed ends by itself."""
_WAIT_SECONDS, _WAIT_PAUSE = 2.0, 0.1
"""How long a call waits for an account that is being removed: LHC waits 5 s for the call."""


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


async def adopt(services: Services, instance_name: str, names: Sequence[AccountName]) -> list[AccountName]:
    """Let the registry know accounts that ejabberd has. Returns those that it did not know.

    Which passwords they have only ejabberd knows: it is asked when one is presented. A tenant that is gone stays so.
    """
    async with services.database.write() as session:
        tenant = await session.get(Tenant, instance_name, with_for_update={"read": True}, populate_existing=True)
        if tenant is None or tenant.state is TenantState.DESTROYED:
            return []
        return [name for name in names if await insert(services, session, name, None, AccountState.ACTIVE)]


def claimable(now: float) -> ColumnElement[bool]:
    """The condition that an account's row may be claimed for its removal: nobody has claimed it, or the claim ended."""
    return or_(Account.state != AccountState.REMOVING, Account.last_active_at < now - REMOVAL_TERM)


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


async def claim_unknown(services: Services, names: Sequence[AccountName]) -> list[str]:
    """Claim names that the registry does not know, for removal: who registers one at this moment waits."""
    async with services.database.write() as session:
        return [
            services.naming.username(name)
            for name in names
            if await insert(services, session, name, None, AccountState.REMOVING)
        ]


async def give_back(services: Services, usernames: Sequence[str], state: AccountState = AccountState.REMOVING) -> None:
    """Accounts in that state are there after all; which passwords they have, only ejabberd knows."""
    async with services.database.write() as session:
        await session.execute(
            update(Account)
            .where(Account.username.in_(usernames), Account.state == state)
            .values(state=AccountState.ACTIVE, password_digest=None, last_active_at=services.clock())
        )


async def insert(
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
