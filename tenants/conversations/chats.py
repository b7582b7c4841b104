"""A chat from its beginning to its end, and what is kept of it; for tenants whose `routing` is `orchestrator`.

Whose it is: `ownership`. What its visitor writes: `chat_lines`.
"""

import hashlib
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Select, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from config import task_names
from tenants.accounts import accounts, removal
from tenants.conversations import chat_lines, line_sender, line_store
from tenants.core.errors import ConflictError, NotFoundError, UnavailableError
from tenants.core.naming import AccountKind, AccountName
from tenants.lifecycle import admission
from tenants.process.delivery_waker import Wake
from tenants.process.services import Services
from tenants.shards.commands import ShowTyping
from tenants.store.database import Database
from tenants.store.models import Account, AccountState, Chat, ChatLine, ChatState, LineState, Tenant
from tenants.visitors import presence
from tenants.visitors.page_view_request import DEFAULT_STATUS

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
    status: str = DEFAULT_STATUS


async def get(database: Database, instance_name: str, chat_id: str) -> Chat:
    """The chat.

    Raises:
        NotFoundError: the tenant has no such chat.
    """
    async with database.read() as session:
        found = await session.scalar(_chat(instance_name, chat_id))
    if found is None:
        raise NotFoundError(f"tenant '{instance_name}' has no chat {chat_id}")
    return found


async def find(
    database: Database, instance_name: str, *, state: ChatState | None = None, after: int = 0, limit: int = 50
) -> list[Chat]:
    """The tenant's chats, oldest first, from the row `after` on."""
    query = select(Chat).where(Chat.instance_name == instance_name, Chat.id > after).order_by(Chat.id).limit(limit)
    if state is not None:
        query = query.where(Chat.state == state)
    async with database.read() as session:
        return list(await session.scalars(query))


async def start(services: Services, instance_name: str, new: NewChat) -> tuple[Chat, bool]:
    """Begin a chat, or find the one of that number. Returns it, and whether it is new.

    It is spoken from the visitor's account when there is one without a chat, else from an account made for it.

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is shut, or routes its chats itself; or the chat of that number is closed.
        InvalidInputError: an id breaks a rule, or the message does.
        QueueUnavailableError: the visitor cannot be shown now; the chat is kept, and its message goes later.
    """
    tenant = await admission.get_routed(services, instance_name)
    if new.body is not None:
        new = replace(new, body=chat_lines.check_body(new.body))
    await _refuse_closed(services.database, tenant, new.chat_id)
    name = await _account_for(services, tenant, new)
    await accounts.ensure(services, tenant, name, new.nick)
    chat, is_new = await _insert(services, tenant, name, new)
    speaker = services.naming.parse_username(chat.username)
    await presence.show(services, tenant, speaker, chat.nick, new.status)
    await line_sender.forward(services, chat.id)
    return chat, is_new


async def show_typing(services: Services, instance_name: str, chat_id: str, *, composing: bool) -> None:
    """The visitor began to write, or ceased to: its owner sees it, or all who may take the chat.

    Raises:
        NotFoundError: there is no such tenant or chat.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
    """
    tenant = await admission.get_routed(services, instance_name)
    chat = await get(services.database, instance_name, chat_id)
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


async def close(services: Services, instance_name: str, chat_id: str) -> Chat:
    """End the chat: an account that was made for it goes; a visitor's stays online as long as its page view lasts.

    One that is closed already stays so.

    Raises:
        NotFoundError: there is no such tenant or chat.
        ConflictError: the tenant is shut, or routes its chats itself.
    """
    await admission.get_routed(services, instance_name)
    async with services.database.write() as session:
        chat = await session.scalar(_chat(instance_name, chat_id).with_for_update())
        if chat is None:
            raise NotFoundError(f"tenant '{instance_name}' has no chat {chat_id}")
        if chat.state is not ChatState.CLOSED:
            chat.state, chat.closed_at = ChatState.CLOSED, services.clock()
    name = services.naming.parse_username(chat.username)
    if name.kind is AccountKind.CHAT:
        await removal.remove(services, name)
    return chat


async def rename(services: Services, instance_name: str, chat_id: str, nick: str, status: str | None) -> Chat:
    """Another nick of the visitor, or another status; the window of being online begins anew.

    Raises:
        NotFoundError: there is no such tenant or chat.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
    """
    tenant = await admission.get_routed(services, instance_name)
    async with services.database.write() as session:
        chat = await lock_open(session, instance_name, chat_id)
        chat.nick = nick
    await presence.show(services, tenant, services.naming.parse_username(chat.username), nick, status)
    return chat


async def operator_came(wake: Wake, name: AccountName) -> None:
    """An operator came online: chats that nobody has answered are for this one, too."""
    await wake(task_names.FORWARD, instance_name=name.instance)


async def history(
    database: Database, instance_name: str, chat_id: str, *, after: int = 0, limit: int = 50
) -> list[ChatLine]:
    """What was said in the chat, as far as it is kept, oldest first.

    Raises:
        NotFoundError: the tenant has no such chat.
    """
    chat = await get(database, instance_name, chat_id)
    async with database.read() as session:
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


async def _refuse_closed(database: Database, tenant: Tenant, chat_id: str) -> None:
    """Before anything is made for it: a number is used once."""
    async with database.read() as session:
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
        if new.body is not None:
            # a repeat says the same; another first message is one more, also of a product that counts its chats anew
            message_id = f"first-{hashlib.blake2b(new.body.encode(), digest_size=16).hexdigest()}"
            line = line_store.line_values(chat, new.body, message_id, now)
            await line_store.keep(services.database, session, [line])
    return chat, made is not None


def _chat(instance_name: str, chat_id: str) -> Select[Chat]:
    return select(Chat).where(Chat.instance_name == instance_name, Chat.chat_id == chat_id)


def _open_chat_of(username: str) -> Select[Chat]:
    return select(Chat).where(Chat.username == username, Chat.state != ChatState.CLOSED)


async def lock_open(session: AsyncSession, instance_name: str, chat_id: str) -> Chat:
    """The chat of that number, locked.

    Raises:
        NotFoundError: there is no such chat.
        ConflictError: it is closed.
    """
    chat = await session.scalar(_chat(instance_name, chat_id).with_for_update())
    if chat is None:
        raise NotFoundError(f"tenant '{instance_name}' has no chat {chat_id}")
    if chat.state is ChatState.CLOSED:
        raise ConflictError(f"chat {chat_id} is closed")
    return chat
