"""The rules of a chat: whom a visitor's message goes to, whose chat it is, and what an operator's message means.

They hold for tenants whose `routing` is `orchestrator`. A chat belongs to nobody until an operator answers it: the
first one owns it, under the lock of its row, and the others are told. What visitors write is in
`tenants.conversations.chat_lines`.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants.accounts import accounts
from tenants.conversations import chat_lines, line_sender, line_store
from tenants.conversations.reports import OperatorMessage
from tenants.core.errors import ConflictError, NotFoundError, UnavailableError
from tenants.core.naming import AccountKind, AccountName
from tenants.delivery import outbox
from tenants.delivery.outbox import ConversationEvent, Event
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.shards.commands import SendMessage, ShowTyping
from tenants.store.models import Account, AccountState, Chat, ChatLine, ChatState, LineState, Tenant
from tenants.visitors import presence

log = structlog.get_logger(__name__)

_KEEP_LINES = 24 * 3600.0
"""How long a line without its body waits for receipts."""
_KEEP_CHATS = 30 * 24 * 3600.0
"""How long a closed chat can be looked up."""
_TYPING_SECONDS = 10.0
"""How long it is worth telling that somebody types."""


@dataclass(frozen=True, slots=True)
class NewChat:
    """A chat as its tenant announces it. `visitor_id`: None when nobody known; `body`: the first message, if any."""

    chat_id: str
    visitor_id: str | None
    nick: str
    department: str | None
    body: str | None
    status: str = presence.DEFAULT_STATUS


async def get(services: Services, instance_name: str, chat_id: str) -> Chat:
    """The chat.

    Raises:
        NotFoundError: the tenant has no such chat.
    """
    async with services.database.read() as session:
        found = await session.scalar(_chat(instance_name, chat_id))
    if found is None:
        raise NotFoundError(f"tenant '{instance_name}' has no chat {chat_id}")
    return found


async def find(
    services: Services, instance_name: str, *, state: ChatState | None = None, after: int = 0, limit: int = 50
) -> list[Chat]:
    """The tenant's chats, oldest first, from the row `after` on."""
    query = select(Chat).where(Chat.instance_name == instance_name, Chat.id > after).order_by(Chat.id).limit(limit)
    if state is not None:
        query = query.where(Chat.state == state)
    async with services.database.read() as session:
        return list(await session.scalars(query))


async def start(services: Services, tenant: Tenant, new: NewChat) -> tuple[Chat, bool]:
    """Begin a chat, or find the one of that number. Returns it, and whether it is new.

    It is spoken from the visitor's account when there is one without a chat, else from an account made for it.

    Raises:
        ConflictError: the tenant is shut; or the chat of that number is closed.
        InvalidInputError: an id breaks a rule, or the message does.
        QueueUnavailableError: the visitor cannot be shown now; the chat is kept, and its message goes later.
    """
    if new.body is not None:
        new = replace(new, body=chat_lines.check_body(new.body))
    await _refuse_closed(services, tenant, new.chat_id)
    name = await _account_for(services, tenant, new)
    await accounts.ensure(services, tenant, name, new.nick)
    chat, is_new = await _insert(services, tenant, name, new)
    speaker = services.naming.parse_username(chat.username)
    await presence.show(services, tenant, speaker, chat.nick, new.status)
    await line_sender.forward(services, chat.id)
    return chat, is_new


async def assign(services: Services, tenant: Tenant, chat_id: str, operator: AccountName) -> Chat:
    """Give the chat to an operator; who had it, and who was offered it, are told.

    Raises:
        NotFoundError: there is no such chat or operator.
        ConflictError: the chat is closed.
    """
    username = services.naming.username(operator)
    async with services.database.write() as session:
        account = await session.get(Account, username)
        if account is None or account.kind is not AccountKind.OPERATOR or account.state is AccountState.REMOVING:
            raise NotFoundError(f"tenant '{tenant.instance_name}' has no operator '{operator.ident}'")
        chat = await _lock_open(session, tenant.instance_name, chat_id)
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
            detail={"chat_id": chat.chat_id, "previous_owner": _ident(services, previous)},
        )
        woken = await outbox.note(services, session, [told] if outbox.is_told(tenant, event) else [])
        notices = await line_sender.notices(
            services, session, tenant, chat, others, owner=username, because_of=event_id
        )
    await services.commands.publish(*notices)
    await services.delivery.wake(*woken)
    await line_sender.forward(services, chat.id)
    return chat


async def show_typing(services: Services, tenant: Tenant, chat_id: str, *, composing: bool) -> None:
    """The visitor began to write, or ceased to: its owner sees it, or all who may take the chat.

    Raises:
        NotFoundError: there is no such chat.
        ConflictError: it is closed.
    """
    chat = await get(services, tenant.instance_name, chat_id)
    if chat.state is ChatState.CLOSED:
        raise ConflictError(f"chat {chat_id} is closed")
    async with services.database.read() as session:
        operators = await line_sender.audience(session, chat)
    await services.commands.publish(
        *(
            ShowTyping(
                instance_name=chat.instance_name,
                incarnation=tenant.incarnation,
                username=chat.username,
                operator=operator,
                composing=composing,
                told_until=services.clock() + _TYPING_SECONDS,
            )
            for operator in operators
        )
    )


async def close(services: Services, tenant: Tenant, chat_id: str) -> Chat:
    """End the chat: an account that was made for it goes; a visitor's stays online as long as its page view lasts.

    One that is closed already stays so.

    Raises:
        NotFoundError: there is no such chat.
    """
    async with services.database.write() as session:
        chat = await session.scalar(_chat(tenant.instance_name, chat_id).with_for_update())
        if chat is None:
            raise NotFoundError(f"tenant '{tenant.instance_name}' has no chat {chat_id}")
        if chat.state is not ChatState.CLOSED:
            chat.state, chat.closed_at = ChatState.CLOSED, services.clock()
    name = services.naming.parse_username(chat.username)
    if name.kind is AccountKind.CHAT:
        await accounts.remove(services, name)
    return chat


async def rename(services: Services, tenant: Tenant, chat_id: str, nick: str, status: str | None) -> Chat:
    """Another nick of the visitor, or another status; the window of being online begins anew.

    Raises:
        NotFoundError: there is no such chat.
        ConflictError: it is closed.
    """
    async with services.database.write() as session:
        chat = await _lock_open(session, tenant.instance_name, chat_id)
        chat.nick = nick
    await presence.show(services, tenant, services.naming.parse_username(chat.username), nick, status)
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
    said = ConversationEvent(Event.MESSAGE_CREATED, message.stanza_id, message.sender, message.receiver, message.body)
    sender = services.naming.username(message.sender)
    if chat is None:
        return Verdict([ConversationEvent(Event.INVITATION_CREATED, said.id, said.operator, said.visitor, said.body)])
    if chat.owner is not None and chat.owner != sender:
        return Verdict(
            notices=await line_sender.notices(
                services, session, tenant, chat, [sender], owner=chat.owner, because_of=message.stanza_id
            )
        )
    verdict = Verdict()
    if chat.owner is None:
        await _own(session, tenant, chat, sender, services.clock(), accepted_by=message.stanza_id)
    if chat.accepted_by == message.stanza_id:
        # also when it comes again: whoever took it first may have died before the others were told
        others = await _told(session, chat) - {sender}
        verdict.notices = await line_sender.notices(
            services, session, tenant, chat, others, owner=sender, because_of=message.stanza_id
        )
        detail = {"chat_id": chat.chat_id}
        accepted = ConversationEvent(
            Event.CHAT_ACCEPTED, f"{said.id}/accepted", said.operator, said.visitor, detail=detail
        )
        verdict.events.append(accepted)
    verdict.events.append(
        ConversationEvent(said.event, said.id, said.operator, said.visitor, said.body, {"chat_id": chat.chat_id})
    )
    if tenant.history_hours:
        await _remember(services, session, chat, message, sender)
    return verdict


async def operator_came(services: Services, name: AccountName) -> None:
    """An operator came online: chats that nobody has answered are for this one, too."""
    await services.wake(task_names.FORWARD, instance_name=name.instance)


async def history(
    services: Services, instance_name: str, chat_id: str, *, after: int = 0, limit: int = 50
) -> list[ChatLine]:
    """What was said in the chat, as far as it is kept, oldest first.

    Raises:
        NotFoundError: the tenant has no such chat.
    """
    chat = await get(services, instance_name, chat_id)
    async with services.database.read() as session:
        rows = await session.scalars(
            select(ChatLine).where(ChatLine.chat_id == chat.id, ChatLine.id > after).order_by(ChatLine.id).limit(limit)
        )
        return list(rows)


async def purge(services: Services) -> None:
    """Forget what is kept no longer."""
    now = services.clock()
    async with services.database.write() as session:
        tenants = await session.execute(
            select(Tenant.instance_name, Tenant.history_hours).where(
                Tenant.instance_name.in_(select(ChatLine.instance_name).distinct())
            )
        )
        for instance_name, history_hours in tenants.all():
            before = now - max(history_hours * 3600, _KEEP_LINES)
            await session.execute(
                delete(ChatLine).where(
                    ChatLine.instance_name == instance_name,
                    ChatLine.created_at < before,
                    ChatLine.state != LineState.WAITING,
                )
            )
        await session.execute(delete(Chat).where(Chat.state == ChatState.CLOSED, Chat.closed_at < now - _KEEP_CHATS))


async def _refuse_closed(services: Services, tenant: Tenant, chat_id: str) -> None:
    """Before anything is made for it: a number is used once."""
    async with services.database.read() as session:
        chat = await session.scalar(_chat(tenant.instance_name, chat_id))
    if chat is not None and chat.state is ChatState.CLOSED:
        raise ConflictError(f"chat {chat_id} is closed")


async def _account_for(services: Services, tenant: Tenant, new: NewChat) -> AccountName:
    own = AccountName(AccountKind.CHAT, new.chat_id, tenant.instance_name)
    if new.visitor_id is None:
        return own
    visitor = AccountName(AccountKind.VISITOR, new.visitor_id, tenant.instance_name)
    username = services.naming.username(visitor)
    async with services.database.read() as session:
        account = await session.get(Account, username)
        if account is None or account.state is not AccountState.ACTIVE:
            return own
        busy = await session.scalar(_open_chat_of(username))
    return visitor if busy is None or busy.chat_id == new.chat_id else own


async def _insert(services: Services, tenant: Tenant, name: AccountName, new: NewChat) -> tuple[Chat, bool]:
    now = services.clock()
    async with services.database.write() as session:
        await admission.hold(session, tenant.instance_name, AccountKind.CHAT)
        made = await session.scalar(
            services.database.insert(Chat)
            .values(
                instance_name=tenant.instance_name,
                chat_id=new.chat_id,
                username=services.naming.username(name),
                nick=new.nick,
                department=new.department,
                state=ChatState.PENDING,
                created_at=now,
                pending_since=now,
            )
            .on_conflict_do_nothing()
            .returning(Chat.id)
        )
        chat = await session.scalar(_chat(tenant.instance_name, new.chat_id))
        if chat is None:
            # the visitor began another chat at this very moment, and that one has the account
            raise UnavailableError(f"the account of chat {new.chat_id} was taken just now; try again")
        if made is not None and new.body is not None:
            line = line_store.line_values(chat, new.body, f"chat-{chat.id}-{uuid.uuid4().hex}", now)
            session.add(ChatLine(**line))
    return chat, made is not None


def _ident(services: Services, operator: str | None) -> str | None:
    """The operator's username without the instance."""
    return None if operator is None else services.naming.parse_username(operator).ident


def _chat(instance_name: str, chat_id: str) -> Select[Chat]:
    return select(Chat).where(Chat.instance_name == instance_name, Chat.chat_id == chat_id)


def _open_chat_of(username: str) -> Select[Chat]:
    return select(Chat).where(Chat.username == username, Chat.state != ChatState.CLOSED)


async def _lock_open(session: AsyncSession, instance_name: str, chat_id: str) -> Chat:
    chat = await session.scalar(_chat(instance_name, chat_id).with_for_update())
    if chat is None:
        raise NotFoundError(f"tenant '{instance_name}' has no chat {chat_id}")
    if chat.state is ChatState.CLOSED:
        raise ConflictError(f"chat {chat_id} is closed")
    return chat


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
    services: Services, session: AsyncSession, chat: Chat, message: OperatorMessage, sender: str
) -> None:
    """Keep what the operator wrote for the chat's history."""
    await session.execute(
        services.database.insert(ChatLine)
        .values(
            instance_name=chat.instance_name,
            chat_id=chat.id,
            message_id=message.stanza_id,
            sender=sender,
            body=message.body,
            state=LineState.SENT,
            sent_to=[],
            created_at=services.clock(),
        )
        .on_conflict_do_nothing(index_elements=["instance_name", "message_id"])
    )
