"""Callbacks to LHC: stored first, delivered in order, retried; the tasks here are woken, never trusted.

Messages of one conversation go one after another, oldest first; conversations go side by side. Of an operator's
presence only the latest is kept.
"""

from dataclasses import dataclass

import structlog
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants import claims, registry
from tenants.backoff import delay
from tenants.database import rows_changed
from tenants.lhc import callback_base, message_body, status_body
from tenants.models import CallbackMessage, Conversation, MessageState, OperatorPresence
from tenants.naming import AccountName
from tenants.services import Services

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 12
"""Tries of one message before it rests as a dead letter: with the delays below about half a day."""
_FIRST_DELAY, _LONGEST_DELAY = 2.0, 4 * 3600.0
_PRESENCE_ATTEMPTS = 5
"""A presence that could not be told within about a minute is stale: the next ping tells a newer one."""
_REMEMBER_SECONDS = 24 * 3600.0
"""How long a delivered message's id is kept to recognise repeats."""
_SWEEP_LIMIT = 200


@dataclass(frozen=True, slots=True)
class OperatorMessage:
    """A chat message of an operator to a visitor, as the bridge module handed it over."""

    stanza_id: str
    sender: AccountName
    receiver: AccountName
    body: str


async def store_messages(services: Services, messages: list[OperatorMessage]) -> None:
    """Keep the messages, in order, in one transaction; repeats of a stanza id are dropped. Then wake the delivery."""
    now = services.clock()
    woken: dict[int, str] = {}
    async with services.database.write() as session:
        for message in messages:
            conversation_id = await _conversation(services, session, message, now)
            stored = await session.execute(
                services.database.insert(CallbackMessage)
                .values(
                    conversation_id=conversation_id,
                    instance_name=message.receiver.instance,
                    stanza_id=message.stanza_id,
                    sender=services.naming.username(message.sender),
                    receiver=services.naming.username(message.receiver),
                    server=services.settings.xmpp_host,
                    body=message.body,
                    state=MessageState.PENDING,
                    attempts=0,
                    created_at=now,
                )
                .on_conflict_do_nothing(index_elements=["stanza_id"])
            )
            if rows_changed(stored):
                woken[conversation_id] = message.receiver.instance
    for conversation_id, instance_name in woken.items():
        await services.wake(task_names.DELIVER_MESSAGES, conversation_id=conversation_id, instance_name=instance_name)


async def _conversation(services: Services, session: AsyncSession, message: OperatorMessage, now: float) -> int:
    """The conversation's id. It becomes due, unless it is so already (and perhaps waits out a failure)."""
    insert = services.database.insert(Conversation).values(
        instance_name=message.receiver.instance, receiver=services.naming.username(message.receiver), due_at=now
    )
    upsert = insert.on_conflict_do_update(
        index_elements=["instance_name", "receiver"],
        set_={"due_at": Conversation.due_at},
    ).returning(Conversation.id)
    conversation_id: int = (await session.execute(upsert)).scalar_one()
    await session.execute(
        update(Conversation).where(Conversation.id == conversation_id, Conversation.due_at.is_(None)).values(due_at=now)
    )
    return conversation_id


async def deliver_messages(services: Services, conversation_id: int) -> None:
    """Deliver the conversation's messages until none is left or one fails. Any number may run: one works."""
    async with services.database.write() as session:
        token = await claims.claim(session, Conversation, conversation_id, services.clock())
    if token is None:
        return
    while True:
        async with services.database.read() as session:
            message = await session.scalar(
                select(CallbackMessage)
                .where(
                    CallbackMessage.conversation_id == conversation_id, CallbackMessage.state == MessageState.PENDING
                )
                .order_by(CallbackMessage.id)
                .limit(1)
            )
        if message is None:
            if await _release_when_empty(services, conversation_id, token):
                return
            continue
        if not await _deliver_one(services, message, token):
            return


async def _release_when_empty(services: Services, conversation_id: int, token: str) -> bool:
    """Give the conversation back, unless a message came in meanwhile. True when this holder is done with it."""
    async with services.database.write() as session:
        # the lock on the row makes a message that is being stored just now wait, or be seen
        await session.get(Conversation, conversation_id, with_for_update=True)
        pending = await session.scalar(
            select(CallbackMessage.id)
            .where(CallbackMessage.conversation_id == conversation_id, CallbackMessage.state == MessageState.PENDING)
            .limit(1)
        )
        if pending is not None:
            return False
        await claims.release(session, Conversation, conversation_id, token, due_at=None)
        return True


async def _deliver_one(services: Services, message: CallbackMessage, token: str) -> bool:
    """Post one message and record what became of it. True when the next one may follow at once."""
    tenant = await registry.find(services, message.instance_name)
    error: str | None = "the tenant is gone"
    if tenant is not None:
        answer = await services.lhc.post_message(
            callback_base(services.settings, message.instance_name, tenant.callback_url),
            message_body(
                body=message.body or "", sender=message.sender, receiver=message.receiver, server=message.server
            ),
        )
        error = answer.error
    now = services.clock()
    attempts = message.attempts + 1
    state = MessageState.DELIVERED
    if error is not None:
        dead = tenant is None or attempts >= MAX_ATTEMPTS
        state = MessageState.DEAD if dead else MessageState.PENDING
        log.warning("callback failed", instance_name=message.instance_name, error=error, attempt=attempts, dead=dead)
    values: dict[str, object] = {"state": state, "attempts": attempts, "last_error": error}
    if state is not MessageState.PENDING:
        values["finished_at"] = now
    if state is MessageState.DELIVERED:
        values["body"] = None
    async with services.database.write() as session:
        if not await claims.renew(session, Conversation, message.conversation_id, token, now):
            return False
        await session.execute(update(CallbackMessage).where(CallbackMessage.id == message.id).values(**values))
        if state is MessageState.PENDING:
            due_at = now + delay(attempts, first=_FIRST_DELAY, longest=_LONGEST_DELAY)
            await claims.release(session, Conversation, message.conversation_id, token, due_at)
            return False
    return True


async def operator_changed(services: Services, name: AccountName, *, online: bool) -> None:
    """Record that an operator's first connection came or the last one went; LHC is told of what is new to it."""
    username = services.naming.username(name)
    action = "connect" if online else "disconnect"
    body = status_body(action=action, user=username, server=services.settings.xmpp_host)
    async with services.database.write() as session:
        known = await session.get(OperatorPresence, username, with_for_update=True)
        if (known is not None and known.online == online) or (known is None and not online):
            return
        if known is None:
            known = OperatorPresence(username=username, instance_name=name.instance, version=0)
            session.add(known)
        known.online = online
        _set_pending(known, body, services.clock())
    await _wake_presence(services, name, username)


async def operator_answered(services: Services, name: AccountName, jid: str) -> None:
    """An operator's client answered a ping: LHC is told, unless it is still to be told of the connection itself."""
    username = services.naming.username(name)
    async with services.database.write() as session:
        known = await session.get(OperatorPresence, username, with_for_update=True)
        if known is None or not known.online or (known.pending and '"connect"' in known.pending):
            return
        _set_pending(known, status_body(action="ping", user=jid), services.clock())
    await _wake_presence(services, name, username)


async def online_operators(services: Services) -> list[OperatorPresence]:
    """The operators that LHC believes, or is about to be told, to be online."""
    async with services.database.read() as session:
        return list(await session.scalars(select(OperatorPresence).where(OperatorPresence.online)))


def _set_pending(presence: OperatorPresence, body: str, now: float) -> None:
    presence.pending = body
    presence.version += 1
    presence.attempts = 0
    presence.due_at = now


async def _wake_presence(services: Services, name: AccountName, username: str) -> None:
    await services.wake(task_names.DELIVER_PRESENCE, username=username, instance_name=name.instance)


async def deliver_presence(services: Services, username: str) -> None:
    """Tell LHC the operator's latest presence, until there is nothing newer to tell."""
    async with services.database.write() as session:
        token = await claims.claim(session, OperatorPresence, username, services.clock())
    while token is not None:
        async with services.database.read() as session:
            presence = await session.get_one(OperatorPresence, username)
        if await _deliver_latest(services, presence, token):
            return


async def _deliver_latest(services: Services, presence: OperatorPresence, token: str) -> bool:
    """Post the pending callback. True when this holder is done with the operator."""
    tenant = await registry.find(services, presence.instance_name)
    error: str | None = None
    if tenant is not None and presence.pending is not None:
        base = callback_base(services.settings, presence.instance_name, tenant.callback_url)
        error = (await services.lhc.post_status(base, presence.pending)).error
    now = services.clock()
    async with services.database.write() as session:
        current = await session.get(OperatorPresence, presence.username, with_for_update=True)
        if current is None or current.claim_token != token:
            return True
        if current.version != presence.version:
            current.claimed_until = now + claims.CLAIM_TERM
            return False
        current.claim_token = current.claimed_until = None
        current.attempts += 1
        if error is None or current.attempts >= _PRESENCE_ATTEMPTS:
            current.pending = current.due_at = None
        else:
            current.due_at = now + delay(current.attempts, first=_FIRST_DELAY, longest=60)
    if error is not None:
        log.warning("presence callback failed", instance_name=presence.instance_name, error=error)
    return True


async def sweep(services: Services) -> None:
    """Wake all that is due, and forget what was delivered long ago."""
    now = services.clock()
    async with services.database.read() as session:
        conversation_ids = await claims.due(session, Conversation, now, _SWEEP_LIMIT)
        conversations = (
            await session.execute(
                select(Conversation.id, Conversation.instance_name).where(Conversation.id.in_(conversation_ids))
            )
        ).all()
        usernames = await claims.due(session, OperatorPresence, now, _SWEEP_LIMIT)
        operators = (
            await session.execute(
                select(OperatorPresence.username, OperatorPresence.instance_name).where(
                    OperatorPresence.username.in_(usernames)
                )
            )
        ).all()
    for conversation_id, instance_name in conversations:
        await services.wake(task_names.DELIVER_MESSAGES, conversation_id=conversation_id, instance_name=instance_name)
    for username, instance_name in operators:
        await services.wake(task_names.DELIVER_PRESENCE, username=username, instance_name=instance_name)


async def purge(services: Services) -> None:
    """Forget messages that were delivered long ago."""
    async with services.database.write() as session:
        await session.execute(
            delete(CallbackMessage).where(
                CallbackMessage.state == MessageState.DELIVERED,
                CallbackMessage.created_at < services.clock() - _REMEMBER_SECONDS,
            )
        )
