"""Delivery of callbacks to LHC: one piece of work at a time is claimed, posted, and its outcome recorded.

A piece is the oldest pending message of a conversation, or the latest presence of an operator. Messages of one
conversation go one after another; conversations go side by side. How many pieces a process does at once is the matter
of `tenants.delivery.runners`; what several of them ask of the database at the same time is done at once
(`tenants.delivery.claim_work`, `tenants.delivery.outcomes`).
"""

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy import delete, exists, func, or_, select, union_all

from config import task_names
from tenants.core.chunks import chunks
from tenants.delivery import outcomes, receipts, send
from tenants.delivery.claim_work import Piece, find_oldest_pending
from tenants.lifecycle import admission, registry
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.database import Database
from tenants.store.models import CallbackMessage, Circuit, Conversation, MessageState, OperatorPresence, Tenant

log = structlog.get_logger(__name__)

_AT_ONCE = 10
"""Messages of a conversation that follow each other on one claim; then others of the tenant have their turn."""
_FRESH_SECONDS = 0.5
"""Seconds after which tenant and message, which were read with the claim, are read again before they are used."""
_REMEMBER_SECONDS = 24 * 3600.0
"""How long a delivered message is kept, without its body, to recognise repeats and to be looked up."""
_REMEMBER_DEAD_SECONDS = 30 * 24 * 3600.0
"""How long a dead letter waits for its replay."""
_DUE_LIMIT = 200
"""Tenants that are looked for at once."""
_WOKEN_AT_ONCE = 20


def _always() -> bool:
    return True


async def deliver(services: Services, piece: Piece, may_go_on: Callable[[], bool] = _always) -> None:
    """Do a claimed piece of work and give it back. One that is cancelled is given back as it was found.

    `may_go_on`: asked before each further message of the conversation.
    """
    try:
        with services.claim_renewer.keep(piece.model, piece.key, piece.token):
            if piece.probe is None:
                await _deliver(services, piece, may_go_on)
            else:
                with services.claim_renewer.keep(Circuit, piece.instance_name, piece.probe):
                    await _deliver(services, piece, may_go_on)
    except asyncio.CancelledError:
        await _give_back(services.database, piece)
        raise


async def _give_back(database: Database, piece: Piece) -> None:
    async with database.write() as session:
        await claims.give_back(session, piece.model, piece.key, piece.token)
        await outcomes.give_probe_back(session, piece)


async def _deliver(services: Services, piece: Piece, may_go_on: Callable[[], bool]) -> None:
    if piece.model is Conversation:
        await _deliver_messages(services, piece, may_go_on)
    else:
        await _deliver_presence(services, piece)


async def _deliver_messages(services: Services, piece: Piece, may_go_on: Callable[[], bool]) -> None:
    """Deliver the conversation's oldest message, and those behind it while all goes well."""
    tenant, message = piece.tenant, piece.message
    if services.clock() - piece.claimed_at > _FRESH_SECONDS:
        async with services.database.read() as session:
            tenant = await registry.find_in(session, piece.instance_name)
            message = (await find_oldest_pending(session, [piece.key])).get(piece.key)
    if tenant is not None and admission.refusal(tenant):
        await _give_back(services.database, piece)
        return
    for left in reversed(range(_AT_ONCE)):
        answer = None
        if message is not None and tenant is not None:
            answer = await send.tell(services, tenant, message)
        told, message = message, await outcomes.record(services, piece, message, answer, go_on=left > 0 and may_go_on())
        if told is not None and tenant is not None and answer is not None and answer.error is None:
            await receipts.confirm(services, tenant, told)
        if message is None:
            return


async def _deliver_presence(services: Services, piece: Piece) -> None:
    async with services.database.read() as session:
        tenant = await registry.find_in(session, piece.instance_name)
        told = await session.get(OperatorPresence, piece.key)
    if tenant is not None and admission.refusal(tenant):
        await _give_back(services.database, piece)
        return
    answer = None
    if told is not None and told.pending is not None and tenant is not None:
        answer = await send.tell_presence(services, tenant, told, told.pending)
    await outcomes.record_presence(services, piece, told, answer)


async def find_due(services: Services) -> list[str]:
    """The open tenants that have something due and whose circuit lets it through, the longest waiting first."""
    now = services.clock()
    due = union_all(
        *(
            select(model.instance_name, model.due_at).where(claims.takeable(model, now))
            for model in (Conversation, OperatorPresence)
        )
    ).subquery()
    async with services.database.read() as session:
        instance_names = await session.scalars(
            select(due.c.instance_name)
            .outerjoin(Circuit, Circuit.instance_name == due.c.instance_name)
            .where(or_(Circuit.due_at.is_(None), claims.takeable(Circuit, now)))
            .where(~exists().where(Tenant.instance_name == due.c.instance_name, admission.SHUT))
            .group_by(due.c.instance_name)
            .order_by(func.min(due.c.due_at))
            .limit(_DUE_LIMIT)
        )
        return list(instance_names)


async def sweep(services: Services) -> None:
    """Wake the tenants that have something due."""
    names = await find_due(services)
    # in several tasks, for several workers
    for some in chunks(names, _WOKEN_AT_ONCE):
        await services.wake(task_names.DELIVER, instance_names=list(some))


async def purge(services: Services) -> None:
    """Forget messages that were delivered or dead long ago, with their attempts, and conversations without any."""
    now = services.clock()
    async with services.database.write() as session:
        for state, seconds in (
            (MessageState.DELIVERED, _REMEMBER_SECONDS),
            (MessageState.DEAD, _REMEMBER_DEAD_SECONDS),
        ):
            await session.execute(
                delete(CallbackMessage).where(
                    CallbackMessage.state == state, CallbackMessage.created_at < now - seconds
                )
            )
        await session.execute(
            delete(Conversation).where(
                Conversation.due_at.is_(None),
                ~exists().where(CallbackMessage.conversation_id == Conversation.id),
            )
        )
