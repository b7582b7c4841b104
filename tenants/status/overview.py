"""The whole system in a few numbers: for metrics, and for whoever wants to see at a glance how it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.batching import BatchFigures
from tenants.process import heartbeats
from tenants.process.services import Services
from tenants.store.models import (
    UNFINISHED,
    CallbackMessage,
    ChatLine,
    Circuit,
    Drift,
    Heartbeat,
    LineState,
    MessageState,
    Operation,
    OperatorPresence,
    ReturnedMessage,
    ShardLease,
    Tenant,
    VisitorSession,
)

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Overview:
    """How it is now.

    Attributes:
        tenants: how many, by state.
        operations: unfinished ones, by state.
        operators_online, visitors_online: of all tenants.
        events_last_minute: what operators wrote and did, in conversations.
        undelivered: those of them that wait for the tenants' servers.
        oldest_undelivered: since when, of the one that has waited longest (seconds).
        dead_letters: those that nobody received, and that can be replayed.
        waiting_lines: what visitors wrote in chats and no operator was sent yet.
        returned: messages of visitors that came back and were not sent again.
        open_circuits: tenants whose server is left alone for a while.
        unmended: differences from ejabberd that a person is to look at.
        shards: how many each pool process serves.
        heartbeats: seconds since each sign of life.
        batches: how busy the batches of each worker were at its last sign of life, by the worker and the batch.
    """

    tenants: dict[str, int]
    operations: dict[str, int]
    operators_online: int
    visitors_online: int
    events_last_minute: int
    undelivered: int
    oldest_undelivered: float
    dead_letters: int
    waiting_lines: int
    returned: int
    open_circuits: int
    unmended: int
    shards: dict[str, int]
    heartbeats: dict[str, float]
    batches: dict[str, dict[str, BatchFigures]]


async def look(services: Services) -> Overview:
    """Count everything; each count reads an index, or a table that stays small."""
    now = services.clock()
    pending = CallbackMessage.state == MessageState.PENDING
    async with services.database.read() as session:
        oldest = await session.scalar(select(func.min(CallbackMessage.created_at)).where(pending))
        signs = list(await session.scalars(select(Heartbeat).where(Heartbeat.name != heartbeats.BACKUP)))
        return Overview(
            tenants=await _by(session, select(Tenant.state, func.count()).group_by(Tenant.state)),
            operations=await _by(
                session,
                select(Operation.state, func.count()).where(Operation.state.in_(UNFINISHED)).group_by(Operation.state),
            ),
            operators_online=await _count(session, OperatorPresence.online),
            visitors_online=await _count(session, VisitorSession.online_until > now),
            events_last_minute=await _count(session, CallbackMessage.created_at > now - _MINUTE),
            undelivered=await _count(session, pending),
            oldest_undelivered=0.0 if oldest is None else max(0.0, now - oldest),
            dead_letters=await _count(session, CallbackMessage.state == MessageState.DEAD),
            waiting_lines=await _count(session, ChatLine.state == LineState.WAITING),
            returned=await _count(session, ReturnedMessage.replayed_at.is_(None)),
            open_circuits=await _count(session, Circuit.due_at.is_not(None)),
            unmended=await _count(session, Drift.mended_at.is_(None)),
            shards=await _by(
                session,
                select(ShardLease.owner, func.count())
                .where(ShardLease.owner.is_not(None), ShardLease.expires_at > now)
                .group_by(ShardLease.owner),
            ),
            heartbeats={sign.name: max(0.0, now - sign.at) for sign in signs},
            batches={sign.name: _figures(sign) for sign in signs},
        )


def _figures(sign: Heartbeat) -> dict[str, BatchFigures]:
    return {
        name: BatchFigures(int(busy["waiting"]), int(busy["under_way"]), busy["mean"], int(busy["largest"]))
        for name, busy in (sign.batches or {}).items()
    }


async def _count(session: AsyncSession, condition: Any) -> int:
    return await session.scalar(select(func.count()).where(condition)) or 0


async def _by(session: AsyncSession, counts: Select[Any, int]) -> dict[str, int]:
    return {str(key): count for key, count in await session.execute(counts)}
