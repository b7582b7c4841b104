"""What the database knows of chats and their lines: the statements behind `chat_lines` and `line_sender`."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.store.database import Database
from tenants.store.models import (
    Account,
    Chat,
    ChatLine,
    ChatState,
    LineState,
    Operator,
    OperatorPresence,
    VisitorSession,
)

_SWEEP_LIMIT = 200
_SWEEP_AGE = 2.0
"""Seconds that a line is left to whoever wrote it, who is about to forward it."""
_LONGEST_CHAT = 500
"""Lines of a chat that are sent at once, and that an operator who comes is shown of a chat without an owner."""

Key = tuple[str, str]
"""A tenant's name, and the number of one of its chats."""
LineKey = tuple[int, str]
"""The key of a chat's row, and the id of one of its messages."""


async def lock_numbered(session: AsyncSession, keys: Collection[Key]) -> dict[Key, Chat]:
    """Lock the chats of these tenants and numbers, always in the same order."""
    chats = await session.scalars(
        select(Chat)
        .where(tuple_(Chat.instance_name, Chat.chat_id).in_(keys))
        .order_by(Chat.username, Chat.id)
        .with_for_update()
    )
    return {(chat.instance_name, chat.chat_id): chat for chat in chats}


async def lock_chats(session: AsyncSession, chat_keys: Sequence[int]) -> dict[int, Chat]:
    """`lock_numbered`, by the ids of their rows."""
    chats = await session.scalars(
        select(Chat).where(Chat.id.in_(chat_keys)).order_by(Chat.username, Chat.id).with_for_update()
    )
    return {chat.id: chat for chat in chats}


async def lock_lines(session: AsyncSession, line_ids: Sequence[int]) -> dict[int, ChatLine]:
    """Lock the lines, always in the same order."""
    lines = await session.scalars(
        select(ChatLine).where(ChatLine.id.in_(line_ids)).order_by(ChatLine.id).with_for_update()
    )
    return {line.id: line for line in lines}


async def find_lines(session: AsyncSession, keys: Collection[LineKey]) -> dict[LineKey, ChatLine]:
    """Those of these lines that are kept already."""
    lines = await session.scalars(select(ChatLine).where(tuple_(ChatLine.chat_id, ChatLine.message_id).in_(keys)))
    return {(line.chat_id, line.message_id): line for line in lines}


async def keep(database: Database, session: AsyncSession, rows: Iterable[Mapping[str, Any]]) -> dict[LineKey, ChatLine]:
    """Keep these lines (`line_values`). Returns those that were not kept yet."""
    values = list(rows)
    if not values:
        return {}
    lines = await session.scalars(database.insert(ChatLine).on_conflict_do_nothing().returning(ChatLine), values)
    return {(line.chat_id, line.message_id): line for line in lines}


def line_values(chat: Chat, body: str, message_id: str, now: float) -> dict[str, Any]:
    """The row of a line of the chat's visitor, to be sent."""
    return {
        "instance_name": chat.instance_name,
        "chat_id": chat.id,
        "message_id": message_id,
        "sender": chat.username,
        "body": body,
        "state": LineState.WAITING,
        "sent_to": [],
        "created_at": now,
    }


async def owners_online(session: AsyncSession, owners: Collection[str]) -> dict[str, bool]:
    """Whether these operators are online; one without an account is not among them."""
    rows = await session.execute(
        select(Account.username, OperatorPresence.online)
        .outerjoin(OperatorPresence, OperatorPresence.username == Account.username)
        .where(Account.username.in_(owners))
    )
    return {username: bool(online) for username, online in rows}


async def online_until(session: AsyncSession, usernames: Collection[str]) -> dict[str, float]:
    """Until when (Unix seconds) these visitors are online; those that are not are absent."""
    rows = await session.execute(
        select(VisitorSession.username, VisitorSession.online_until).where(VisitorSession.username.in_(usernames))
    )
    return {username: end for username, end in rows}  # noqa: C416 - rows are no tuples to mypy


async def to_be_sent(session: AsyncSession, chat_keys: Sequence[int]) -> dict[int, list[ChatLine]]:
    """The lines that wait in these chats, oldest first, by the chats' ids.

    Of a chat that nobody has, also those that were sent since then: for operators who came later.
    """
    found: defaultdict[int, list[ChatLine]] = defaultdict(list)
    offered = and_(Chat.owner.is_(None), ChatLine.sender == Chat.username, ChatLine.created_at >= Chat.pending_since)
    lines = await session.scalars(
        select(ChatLine)
        .join(Chat, Chat.id == ChatLine.chat_id)
        .where(
            ChatLine.chat_id.in_(chat_keys),
            ChatLine.body.is_not(None),
            or_(ChatLine.state == LineState.WAITING, offered),
        )
        .order_by(ChatLine.id)
        .limit(_LONGEST_CHAT * len(chat_keys))
    )
    for line in lines:
        if len(found[line.chat_id]) < _LONGEST_CHAT:
            found[line.chat_id].append(line)
    return found


async def audiences(session: AsyncSession, chats: Sequence[Chat]) -> dict[int, list[str]]:
    """The operators online who may take each of these chats, in the order of their names, by the chats' ids."""
    if not chats:
        return {}
    rows = await session.execute(
        select(OperatorPresence.instance_name, OperatorPresence.username, Operator.departments)
        .outerjoin(Operator, Operator.username == OperatorPresence.username)
        .where(
            OperatorPresence.instance_name.in_({chat.instance_name for chat in chats}),
            OperatorPresence.online,
            or_(Operator.username.is_(None), Operator.receives_new_chats),
        )
        .order_by(OperatorPresence.username)
    )
    online = rows.all()
    return {
        chat.id: [
            username
            for instance_name, username, departments in online
            if instance_name == chat.instance_name
            and (departments is None or chat.department is None or chat.department in departments)
        ]
        for chat in chats
    }


async def pending_chats(session: AsyncSession, instance_name: str) -> list[int]:
    """The tenant's chats without an owner, oldest first."""
    keys = select(Chat.id).where(Chat.instance_name == instance_name, Chat.state == ChatState.PENDING)
    return list(await session.scalars(keys.order_by(Chat.id)))


async def chats_that_wait(session: AsyncSession, now: float) -> list[int]:
    """Open chats in which a line waits for longer than its writer needs to forward it; some of them, if many."""
    keys = (
        select(ChatLine.chat_id)
        .join(Chat, Chat.id == ChatLine.chat_id)
        .where(
            ChatLine.state == LineState.WAITING,
            ChatLine.created_at < now - _SWEEP_AGE,
            Chat.state != ChatState.CLOSED,
        )
        .group_by(ChatLine.chat_id)
        .order_by(ChatLine.chat_id)
        .limit(_SWEEP_LIMIT)
    )
    return list(await session.scalars(keys))
