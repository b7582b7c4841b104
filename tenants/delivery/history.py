"""What became of each message, for people and panels; and replay of those that were given up."""

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.errors import ConflictError, NotFoundError
from tenants.delivery import circuits
from tenants.lifecycle import audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.database import Database, rows_changed
from tenants.store.models import CallbackMessage, Conversation, DeliveryAttempt, MessageState

Query = TypeVar("Query", bound=Select[Any])

_REPLAYED = "deliveries.replayed"
"""In the audit log."""


def undelivered(query: Query) -> Query:
    """The query, of those messages alone that the tenants' servers do not have yet, or never will."""
    return query.where(CallbackMessage.state != MessageState.DELIVERED)


async def messages(
    database: Database, instance_name: str, *, state: MessageState | None = None, after: int = 0, limit: int = 50
) -> list[CallbackMessage]:
    """The tenant's messages with an id above `after`, oldest first, `limit` at most."""
    wanted = select(CallbackMessage).where(CallbackMessage.instance_name == instance_name, CallbackMessage.id > after)
    if state is not None:
        wanted = wanted.where(CallbackMessage.state == state)
    async with database.read() as session:
        return list(await session.scalars(wanted.order_by(CallbackMessage.id).limit(limit)))


async def message(
    database: Database, instance_name: str, message_id: int
) -> tuple[CallbackMessage, list[DeliveryAttempt]]:
    """The message and its attempts, those before a replay included, in their order.

    Raises:
        NotFoundError: the tenant has no such message.
    """
    async with database.read() as session:
        found = await _find(session, instance_name, message_id)
        attempts = await session.scalars(
            select(DeliveryAttempt).where(DeliveryAttempt.message_id == message_id).order_by(DeliveryAttempt.id)
        )
        return found, list(attempts)


async def latest_warning(session: AsyncSession, instance_name: str) -> str | None:
    """What was strange about the answer to the tenant's message that was received last; None: nothing."""
    attempts = select(DeliveryAttempt.warning).where(DeliveryAttempt.message_id.in_(newest_received(instance_name)))
    warning: str | None = await session.scalar(attempts.order_by(DeliveryAttempt.id.desc()).limit(1))
    return warning


def newest_received(instance_name: str, most: int = 50) -> Select[int]:
    """The ids of the tenant's messages that were received, the newest."""
    received = CallbackMessage.instance_name == instance_name, CallbackMessage.state == MessageState.DELIVERED
    return select(CallbackMessage.id).where(*received).order_by(CallbackMessage.id.desc()).limit(most)


async def _find(session: AsyncSession, instance_name: str, message_id: int) -> CallbackMessage:
    found = await session.get(CallbackMessage, message_id)
    if found is None or found.instance_name != instance_name:
        raise NotFoundError(f"tenant '{instance_name}' has no delivery {message_id}")
    return found


async def replay(services: Services, instance_name: str, message_id: int, cause: Cause) -> CallbackMessage:
    """Try a dead message again, with all its attempts. Closes the circuit: who replays has mended LHC.

    Whoever did it stands in the audit log.

    Raises:
        NotFoundError: the tenant has no such message.
        ConflictError: it is not dead.
    """
    async with services.database.read() as session:
        found = await _find(session, instance_name, message_id)
    if not await _replay(services, found.conversation_id, CallbackMessage.id == message_id):
        raise ConflictError(f"delivery {message_id} is {found.state}, not dead")
    await audit.note(services, cause, instance_name, _REPLAYED, f"delivery {message_id}")
    await go_on(services, instance_name)
    async with services.database.read() as session:
        return await _find(session, instance_name, message_id)


async def replay_all(services: Services, instance_name: str, cause: Cause) -> int:
    """`replay` for all dead messages of the tenant. Returns how many there were.

    The circuit is closed even if none is dead: then what waits is tried now.
    """
    async with services.database.read() as session:
        conversation_ids = await session.scalars(
            select(CallbackMessage.conversation_id)
            .where(CallbackMessage.instance_name == instance_name, CallbackMessage.state == MessageState.DEAD)
            .distinct()
        )
    count = 0
    # a transaction for each: one that locks a single conversation can take part in no deadlock
    for conversation_id in conversation_ids:
        count += await _replay(services, conversation_id)
    if count:
        await audit.note(services, cause, instance_name, _REPLAYED, f"all {count} dead deliveries")
    await go_on(services, instance_name)
    return count


async def _replay(services: Services, conversation_id: int, *which: ColumnElement[bool]) -> int:
    """Make dead messages of the conversation pending, a compare-and-swap. Returns how many it were."""
    async with services.database.write() as session:
        conversation = await session.get(Conversation, conversation_id, with_for_update=True)
        replayed = await session.execute(
            update(CallbackMessage)
            .where(
                CallbackMessage.conversation_id == conversation_id, CallbackMessage.state == MessageState.DEAD, *which
            )
            .values(state=MessageState.PENDING, attempts=0, finished_at=None)
        )
        if conversation is not None and rows_changed(replayed):
            conversation.due_at = services.clock()
        return rows_changed(replayed)


async def go_on(services: Services, instance_name: str) -> None:
    """Close the tenant's circuit, and deliver what is due: its LHC works again, or is somewhere else."""
    async with services.database.write() as session:
        await circuits.close(session, instance_name, services.clock())
    await services.delivery.wake(instance_name)
