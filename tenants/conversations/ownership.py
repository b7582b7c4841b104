"""Whose chat it is, and what an operator's message means.

They hold for tenants whose `routing` is `orchestrator`. A chat belongs to nobody until an operator answers it: the
first one owns it, under the lock of its row, and the others are told.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import chats, line_sender, line_store, meanings
from tenants.conversations.reports import OperatorMessage
from tenants.core.errors import NotFoundError
from tenants.core.naming import AccountKind, AccountName, Naming
from tenants.delivery import outbox
from tenants.delivery.outbox import ConversationEvent, Event
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.models import Account, AccountState, Chat, ChatLine, ChatState, LineState, Tenant


async def assign(services: Services, instance_name: str, chat_id: str, operator: AccountName) -> Chat:
    """Give the chat to an operator; who had it, and who was offered it, are told.

    Raises:
        NotFoundError: there is no such tenant, chat or operator.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
    """
    tenant = await admission.get_routed(services, instance_name)
    username = services.naming.username(operator)
    async with services.database.write() as session:
        account = await session.get(Account, username)
        if account is None or account.kind is not AccountKind.OPERATOR or account.state is AccountState.REMOVING:
            raise NotFoundError(f"tenant '{tenant.instance_name}' has no operator '{operator.ident}'")
        chat = await chats.lock_open(session, tenant.instance_name, chat_id)
        if chat.owner == username:
            return chat
        others = {*await _told(session, chat), *([chat.owner] if chat.owner else [])} - {username}
        previous = chat.owner
        event_id = uuid.uuid4().hex
        await _own(session, tenant, chat, username, services.clock(), accepted_by=event_id)
        event = Event.CHAT_TRANSFERRED if previous else Event.CHAT_ACCEPTED
        told = ConversationEvent(
            event,
            event_id,
            operator,
            services.naming.parse_username(chat.username),
            detail={"chat_id": chat.chat_id, "previous_owner": _ident(services.naming, previous)},
        )
        woken = await outbox.note(services, session, [told] if outbox.is_told(tenant, event) else [])
        notices = await line_sender.notices(
            services.naming, session, tenant, chat, others, owner=username, because_of=event_id
        )
    await services.commands.publish(*notices)
    await services.delivery.wake(*woken)
    await line_sender.forward(services, chat.id)
    return chat


async def lock(session: AsyncSession, usernames: Iterable[str]) -> dict[str, Chat]:
    """Lock the open chats of these accounts, always in the same order, so that two who do it never wait in a ring."""
    wanted = select(Chat).where(Chat.username.in_(list(usernames)), Chat.state != ChatState.CLOSED)
    return {chat.username: chat for chat in await session.scalars(wanted.order_by(Chat.username).with_for_update())}


@dataclass(slots=True)
class Verdict:
    """What an operator's message means.

    Attributes:
        events: what the tenant is told, in this order; nothing when the message is not sent on.
        notices: what operators are told.
    """

    events: list[ConversationEvent] = field(default_factory=list)
    notices: list[SendMessage] = field(default_factory=list)


async def judge(
    services: Services, session: AsyncSession, tenant: Tenant, message: OperatorMessage, chat: Chat | None
) -> Verdict:
    """What an operator's message to a visitor means, in the transaction that keeps it. A repeat means the same.

    `chat`: the visitor's open one, locked.
    """
    sender = services.naming.username(message.sender)
    if chat is None:
        return Verdict([_without_chat(await meanings.event_of(session, services.naming, message))])
    if chat.owner is not None and chat.owner != sender:
        return Verdict(
            notices=await line_sender.notices(
                services.naming, session, tenant, chat, [sender], owner=chat.owner, because_of=message.stanza_id
            )
        )
    said = await meanings.event_of(session, services.naming, message)
    verdict = Verdict()
    if chat.owner is None and message.content.kind.is_said:
        await _own(session, tenant, chat, sender, services.clock(), accepted_by=message.stanza_id)
    if chat.accepted_by == message.stanza_id:
        # also when it comes again: whoever took it first may have died before the others were told
        others = await _told(session, chat) - {sender}
        verdict.notices = await line_sender.notices(
            services.naming, session, tenant, chat, others, owner=sender, because_of=message.stanza_id
        )
        detail = {"chat_id": chat.chat_id}
        accepted = ConversationEvent(
            Event.CHAT_ACCEPTED, f"{said.id}/accepted", said.operator, said.visitor, detail=detail
        )
        verdict.events.append(accepted)
    verdict.events.append(replace(said, detail={**said.detail, "chat_id": chat.chat_id}))
    if tenant.history_hours:
        await _remember(services, session, chat, said, sender)
    return verdict


def _without_chat(said: ConversationEvent) -> ConversationEvent:
    """What an operator says to a visitor who has no chat is an invitation."""
    return replace(said, event=Event.INVITATION_CREATED) if said.event is Event.MESSAGE_CREATED else said


def _ident(naming: Naming, operator: str | None) -> str | None:
    """The operator's username without the instance."""
    return None if operator is None else naming.parse_username(operator).ident


async def _own(
    session: AsyncSession, tenant: Tenant, chat: Chat, username: str, now: float, *, accepted_by: str
) -> None:
    if chat.owner is None:
        await _pass_on(session, tenant, chat, username)
    chat.owner, chat.state, chat.accepted_at, chat.accepted_by = username, ChatState.OWNED, now, accepted_by


async def _pass_on(session: AsyncSession, tenant: Tenant, chat: Chat, owner: str) -> None:
    """What was said while nobody had the chat: its owner is sent what he was not, and nobody else will be."""
    lines = await session.scalars(
        select(ChatLine).where(
            ChatLine.chat_id == chat.id,
            ChatLine.sender == chat.username,
            ChatLine.created_at >= chat.pending_since,
            ChatLine.state.in_([LineState.SENT, LineState.DELIVERED]),
        )
    )
    for line in lines:
        if owner not in line.sent_to:
            line.state = LineState.WAITING
        elif not tenant.history_hours:
            line.body = None


async def _told(session: AsyncSession, chat: Chat) -> set[str]:
    """The operators whom the chat was offered to since it was last without an owner; those who know of it."""
    rows = await session.scalars(
        select(ChatLine.sent_to).where(ChatLine.chat_id == chat.id, ChatLine.created_at >= chat.pending_since)
    )
    return {username for sent_to in rows for username in sent_to}


async def _remember(
    services: Services, session: AsyncSession, chat: Chat, said: ConversationEvent, sender: str
) -> None:
    """Keep what the operator wrote for the chat's history, as it reads by now."""
    match said.event:
        case Event.MESSAGE_CREATED:
            row = line_store.line_values(chat, said.body or "", said.id, services.clock())
            await session.execute(
                services.database.insert(ChatLine)
                .values({**row, "sender": sender, "state": LineState.SENT})
                .on_conflict_do_nothing(index_elements=["chat_id", "message_id"])
            )
        case Event.MESSAGE_UPDATED | Event.MESSAGE_RETRACTED:
            await session.execute(
                update(ChatLine)
                .where(
                    ChatLine.chat_id == chat.id,
                    ChatLine.message_id == said.detail["changes"],
                    ChatLine.sender == sender,
                )
                .values(body=said.body if said.event is Event.MESSAGE_UPDATED else None)
                .execution_options(synchronize_session=False)
            )
        case _:
            pass
