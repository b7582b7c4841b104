"""Visitors' messages that came back from ejabberd as errors: kept, and sent to the operator again on demand."""

from collections.abc import Collection, Sequence

import structlog
from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import signals, stanza_ids
from tenants.conversations.reports import Returned
from tenants.core.errors import ConflictError, NotFoundError
from tenants.lifecycle import admission, audit
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.database import Database
from tenants.store.models import ReturnedMessage, Tenant, TenantState

log = structlog.get_logger(__name__)

_KEEP_SECONDS = 30 * 24 * 3600.0
"""Nobody has asked for such a message again for this long: it is forgotten."""
_MOST_OF_OPERATOR, _MOST_OF_TENANT = 2_000, 20_000
"""Kept at once; beyond them the oldest are forgotten. Any client may send errors, with ids that it made up."""
_PAGE = 500
_REPLAYED = "returned.replayed"
"""In the audit log."""


async def store(services: Services, reports: list[Returned]) -> None:
    """Keep the messages, and tell their tenants; repeats of a report are dropped."""
    now = services.clock()
    async with services.database.write() as session:
        # of one that is gone nothing is kept: it would be there for the next one of its name
        tenants, _ = await admission.hold_many(session, {report.visitor.instance for report in reports})
        there = {name for name, tenant in tenants.items() if tenant.state is not TenantState.DESTROYED}
        reports = [
            report
            for report in reports
            if report.visitor.instance in there
            and not admission.stranger(tenants[report.visitor.instance], report.host)
        ]
        for report in reports:
            await session.execute(
                services.database.insert(ReturnedMessage)
                .values(
                    instance_name=report.visitor.instance,
                    stanza_id=report.stanza_id,
                    message_id=report.message_id,
                    visitor=services.naming.username(report.visitor),
                    operator=services.naming.username(report.operator),
                    body=report.body,
                    condition=report.condition,
                    reason=report.reason,
                    created_at=now,
                )
                .on_conflict_do_nothing(index_elements=["stanza_id"])
            )
        await _forget_oldest(
            session, {(one.visitor.instance, services.naming.username(one.operator)) for one in reports}
        )
        woken = await signals.failed(services, session, reports)
    await services.delivery.wake(*woken)
    for report in reports:
        log.warning("a visitor's message came back", instance_name=report.visitor.instance, condition=report.condition)


async def _forget_oldest(session: AsyncSession, of: Collection[tuple[str, str]]) -> None:
    """Of these tenants and operators, what is beyond the bounds."""
    bounds: list[tuple[int, Sequence[ColumnElement[bool]]]] = [
        (_MOST_OF_TENANT, [ReturnedMessage.instance_name == name]) for name in sorted({name for name, _ in of})
    ]
    for name, operator in sorted(of):
        of_operator = [ReturnedMessage.instance_name == name, ReturnedMessage.operator == operator]
        bounds.append((_MOST_OF_OPERATOR, of_operator))
    for most, which in bounds:
        newest = select(ReturnedMessage.id).where(*which).order_by(ReturnedMessage.id.desc())
        last = await session.scalar(newest.offset(most).limit(1))
        if last is not None:
            await session.execute(delete(ReturnedMessage).where(*which, ReturnedMessage.id <= last))
            log.warning("returned messages are too many: the oldest are forgotten", most=most)


async def find(database: Database, instance_name: str, *, after: int, limit: int) -> list[ReturnedMessage]:
    """The tenant's messages that came back, oldest first, from the id `after` on."""
    async with database.read() as session:
        rows = await session.scalars(
            select(ReturnedMessage)
            .where(ReturnedMessage.instance_name == instance_name, ReturnedMessage.id > after)
            .order_by(ReturnedMessage.id)
            .limit(limit)
        )
        return list(rows)


async def replay(services: Services, instance_name: str, returned_id: int, cause: Cause) -> ReturnedMessage:
    """Send the message to the operator again, under a new id, and give it as it is then.

    Whoever did it stands in the audit log.

    Raises:
        NotFoundError: the tenant has no such message.
        ConflictError: it was sent again already, or the tenant carries no traffic.
        QueueUnavailableError: it could not be accepted.
    """
    tenant = await admission.get(services, instance_name)
    async with services.database.read() as session:
        message = await session.get(ReturnedMessage, returned_id)
    if message is None or message.instance_name != instance_name:
        raise NotFoundError(f"tenant '{instance_name}' has no returned message {returned_id}")
    if message.replayed_at is not None:
        raise ConflictError(f"returned message {returned_id} was sent again already")
    await _send_again(services, tenant, message)
    await audit.note(services, cause, instance_name, _REPLAYED, f"returned message {returned_id}")
    return message


async def replay_all(services: Services, instance_name: str, cause: Cause) -> int:
    """Send all of the tenant's messages that were not sent again yet, older ones first. Returns how many.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: the tenant carries no traffic.
        QueueUnavailableError: one could not be accepted; those before it were.
    """
    tenant = await admission.get(services, instance_name)
    count = 0
    while True:
        async with services.database.read() as session:
            page = await session.scalars(
                select(ReturnedMessage)
                .where(ReturnedMessage.instance_name == instance_name, ReturnedMessage.replayed_at.is_(None))
                .order_by(ReturnedMessage.id)
                .limit(_PAGE)
            )
            messages = list(page)
        if not messages:
            if count:
                await audit.note(services, cause, instance_name, _REPLAYED, f"all {count} returned messages")
            return count
        for message in messages:
            await _send_again(services, tenant, message)
            count += 1


async def _send_again(services: Services, tenant: Tenant, message: ReturnedMessage) -> None:
    message.replayed_at = services.clock()
    await services.commands.publish(
        SendMessage(
            instance_name=message.instance_name,
            incarnation=tenant.incarnation,
            username=message.visitor,
            operator=message.operator,
            body=message.body,
            message_id=stanza_ids.of_replay(message),
        )
    )
    async with services.database.write() as session:
        await session.execute(
            update(ReturnedMessage).where(ReturnedMessage.id == message.id).values(replayed_at=message.replayed_at)
        )


async def purge(services: Services) -> None:
    """Forget messages that came back long ago."""
    async with services.database.write() as session:
        await session.execute(
            delete(ReturnedMessage).where(ReturnedMessage.created_at < services.clock() - _KEEP_SECONDS)
        )
