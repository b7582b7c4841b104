"""Operators' messages, stored before ejabberd is told that we have them. `tenants.delivery` delivers them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import meanings, ownership
from tenants.conversations.ownership import Verdict
from tenants.conversations.reports import OperatorMessage
from tenants.delivery import outbox, plain_lines
from tenants.delivery.outbox import ConversationEvent
from tenants.lifecycle import admission
from tenants.lifecycle.admission import Refusal
from tenants.process.backlog import Backlog
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.models import Account, Chat, Routing, Tenant


@dataclass(slots=True)
class Stored:
    """What became of messages, by their stanza ids.

    Attributes:
        refused: why some were not kept: their tenants carry no traffic, or have too many waiting.
        shown: what the visitor's browser shows of others, where there is one.
    """

    refused: dict[str, Refusal] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)


async def store_messages(services: Services, messages: list[OperatorMessage]) -> Stored:
    """Keep the messages, in order, in one transaction; repeats of a stanza id are dropped. Then wake the delivery.

    What an operator is told for it (`tenants.conversations.ownership`) is sent before this returns: should it be called
    again with the same messages, it is told once.

    Raises:
        QueueUnavailableError: operators could not be told; the messages are kept, and may be given once more.
    """
    notices: list[SendMessage] = []
    events: list[ConversationEvent] = []
    shown: dict[str, str] = {}
    async with services.database.write() as session:
        tenants, shut = await admission.hold_many(session, {message.receiver.instance for message in messages})
        await services.backlog.look(session, tenants)
        refused = _refusals(services.backlog, messages, tenants, shut)
        kept = [
            _in_language_of(tenants[message.receiver.instance], message)
            for message in messages
            if message.stanza_id not in refused
        ]
        receivers = {services.naming.username(message.receiver) for message in kept}
        open_chats = await ownership.lock(session, receivers)
        for message in kept:
            tenant = tenants[message.receiver.instance]
            verdict = await _meaning(services, session, tenant, message, open_chats)
            notices += verdict.notices
            events += [one for one in verdict.events if outbox.is_told(tenant, one.event)]
            if message.for_browser:
                shown[message.stanza_id] = _shown(tenant, verdict)
        refused = await outbox.without_repeats(session, refused)
        woken = await outbox.note(services, session, events)
        idle = [receiver for receiver in receivers if services.cache.is_to_be_touched(receiver)]
        if idle:
            await _note_activity(session, idle, services.clock())
    if notices:
        await services.commands.publish(*notices)
    await services.delivery.wake(*sorted(woken))
    return Stored(refused, shown)


def _refusals(
    backlog: Backlog, messages: Sequence[OperatorMessage], tenants: Mapping[str, Tenant], shut: Mapping[str, str]
) -> dict[str, Refusal]:
    """Why some messages are not kept, by their stanza ids; the others count as waiting from now on."""
    refused: dict[str, Refusal] = {}
    for message in messages:
        name = message.receiver.instance
        if name in shut:
            refused[message.stanza_id] = Refusal(shut[name])
        elif foreign := admission.stranger(tenants[name], message.host):
            refused[message.stanza_id] = Refusal(foreign)
        elif full := backlog.add(tenants[name], message.body):
            refused[message.stanza_id] = Refusal(full, later=True)
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
        return await ownership.judge(services, session, tenant, message, chat)
    return Verdict([await meanings.event_of(session, services.naming, message)])


def _shown(tenant: Tenant, verdict: Verdict) -> str:
    """What the visitor reads: nothing if it is not sent on."""
    read = [one for one in verdict.events if one.event in {*outbox.MESSAGES, *outbox.ABOUT_LINES}]
    return "\n".join(plain_lines.of_event(one.event, one.body or "", one.detail, tenant.language) for one in read)


def _in_language_of(tenant: Tenant, message: OperatorMessage) -> OperatorMessage:
    """The message with the text for the tenant's visitors, if it came in several languages."""
    if not message.content.translations:
        return message
    return replace(message, body=message.content.text_in(tenant.language))


async def _note_activity(session: AsyncSession, usernames: Sequence[str], now: float) -> None:
    await session.execute(
        update(Account)
        .where(Account.username.in_(usernames), Account.last_active_at < now)
        .values(last_active_at=now)
        .execution_options(synchronize_session=False)
    )
