"""What LHC is to be told: operators' messages, stored before ejabberd is told that we have them, and presence.

Of an operator's presence only the latest is kept. Delivery is in `tenants.delivery.worker`; here it is only woken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import chats
from tenants.conversations.chats import Verdict
from tenants.core.naming import AccountName
from tenants.delivery import outbox
from tenants.delivery.outbox import Event, Happening
from tenants.lifecycle import admission
from tenants.lifecycle.admission import Refusal
from tenants.outbound.lhc import status_body
from tenants.process import leases
from tenants.process.leases import Lease
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.models import Account, Chat, OperatorPresence, Routing, Tenant


@dataclass(frozen=True, slots=True)
class OperatorMessage:
    """A chat message of an operator to a visitor, as the bridge module handed it over."""

    stanza_id: str
    sender: AccountName
    receiver: AccountName
    body: str


async def store_messages(services: Services, messages: list[OperatorMessage]) -> dict[str, Refusal]:
    """Keep the messages, in order, in one transaction; repeats of a stanza id are dropped. Then wake the delivery.

    What an operator is told for it (`tenants.conversations.chats`) is sent before this returns: should it be called
    again with the same messages, it is told once.

    Returns:
        Why messages were not kept, by their stanza ids: their tenants carry no traffic, or have too many waiting.

    Raises:
        QueueUnavailableError: operators could not be told; the messages are kept, and may be given once more.
    """
    notices: list[SendMessage] = []
    happenings: list[Happening] = []
    async with services.database.write() as session:
        tenants, shut = await admission.hold_many(session, {message.receiver.instance for message in messages})
        await services.backlog.look(session, tenants)
        refused: dict[str, Refusal] = {}
        for message in messages:
            name = message.receiver.instance
            if name in shut:
                refused[message.stanza_id] = Refusal(shut[name])
            elif full := services.backlog.add(tenants[name], message.body):
                refused[message.stanza_id] = Refusal(full, later=True)
        kept = [message for message in messages if message.stanza_id not in refused]
        receivers = {services.naming.username(message.receiver) for message in kept}
        open_chats = await chats.lock(session, receivers)
        for message in kept:
            tenant = tenants[message.receiver.instance]
            verdict = await _meaning(services, session, tenant, message, open_chats)
            notices += verdict.notices
            happenings += [one for one in verdict.happenings if outbox.is_told(tenant, one.event)]
        refused = await outbox.without_repeats(session, refused)
        woken = await outbox.note(services, session, happenings)
        idle = [receiver for receiver in receivers if services.known.is_to_be_touched(receiver)]
        if idle:
            await _note_activity(session, idle, services.clock())
    if notices:
        await services.commands.publish(*notices)
    await services.delivery.wake(*sorted(woken))
    return refused


async def _meaning(
    services: Services,
    session: AsyncSession,
    tenant: Tenant,
    message: OperatorMessage,
    open_chats: Mapping[str, Chat],
) -> Verdict:
    if tenant.routing is Routing.ORCHESTRATOR:
        chat = open_chats.get(services.naming.username(message.receiver))
        return await chats.judge(services, session, tenant, message, chat)
    said = Happening(Event.MESSAGE_CREATED, message.stanza_id, message.sender, message.receiver, message.body)
    return Verdict([said])


async def _note_activity(session: AsyncSession, usernames: Sequence[str], now: float) -> None:
    await session.execute(
        update(Account)
        .where(Account.username.in_(usernames), Account.last_active_at < now)
        .values(last_active_at=now)
        .execution_options(synchronize_session=False)
    )


async def operator_changed(services: Services, name: AccountName, *, online: bool, lease: Lease) -> None:
    """Record that an operator's first connection came or the last one went; LHC is told of what is new to it.

    Raises:
        LeaseLostError: the shard is another's by now, who knows better.
    """
    username = services.naming.username(name)
    action = "connect" if online else "disconnect"
    body = status_body(action=action, user=username, server=services.settings.xmpp_host)
    async with services.database.write() as session:
        await leases.check(session, lease)
        known = await session.get(OperatorPresence, username, with_for_update=True)
        if (known is not None and known.online == online) or (known is None and not online):
            return
        if known is None:
            known = OperatorPresence(username=username, instance_name=name.instance, version=0)
            session.add(known)
        known.online = online
        _set_pending(known, body, services.clock(), retried=True)
    await services.delivery.wake(name.instance)


async def operator_answered(services: Services, name: AccountName, jid: str) -> None:
    """An operator's client answered a ping: LHC is told, unless it is still to be told of the connection itself.

    That of a tenant that is shut is not told: it would say nothing new later.
    """
    username = services.naming.username(name)
    async with services.database.write() as session:
        if await admission.is_shut(session, name.instance):
            return
        known = await session.get(OperatorPresence, username, with_for_update=True)
        if known is None or not known.online or (known.pending and known.retried):
            return
        _set_pending(known, status_body(action="ping", user=jid), services.clock(), retried=False)
    await services.delivery.wake(name.instance)


async def online_operators(services: Services) -> list[OperatorPresence]:
    """The operators that LHC believes, or is about to be told, to be online."""
    async with services.database.read() as session:
        return list(await session.scalars(select(OperatorPresence).where(OperatorPresence.online)))


def _set_pending(presence: OperatorPresence, body: str, now: float, *, retried: bool) -> None:
    presence.pending = body
    presence.retried = retried
    presence.version += 1
    presence.attempts = 0
    presence.due_at = now
