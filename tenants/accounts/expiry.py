"""Expiry: accounts of visitors and chats go that were idle for longer than their tenant allows.

Idle is who has viewed no page, has written and was written nothing, and whose browser was not logged in (in LHC's
XML-RPC mode page views call nothing; the browser is what there is).

A run goes from tenant to tenant, a batch of each in turn. It lets ejabberd rest as long as it has worked, so that live
traffic comes first, and ends when its time is over: the next one goes on, also with what a run that died has begun.
"""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy import ColumnElement, Select, and_, exists, func, select, update

from tenants.accounts import removal, rows
from tenants.core.chunks import chunks
from tenants.core.naming import AccountKind
from tenants.ejabberd.bulk import IN_USE
from tenants.lifecycle import served_hosts
from tenants.process.services import Services
from tenants.store.models import (
    Account,
    AccountState,
    Chat,
    ChatState,
    Conversation,
    Tenant,
    TenantState,
    VisitorSession,
)

log = structlog.get_logger(__name__)

RUN_SECONDS = 45.0
"""For one run: less than the interval at which beat begins one."""
_BATCH = 100
"""Accounts in one call: some 50 ms of ejabberd's work."""
_NOTED_AFTER = 600.0
"""Seconds after which it is noted again that a browser is logged in."""
_NOTED_AT_ONCE = 500
"""Accounts in one statement."""
_PAUSE = 0.02
"""Seconds between two batches at least."""


async def run(
    services: Services, *, seconds: float = RUN_SECONDS, monotonic: Callable[[], float] = time.monotonic
) -> int:
    """Remove accounts until none is idle or the time is over. Returns how many went.

    Never an operator, nor who is online or logged in, nor a chat whose messages LHC has not received yet. Tenants that
    are not active keep theirs.

    Raises:
        UnavailableError: ejabberd does not answer; the next run goes on.
    """
    end = monotonic() + seconds
    await _note_use(services)
    removed = 0
    while monotonic() < end and (taken_up := await _take_up(services)):
        removed += taken_up
    waiting = await _tenants(services)
    while waiting and monotonic() < end:
        for instance_name in list(waiting):
            began = monotonic()
            if began >= end:
                break
            usernames = await _claim(services, _idle(services.clock()).where(Account.instance_name == instance_name))
            if len(usernames) < _BATCH:
                waiting.remove(instance_name)
            removed += await _remove(services, usernames, only_idle=True)
            await asyncio.sleep(max(monotonic() - began, _PAUSE))
    if removed:
        log.info("idle accounts removed", count=removed, tenants_left=len(waiting))
    return removed


async def _note_use(services: Services) -> None:
    """Accounts that browsers are logged in to are used now; noted now and then."""
    now = services.clock()
    browsers = [await services.ejabberd.at(host).bulk.browsers() for host in await served_hosts.up(services)]
    for usernames in chunks(sorted(set().union(*browsers)), _NOTED_AT_ONCE):
        of_these = and_(
            Account.username.in_(usernames),
            Account.state == AccountState.ACTIVE,
            Account.last_active_at < now - _NOTED_AFTER,
        )
        async with services.database.write() as session:
            # in the order of their names, as everybody locks them
            held = select(Account.username).where(of_these).order_by(Account.username)
            await session.execute(held.with_for_update(key_share=True))
            noted = update(Account).where(of_these).values(last_active_at=now)
            await session.execute(noted.execution_options(synchronize_session=False))


async def _take_up(services: Services) -> int:
    """Finish a batch of removals that a process began that died, or met no ejabberd. Returns how many accounts went."""
    cut_short = select(Account.username).where(Account.state == AccountState.REMOVING, rows.claimable(services.clock()))
    return await _remove(services, await _claim(services, cut_short))


async def _tenants(services: Services) -> list[str]:
    """The tenants that have idle accounts, the longest idle first."""
    idle = _idle(services.clock()).subquery()
    query = (
        select(Account.instance_name)
        .join(idle, idle.c.username == Account.username)
        .group_by(Account.instance_name)
        .order_by(func.min(Account.last_active_at))
    )
    async with services.database.read() as session:
        return list(await session.scalars(query))


def _idle(now: float) -> Select[str]:
    return (
        select(Account.username)
        .join(Tenant, Tenant.instance_name == Account.instance_name)
        .where(
            Tenant.state == TenantState.ACTIVE,
            Account.kind != AccountKind.OPERATOR,
            Account.state != AccountState.REMOVING,
            Account.last_active_at < now - Tenant.idle_hours * 3600,
            ~_in_use(),
        )
    )


def _in_use() -> ColumnElement[bool]:
    """Whether operators see it online, it has an open chat, or its conversation holds what LHC is still to receive."""
    online = exists().where(VisitorSession.username == Account.username)
    talking = exists().where(
        Conversation.instance_name == Account.instance_name,
        Conversation.receiver == Account.username,
        Conversation.due_at.is_not(None),
    )
    chatting = exists().where(Chat.username == Account.username, Chat.state != ChatState.CLOSED)
    return online | talking | chatting


async def _claim(services: Services, which: Select[str]) -> list[str]:
    """Claim a batch of these accounts for removal: a page view that comes first wins, one that comes later waits."""
    # a CTE: PostgreSQL may run a subquery more than once, and claim more
    chosen = which.order_by(Account.last_active_at).limit(_BATCH).with_for_update(of=Account, skip_locked=True).cte()
    async with services.database.write() as session:
        claimed = await session.scalars(
            update(Account)
            .where(Account.username.in_(select(chosen.c.username)))
            .values(state=AccountState.REMOVING, last_active_at=services.clock())
            .returning(Account.username)
            .execution_options(synchronize_session=False)
        )
        return list(claimed)


async def _remove(services: Services, usernames: list[str], *, only_idle: bool = False) -> int:
    """Remove claimed accounts. Returns how many went."""
    if not usernames:
        return 0
    left = await removal.remove_claimed(services, usernames, only_idle=only_idle)
    if stuck := sorted(username for username, reason in left.items() if reason != IN_USE):
        log.error("accounts not removed", count=len(stuck), examples=stuck[:5])
    return len(usernames) - len(left)
