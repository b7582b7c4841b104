"""The rules of a chat: whom a visitor's message goes to, whose chat it is, and what an operator's message means.

They hold for tenants whose `routing` is `orchestrator`. A chat belongs to nobody until an operator answers it: the
first one owns it, under the lock of its row, and the others are told. Lines of visitors are rows first and commands
second; what could not be sent yet is found by a sweep, and a line that is sent twice is shown once (`<once/>`).
"""

import hashlib
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import ColumnElement, Select, and_, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants import accounts, admission, events, visitors
from tenants.commands import SendMessage, ShowTyping
from tenants.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from tenants.events import Event, Happening
from tenants.models import (
    Account,
    AccountState,
    Chat,
    ChatLine,
    ChatState,
    LineState,
    Operator,
    OperatorPresence,
    OwnerOffline,
    Tenant,
)
from tenants.naming import AccountKind, AccountName
from tenants.services import Services

if TYPE_CHECKING:
    from tenants.callbacks import OperatorMessage

log = structlog.get_logger(__name__)

MAX_BODY = 65_536
"""Bytes of a message in UTF-8."""
ASSISTANT = "[[System Assistant]]"
_KEEP_LINES = 24 * 3600.0
"""How long a line without its body waits for receipts."""
_KEEP_CHATS = 30 * 24 * 3600.0
"""How long a closed chat can be looked up."""
_TYPING_SECONDS = 10.0
"""How long it is worth telling that somebody types."""
_SWEEP_LIMIT = 200
_SWEEP_AGE = 2.0
"""How long a line is left to whoever wrote it."""
_LONGEST_CHAT = 500
"""Lines of a chat without an owner that an operator who comes is shown."""


@dataclass(frozen=True, slots=True)
class NewChat:
    """A chat as its tenant announces it. `visitor_id`: None when nobody known; `body`: the first message, if any."""

    chat_id: str
    visitor_id: str | None
    nick: str
    department: str | None
    body: str | None
    status: str = visitors.DEFAULT_STATUS


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
        new = replace(new, body=check_body(new.body))
    await _refuse_closed(services, tenant, new.chat_id)
    name = await _account_for(services, tenant, new)
    await accounts.ensure(services, tenant, name, new.nick)
    chat, is_new = await _insert(services, tenant, name, new)
    speaker = services.naming.parse_username(chat.username)
    await visitors.show(services, tenant, speaker, chat.nick, new.status)
    await forward(services, chat.id)
    return chat, is_new


async def write(services: Services, tenant: Tenant, chat_id: str, body: str, message_id: str | None = None) -> ChatLine:
    """The visitor writes in the chat. Who gives a `message_id` may repeat the call.

    Raises:
        NotFoundError: there is no such chat.
        ConflictError: it is closed, or the tenant is shut.
        InvalidInputError: the message is empty or too long.
    """
    body = check_body(body)
    async with services.database.write() as session:
        await admission.hold(session, tenant.instance_name, AccountKind.CHAT)
        chat = await _lock_open(session, tenant.instance_name, chat_id)
        line = _line(services, chat, body, message_id or uuid.uuid4().hex)
        known = await session.scalar(_line_of(tenant.instance_name, line.message_id))
        if known is not None and known.chat_id != chat.id:
            raise ConflictError("this message id was used in another chat")
        if known is None:
            await _release_if_left(session, services, tenant, chat)
            session.add(line)
            await session.flush()
        kept = known or line
    # the line is kept, so it matters little when that cannot be told now
    with suppress(UnavailableError):
        await visitors.keep_online(services, tenant, services.naming.parse_username(chat.username), chat.nick)
    await forward(services, chat.id)
    async with services.database.read() as session:
        return await session.get(ChatLine, kept.id) or kept


async def forward(services: Services, chat_key: int) -> None:
    """Send what waits in the chat to whom it is for, and what a chat without an owner holds to operators who came.

    What cannot be sent now is left to the sweep. May be repeated at will.
    """
    async with services.database.read() as session:
        chat = await session.get(Chat, chat_key)
        if chat is None or chat.state is ChatState.CLOSED:
            return
        tenant = await session.get(Tenant, chat.instance_name)
        if tenant is None or admission.refusal(tenant):
            return
        targets = [chat.owner] if chat.owner else await _audience(session, chat)
        lines = list(
            await session.scalars(select(ChatLine).where(_to_be_sent(chat)).order_by(ChatLine.id).limit(_LONGEST_CHAT))
        )
    missing = {line.id: [one for one in targets if one not in line.sent_to] for line in lines}
    commands = [_message(chat, line, operator) for line in lines for operator in missing[line.id]]
    if not commands:
        return
    try:
        await services.commands.publish(*commands)
    except UnavailableError as error:
        log.warning("lines wait", instance_name=chat.instance_name, count=len(commands), error=str(error))
        return
    late: list[SendMessage] = []
    async with services.database.write() as session:
        current = await session.get(Chat, chat_key, with_for_update=True)
        if current is None:
            return
        for line in lines:
            if missing[line.id]:
                await _note_sent(session, tenant, current, line, missing[line.id])
        if chat.owner is None and current.owner is not None and current.accepted_by:
            # somebody took it while it was being offered
            late = await _notices(services, session, current, {*targets} - {current.owner}, current.accepted_by)
    if late:
        await services.commands.publish(*late)


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
        happening = Happening(
            event,
            event_id,
            operator,
            services.naming.parse_username(chat.username),
            detail={"chat_id": chat.chat_id, "previous_owner": _ident(services, previous)},
        )
        woken = await events.note(services, session, [happening] if events.is_told(tenant, event) else [])
        notices = await _notices(services, session, chat, others, event_id)
    await services.commands.publish(*notices)
    for instance_name in woken:
        await services.wake(task_names.DELIVER, instance_name=instance_name)
    await forward(services, chat.id)
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
        operators = [chat.owner] if chat.owner else await _audience(session, chat)
    await services.commands.publish(
        *(
            ShowTyping(
                instance_name=chat.instance_name,
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
    await visitors.show(services, tenant, services.naming.parse_username(chat.username), nick, status)
    return chat


async def lock(session: AsyncSession, usernames: Iterable[str]) -> None:
    """Lock the open chats of these accounts, always in the same order, so that two who do it never wait in a ring."""
    wanted = select(Chat.id).where(Chat.username.in_(list(usernames)), Chat.state != ChatState.CLOSED)
    await session.execute(wanted.order_by(Chat.username).with_for_update())


@dataclass(slots=True)
class Verdict:
    """What an operator's message means.

    Attributes:
        happenings: what the tenant is told, in this order; nothing when the message is not sent on.
        notices: what operators are told.
    """

    happenings: list[Happening] = field(default_factory=list)
    notices: list[SendMessage] = field(default_factory=list)


async def judge(services: Services, session: AsyncSession, tenant: Tenant, message: "OperatorMessage") -> Verdict:
    """What an operator's message to a visitor means, in the transaction that keeps it. A repeat means the same."""
    said = Happening(Event.MESSAGE_CREATED, message.stanza_id, message.sender, message.receiver, message.body)
    sender = services.naming.username(message.sender)
    chat = await session.scalar(_open_chat_of(services.naming.username(message.receiver)).with_for_update())
    if chat is None:
        return Verdict([Happening(Event.INVITATION_CREATED, said.id, said.operator, said.visitor, said.body)])
    if chat.owner is not None and chat.owner != sender:
        return Verdict(notices=await _notices(services, session, chat, [sender], message.stanza_id))
    verdict = Verdict()
    if chat.owner is None:
        await _own(session, tenant, chat, sender, services.clock(), accepted_by=message.stanza_id)
    if chat.accepted_by == message.stanza_id:
        # also when it comes again: whoever took it first may have died before the others were told
        others = await _told(session, chat) - {sender}
        verdict.notices = await _notices(services, session, chat, others, message.stanza_id)
        detail = {"chat_id": chat.chat_id}
        accepted = Happening(Event.CHAT_ACCEPTED, f"{said.id}/accepted", said.operator, said.visitor, detail=detail)
        verdict.happenings.append(accepted)
    verdict.happenings.append(
        Happening(said.event, said.id, said.operator, said.visitor, said.body, {"chat_id": chat.chat_id})
    )
    if tenant.history_hours:
        await _remember(services, session, chat, message, sender)
    return verdict


async def operator_came(services: Services, name: AccountName) -> None:
    """An operator came online: chats that nobody has answered are for this one, too."""
    await services.wake(task_names.FORWARD, instance_name=name.instance)


async def forward_pending(services: Services, instance_name: str) -> None:
    """Forward the tenant's chats without an owner."""
    async with services.database.read() as session:
        keys = list(
            await session.scalars(
                select(Chat.id)
                .where(Chat.instance_name == instance_name, Chat.state == ChatState.PENDING)
                .order_by(Chat.id)
            )
        )
    for key in keys:
        await forward(services, key)


async def sweep(services: Services) -> None:
    """Forward what waits: for an operator, or since the broker did not take it.

    Not what was written just now: who wrote it is about to forward it.
    """
    async with services.database.read() as session:
        keys = list(
            await session.scalars(
                select(ChatLine.chat_id)
                .join(Chat, Chat.id == ChatLine.chat_id)
                .where(
                    ChatLine.state == LineState.WAITING,
                    ChatLine.created_at < services.clock() - _SWEEP_AGE,
                    Chat.state != ChatState.CLOSED,
                )
                .group_by(ChatLine.chat_id)
                .order_by(ChatLine.chat_id)
                .limit(_SWEEP_LIMIT)
            )
        )
    for key in keys:
        await forward(services, key)


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


def check_body(body: str, field_name: str = "message") -> str:
    """Return a message as it can be sent.

    Raises:
        InvalidInputError: it is empty or too long, or holds what XML forbids.
    """
    body = visitors.check_text(body, field_name)
    if not body:
        raise InvalidInputError(field_name, "must not be empty")
    if len(body.encode(errors="replace")) > MAX_BODY:
        raise InvalidInputError(field_name, f"must be of {MAX_BODY} bytes at most")
    return body


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
            session.add(_line(services, chat, new.body, f"chat-{chat.id}-{uuid.uuid4().hex}"))
    return chat, made is not None


def _line(services: Services, chat: Chat, body: str, message_id: str) -> ChatLine:
    return ChatLine(
        instance_name=chat.instance_name,
        chat_id=chat.id,
        message_id=message_id,
        sender=chat.username,
        body=body,
        state=LineState.WAITING,
        sent_to=[],
        created_at=services.clock(),
    )


def _ident(services: Services, operator: str | None) -> str | None:
    """The operator's username without the instance."""
    return None if operator is None else services.naming.parse_username(operator).ident


def _chat(instance_name: str, chat_id: str) -> Select[Chat]:
    return select(Chat).where(Chat.instance_name == instance_name, Chat.chat_id == chat_id)


def _line_of(instance_name: str, message_id: str) -> Select[ChatLine]:
    return select(ChatLine).where(ChatLine.instance_name == instance_name, ChatLine.message_id == message_id)


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


async def _release_if_left(session: AsyncSession, services: Services, tenant: Tenant, chat: Chat) -> None:
    """Give the chat back to its department when its owner is gone, or is offline and the tenant wants that."""
    if chat.owner is None:
        return
    account = await session.get(Account, chat.owner)
    presence = await session.get(OperatorPresence, chat.owner)
    is_online = presence is not None and presence.online
    if account is None or (tenant.owner_offline is OwnerOffline.RELEASE and not is_online):
        chat.owner, chat.accepted_by, chat.state = None, None, ChatState.PENDING
        chat.pending_since = services.clock()


async def _audience(session: AsyncSession, chat: Chat) -> list[str]:
    """The operators online who may take the chat."""
    rows = await session.execute(
        select(OperatorPresence.username, Operator.departments)
        .outerjoin(Operator, Operator.username == OperatorPresence.username)
        .where(
            OperatorPresence.instance_name == chat.instance_name,
            OperatorPresence.online,
            or_(Operator.username.is_(None), Operator.receives_new_chats),
        )
        .order_by(OperatorPresence.username)
    )
    return [
        username
        for username, departments in rows
        if departments is None or chat.department is None or chat.department in departments
    ]


def _to_be_sent(chat: Chat) -> ColumnElement[bool]:
    """Lines that wait; and, while nobody has the chat, all since then, for operators who come later."""
    waits = ChatLine.state == LineState.WAITING
    if chat.owner is None:
        waits = or_(waits, and_(ChatLine.sender == chat.username, ChatLine.created_at >= chat.pending_since))
    return and_(ChatLine.chat_id == chat.id, waits, ChatLine.body.is_not(None))


def _message(chat: Chat, line: ChatLine, operator: str) -> SendMessage:
    return SendMessage(
        instance_name=chat.instance_name,
        username=chat.username,
        operator=operator,
        body=line.body or "",
        message_id=stanza_id(line.message_id, operator),
    )


def stanza_id(message_id: str, operator: str) -> str:
    """The id that a message bears to that operator: a sender's stanzas must differ, and receipts lead back to it."""
    return f"{message_id}.{hashlib.blake2b(operator.encode(), digest_size=4).hexdigest()}"


async def _note_sent(session: AsyncSession, tenant: Tenant, chat: Chat, line: ChatLine, operators: list[str]) -> None:
    current = await session.get(ChatLine, line.id, with_for_update=True)
    if current is None:
        return
    current.sent_to = sorted({*current.sent_to, *operators})
    if chat.owner is not None and chat.owner not in current.sent_to:
        return  # whose chat it is by now was not sent it yet
    if current.state is LineState.WAITING:
        current.state = LineState.SENT
    if chat.owner is not None and not tenant.history_hours:
        current.body = None


async def _told(session: AsyncSession, chat: Chat) -> set[str]:
    """The operators whom the chat was offered to since it was last without an owner; those who know of it."""
    rows = await session.scalars(
        select(ChatLine.sent_to).where(ChatLine.chat_id == chat.id, ChatLine.created_at >= chat.pending_since)
    )
    return {username for sent_to in rows for username in sent_to}


async def _notices(
    services: Services, session: AsyncSession, chat: Chat, operators: Iterable[str], because_of: str
) -> list[SendMessage]:
    """Tell operators that another has the chat. `because_of`: an id, so that a repeat is shown once."""
    assert chat.owner is not None  # noqa: S101 - asked of owned chats alone
    owner = await session.get(Operator, chat.owner)
    name = (owner.nick if owner else None) or services.naming.parse_username(chat.owner).ident
    digest = hashlib.blake2b(because_of.encode(), digest_size=16).hexdigest()
    return [
        SendMessage(
            instance_name=chat.instance_name,
            username=chat.username,
            operator=operator,
            body=f"{ASSISTANT} Chat was already accepted by {name}",
            message_id=stanza_id(f"notice-{digest}", operator),
        )
        for operator in sorted(operators)
    ]


async def _remember(
    services: Services, session: AsyncSession, chat: Chat, message: "OperatorMessage", sender: str
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
