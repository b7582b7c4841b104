"""The end of an account: its row is claimed first and goes last, so who registers it meanwhile waits."""

import asyncio
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.accounts import rows
from tenants.core.errors import UnavailableError
from tenants.core.naming import AccountKind, AccountName
from tenants.ejabberd.bulk import IN_USE
from tenants.ejabberd.errors import NotAppliedError
from tenants.lifecycle import admission, hosts
from tenants.process.services import Services
from tenants.shards.commands import CloseVisitor
from tenants.store.database import rows_changed
from tenants.store.models import Account, AccountState, Chat, ChatState, RoomMember, VisitorSession

_REMOVAL_SECONDS = 30.0
"""For the call that removes accounts: well within the claim's term."""


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
        claimed = await rows.insert(services, session, name, None, AccountState.REMOVING) or rows_changed(
            await session.execute(
                update(Account)
                .where(Account.username == username, rows.claimable(services.clock()))
                .values(state=AccountState.REMOVING, last_active_at=services.clock())
            )
        )
    services.cache.forget_visitor(username)
    if not claimed:
        await rows.find_when_free(services, name)
        return
    if name.kind is not AccountKind.OPERATOR:
        await services.commands.publish(
            CloseVisitor(instance_name=name.instance, incarnation=tenant.incarnation, username=username)
        )
    if left := await remove_claimed(services, [username]):
        raise NotAppliedError("lhc_remove_users", 0, f"{username}: {left.get(username)}")


async def remove_claimed(services: Services, usernames: Sequence[str], *, only_idle: bool = False) -> dict[str, str]:
    """Remove accounts whose rows the caller has claimed: roster members first, so that operators see contacts go.

    `only_idle`: those that somebody is logged in to stay, are given back, and are told as `IN_USE`.

    Returns:
        What is left in ejabberd: the name, and what of it. Their claims have ended, for somebody to try again.

    Raises:
        UnavailableError: ejabberd did not answer; all the claims have ended.
    """
    left = dict.fromkeys(usernames, "ejabberd did not answer")
    try:
        async with asyncio.timeout(_REMOVAL_SECONDS):
            for ejabberd, some in await hosts.by_ejabberd(services, usernames):
                remove = ejabberd.bulk.remove_idle_users if only_idle else ejabberd.bulk.remove_users
                found = await remove(some)
                left = {name: why for name, why in left.items() if name not in some} | found
    except TimeoutError:
        raise UnavailableError("ejabberd did not remove accounts in time") from None
    finally:
        await _give_back(services, [username for username, reason in left.items() if reason == IN_USE])
        gone = [username for username in usernames if username not in left]
        await _end_claims(services, gone, [username for username, reason in left.items() if reason != IN_USE])
    return left


async def _give_back(services: Services, in_use: Sequence[str]) -> None:
    """Nothing was done to these accounts: they are as they were before the claim, and were used just now."""
    if in_use:
        async with services.database.write() as session:
            await session.execute(
                update(Account)
                .where(_removing(in_use))
                .values(state=AccountState.ACTIVE, last_active_at=services.clock())
            )


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
    """Chats of operators who are gone have no owner any more: a later operator of the same name is another person."""
    await session.execute(
        update(Chat)
        .where(Chat.owner.in_(owners), Chat.state == ChatState.OWNED)
        .values(owner=None, accepted_by=None, state=ChatState.PENDING, pending_since=now)
        .execution_options(synchronize_session=False)
    )


def _removing(usernames: Sequence[str]) -> ColumnElement[bool]:
    return and_(Account.username.in_(usernames), Account.state == AccountState.REMOVING)
