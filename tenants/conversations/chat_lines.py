"""What visitors write in their chats: kept first, then sent to whom it is for.

A line is a row first and a command second. What could not be sent yet is found by a sweep, and a line that is sent
twice is shown once (`<once/>`). Lines that are written at the same time are kept, sent and noted as sent all together.
"""

import asyncio
import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.errors import ConflictError, DomainError, InvalidInputError, NotFoundError, UnavailableError
from tenants.core.naming import AccountKind
from tenants.core.text import check_text
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.store.models import (
    Account,
    Chat,
    ChatLine,
    ChatState,
    LineState,
    Operator,
    OperatorPresence,
    OwnerOffline,
    Tenant,
    VisitorSession,
)
from tenants.visitors import presence

log = structlog.get_logger(__name__)

MAX_BODY = 65_536
"""Bytes of a message in UTF-8."""
ASSISTANT = "[[System Assistant]]"
_SWEEP_LIMIT = 200
_SWEEP_AGE = 2.0
"""How long a line is left to whoever wrote it."""
_LONGEST_CHAT = 500
"""Lines of a chat without an owner that an operator who comes is shown."""


def check_body(body: str, field_name: str = "message") -> str:
    """Return a message as it can be sent.

    Raises:
        InvalidInputError: it is empty or too long, or holds what XML forbids.
    """
    body = check_text(body, field_name)
    if not body:
        raise InvalidInputError(field_name, "must not be empty")
    if len(body.encode(errors="replace")) > MAX_BODY:
        raise InvalidInputError(field_name, f"must be of {MAX_BODY} bytes at most")
    return body


async def write(services: Services, tenant: Tenant, chat_id: str, body: str, message_id: str | None = None) -> ChatLine:
    """The visitor writes in the chat. Who gives a `message_id` may repeat the call.

    Raises:
        NotFoundError: there is no such chat.
        ConflictError: it is closed, or the tenant is shut.
        InvalidInputError: the message is empty or too long.
    """
    writing = _Writing(tenant.instance_name, chat_id, check_body(body), message_id or uuid.uuid4().hex)
    written = await services.together(_write_all, writing)
    chat = written.chat
    if written.online_until < services.clock() + tenant.online_seconds / 2:
        # Who writes is online. The line is kept, so it matters little when that cannot be told now.
        with suppress(UnavailableError):
            await presence.show(services, tenant, services.naming.parse_username(chat.username), chat.nick, None)
    if chat.owner is not None:
        return written.line
    await forward(services, chat.id)
    async with services.database.read() as session:
        return await session.get(ChatLine, written.line.id) or written.line


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
        targets = [chat.owner] if chat.owner else await audience(session, chat)
        lines = await session.scalars(
            select(ChatLine).where(_to_be_sent(chat)).order_by(ChatLine.id).limit(_LONGEST_CHAT)
        )
        sending = _sending(tenant, chat, targets, lines)
    if sending.commands:
        await _send_all(services, [sending])


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


def line_values(services: Services, chat: Chat, body: str, message_id: str) -> dict[str, Any]:
    """The row of a line of the chat's visitor, to be sent."""
    return {
        "instance_name": chat.instance_name,
        "chat_id": chat.id,
        "message_id": message_id,
        "sender": chat.username,
        "body": body,
        "state": LineState.WAITING,
        "sent_to": [],
        "created_at": services.clock(),
    }


def stanza_id(message_id: str, operator: str) -> str:
    """The id that a message bears to that operator: a sender's stanzas must differ, and receipts lead back to it."""
    return f"{message_id}.{hashlib.blake2b(operator.encode(), digest_size=4).hexdigest()}"


async def audience(session: AsyncSession, chat: Chat) -> list[str]:
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


async def notices(
    services: Services,
    session: AsyncSession,
    tenant: Tenant,
    chat: Chat,
    operators: Iterable[str],
    *,
    because_of: str,
) -> list[SendMessage]:
    """Tell operators that another has the chat. `because_of`: an id, so that a repeat is shown once."""
    assert chat.owner is not None  # noqa: S101 - asked of owned chats alone
    owner = await session.get(Operator, chat.owner)
    name = (owner.nick if owner else None) or services.naming.parse_username(chat.owner).ident
    digest = hashlib.blake2b(because_of.encode(), digest_size=16).hexdigest()
    return [
        SendMessage(
            instance_name=chat.instance_name,
            incarnation=tenant.incarnation,
            username=chat.username,
            operator=operator,
            body=f"{ASSISTANT} Chat was already accepted by {name}",
            message_id=stanza_id(f"notice-{digest}", operator),
        )
        for operator in sorted(operators)
    ]


# Keeping.


@dataclass(frozen=True, slots=True)
class _Writing:
    """A message to be kept."""

    instance_name: str
    chat_id: str
    body: str
    message_id: str


@dataclass(frozen=True, slots=True)
class _Written:
    """A line that is kept, its chat, and until when the visitor is online (Unix seconds, 0 if not)."""

    line: ChatLine
    chat: Chat
    online_until: float


@dataclass(frozen=True, slots=True)
class _Found:
    """What a batch of messages is judged by.

    Attributes:
        chats: by tenant and number; locked.
        lines: that are kept already, by tenant and message id.
        owners: whose account is there, and whether they are online.
    """

    tenants: Mapping[str, Tenant]
    chats: Mapping[tuple[str, str], Chat]
    lines: dict[tuple[str, str], ChatLine]
    owners: Mapping[str, bool]


async def _write_all(services: Services, writings: Sequence[_Writing]) -> list[_Written | Exception]:
    """Keep messages of any tenants; and send what waits in those of their chats that have an owner."""
    async with services.database.write() as session:
        found = await _find(session, writings)
        results: list[Chat | Exception] = [_judge(services, found, one) for one in writings]
        found.lines.update(await _insert(services, session, found, writings, results))
        chats = {one.id: one for one in results if isinstance(one, Chat)}
        owned = [chat for chat in chats.values() if chat.owner]
        await session.flush()
        waiting = await _waiting(session, [chat.id for chat in owned])
        ends = await _ends(session, [chat.username for chat in chats.values()])
    sendings = [_sending(found.tenants[one.instance_name], one, [one.owner or ""], waiting[one.id]) for one in owned]
    noted = await _send_all(services, [one for one in sendings if one.commands])
    return [_written(found, one, result, ends, noted) for one, result in zip(writings, results, strict=True)]


async def _find(session: AsyncSession, writings: Sequence[_Writing]) -> _Found:
    tenants, _ = await admission.hold_many(session, {one.instance_name for one in writings})
    chats = await session.scalars(
        select(Chat)
        .where(tuple_(Chat.instance_name, Chat.chat_id).in_({(one.instance_name, one.chat_id) for one in writings}))
        .order_by(Chat.username, Chat.id)
        .with_for_update()
    )
    by_number = {(chat.instance_name, chat.chat_id): chat for chat in chats}
    lines = await session.scalars(
        select(ChatLine).where(
            tuple_(ChatLine.instance_name, ChatLine.message_id).in_(
                {(one.instance_name, one.message_id) for one in writings}
            )
        )
    )
    owners = await session.execute(
        select(Account.username, OperatorPresence.online)
        .outerjoin(OperatorPresence, OperatorPresence.username == Account.username)
        .where(Account.username.in_({chat.owner for chat in by_number.values() if chat.owner}))
    )
    return _Found(
        tenants,
        by_number,
        {(line.instance_name, line.message_id): line for line in lines},
        {username: bool(online) for username, online in owners},
    )


def _judge(services: Services, found: _Found, writing: _Writing) -> Chat | Exception:
    """The chat that the message is for, or why it is not kept."""
    try:
        tenant = admission.check(found.tenants.get(writing.instance_name), writing.instance_name, AccountKind.CHAT)
    except DomainError as error:
        return error
    chat = found.chats.get((writing.instance_name, writing.chat_id))
    if chat is None:
        return NotFoundError(f"tenant '{writing.instance_name}' has no chat {writing.chat_id}")
    if chat.state is ChatState.CLOSED:
        return ConflictError(f"chat {writing.chat_id} is closed")
    if (writing.instance_name, writing.message_id) not in found.lines:
        _release_if_left(services, tenant, chat, found.owners)
    return chat


def _release_if_left(services: Services, tenant: Tenant, chat: Chat, owners: Mapping[str, bool]) -> None:
    """Give the chat back to its department when its owner is gone, or is offline and the tenant wants that."""
    if chat.owner is None:
        return
    is_gone = chat.owner not in owners
    if is_gone or (tenant.owner_offline is OwnerOffline.RELEASE and not owners[chat.owner]):
        chat.owner, chat.accepted_by, chat.state = None, None, ChatState.PENDING
        chat.pending_since = services.clock()


async def _insert(
    services: Services,
    session: AsyncSession,
    found: _Found,
    writings: Sequence[_Writing],
    results: Sequence[Chat | Exception],
) -> dict[tuple[str, str], ChatLine]:
    """Keep those that are to be kept, and are not yet."""
    new: dict[tuple[str, str], dict[str, Any]] = {}
    for one, chat in zip(writings, results, strict=True):
        key = (one.instance_name, one.message_id)
        if isinstance(chat, Chat) and key not in found.lines and key not in new:
            new[key] = line_values(services, chat, one.body, one.message_id)
    if not new:
        return {}
    insert = services.database.insert(ChatLine).on_conflict_do_nothing().returning(ChatLine)
    lines = await session.scalars(insert, list(new.values()))
    return {(line.instance_name, line.message_id): line for line in lines}


async def _waiting(session: AsyncSession, chat_keys: Sequence[int]) -> dict[int, list[ChatLine]]:
    """What waits in these chats, oldest first."""
    waiting: defaultdict[int, list[ChatLine]] = defaultdict(list)
    lines = await session.scalars(
        select(ChatLine)
        .where(ChatLine.chat_id.in_(chat_keys), ChatLine.state == LineState.WAITING, ChatLine.body.is_not(None))
        .order_by(ChatLine.id)
    )
    for line in lines:
        waiting[line.chat_id].append(line)
    return waiting


async def _ends(session: AsyncSession, usernames: Sequence[str]) -> dict[str, float]:
    """Until when these visitors are online."""
    rows = await session.execute(
        select(VisitorSession.username, VisitorSession.online_until).where(VisitorSession.username.in_(usernames))
    )
    return {username: end for username, end in rows}  # noqa: C416 - rows are no tuples to mypy


def _written(
    found: _Found,
    writing: _Writing,
    chat: Chat | Exception,
    ends: Mapping[str, float],
    noted: Mapping[int, ChatLine],
) -> _Written | Exception:
    if isinstance(chat, Exception):
        return chat
    line = found.lines.get((writing.instance_name, writing.message_id))
    if line is None or line.chat_id != chat.id:
        return ConflictError("this message id was used in another chat")
    return _Written(noted.get(line.id, line), chat, ends.get(chat.username, 0.0))


# Sending.


@dataclass(frozen=True, slots=True)
class _Sending:
    """What is to be sent of a chat, which was `chat` when that was found out.

    Attributes:
        targets: the operators whom it is for.
        missing: of each line, by its id: those of them whom it was not sent yet.
    """

    tenant: Tenant
    chat: Chat
    targets: Sequence[str]
    missing: Mapping[int, list[str]]
    commands: Sequence[SendMessage]


def _sending(tenant: Tenant, chat: Chat, targets: Sequence[str], lines: Iterable[ChatLine]) -> _Sending:
    missing: dict[int, list[str]] = {}
    commands: list[SendMessage] = []
    for line in lines:
        operators = [one for one in targets if one not in line.sent_to]
        if operators:
            missing[line.id] = operators
            commands += [_command(tenant, chat, line, operator) for operator in operators]
    return _Sending(tenant, chat, targets, missing, commands)


def _command(tenant: Tenant, chat: Chat, line: ChatLine, operator: str) -> SendMessage:
    return SendMessage(
        instance_name=chat.instance_name,
        incarnation=tenant.incarnation,
        username=chat.username,
        operator=operator,
        body=line.body or "",
        message_id=stanza_id(line.message_id, operator),
    )


def _to_be_sent(chat: Chat) -> ColumnElement[bool]:
    """Lines that wait; and, while nobody has the chat, all since then, for operators who come later."""
    waits = ChatLine.state == LineState.WAITING
    if chat.owner is None:
        waits = or_(waits, and_(ChatLine.sender == chat.username, ChatLine.created_at >= chat.pending_since))
    return and_(ChatLine.chat_id == chat.id, waits, ChatLine.body.is_not(None))


async def _send_all(services: Services, sendings: Sequence[_Sending]) -> dict[int, ChatLine]:
    """Send, and note what was sent. Returns the lines that were, by their ids; what was not, waits."""
    published = await asyncio.gather(*(_publish(services, one) for one in sendings))
    sent = [one for one, is_published in zip(sendings, published, strict=True) if is_published]
    if not sent:
        return {}
    async with services.database.write() as session:
        current, lines = await _lock(session, sent)
        late: list[SendMessage] = []
        for one in sent:
            chat = current.get(one.chat.id)
            if chat is None:
                continue
            for line_id, operators in one.missing.items():
                if line_id in lines:
                    _note_sent(one.tenant, chat, lines[line_id], operators)
            if one.chat.owner is None and chat.owner is not None and chat.accepted_by:
                # somebody took it while it was being offered
                others = {*one.targets} - {chat.owner}
                late += await notices(services, session, one.tenant, chat, others, because_of=chat.accepted_by)
    if late:
        await services.commands.publish(*late)
    return lines


async def _publish(services: Services, sending: _Sending) -> bool:
    try:
        await services.commands.publish(*sending.commands)
    except UnavailableError as error:
        count = len(sending.commands)
        log.warning("lines wait", instance_name=sending.chat.instance_name, count=count, error=str(error))
        return False
    return True


async def _lock(session: AsyncSession, sent: Sequence[_Sending]) -> tuple[dict[int, Chat], dict[int, ChatLine]]:
    chats = await session.scalars(
        select(Chat)
        .where(Chat.id.in_([one.chat.id for one in sent]))
        .order_by(Chat.username, Chat.id)
        .with_for_update()
    )
    current = {chat.id: chat for chat in chats}
    lines = await session.scalars(
        select(ChatLine)
        .where(ChatLine.id.in_([line_id for one in sent for line_id in one.missing]))
        .order_by(ChatLine.id)
        .with_for_update()
    )
    return current, {line.id: line for line in lines}


def _note_sent(tenant: Tenant, chat: Chat, line: ChatLine, operators: Sequence[str]) -> None:
    line.sent_to = sorted({*line.sent_to, *operators})
    if chat.owner is not None and chat.owner not in line.sent_to:
        return  # whose chat it is by now was not sent it yet
    if line.state is LineState.WAITING:
        line.state = LineState.SENT
    if chat.owner is not None and not tenant.history_hours:
        line.body = None
