"""Chat lines that are kept are sent to whom they are for, and noted as sent.

A chat with an owner is its owner's; one without is offered to all operators online who may take it, and to those who
come later. What cannot be sent now waits for the sweep. A line that is sent twice is shown once (`<once/>`).

    chat_lines.write, chats.start, ownership.assign ─┐
    an operator comes online: forward_pending ───────┼─> outgoing ─> send ─> commands of the pool
    the sweep ───────────────────────────────────────┘               └─> noted in the rows of the lines
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import line_store, stanza_ids
from tenants.core.errors import UnavailableError
from tenants.core.naming import Naming
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.shards.commands import SendMessage
from tenants.shards.queues import CommandPublisher
from tenants.store.models import Chat, ChatLine, ChatState, LineState, Operator, Tenant

log = structlog.get_logger(__name__)

ASSISTANT = "[[System Assistant]]"
_TAKEN_BACK = "The visitor took back a message. Your client cannot hide it."
"""What clients show that know nothing of retractions."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be sent of a chat, as the chat was when that was found out.

    Attributes:
        owner: whose chat it was; None while nobody had it.
        targets: the operators whom it is for.
        missing: of each line, by its id: those of them whom it was not sent yet.
        texts: of each line, by its id: what it said.
    """

    tenant: Tenant
    chat_key: int
    owner: str | None
    targets: Sequence[str]
    missing: Mapping[int, Sequence[str]]
    texts: Mapping[int, str | None]
    commands: Sequence[SendMessage]


async def forward(services: Services, chat_key: int) -> None:
    """Send what waits in the chat. May be repeated at will."""
    async with services.database.read() as session:
        chat = await session.get(Chat, chat_key)
        if chat is None or chat.state is ChatState.CLOSED:
            return
        tenant = await session.get(Tenant, chat.instance_name)
        if tenant is None or admission.refusal(tenant):
            return
        waiting = await outgoing(session, {tenant.instance_name: tenant}, [chat])
    await send(services, waiting)


async def forward_pending(services: Services, instance_name: str) -> None:
    """Forward the tenant's chats without an owner."""
    async with services.database.read() as session:
        keys = await line_store.pending_chats(session, instance_name)
    for key in keys:
        await forward(services, key)


async def sweep(services: Services) -> None:
    """Forward what waits: for an operator, or since the broker did not take it."""
    async with services.database.read() as session:
        keys = await line_store.chats_that_wait(session, services.clock())
    for key in keys:
        await forward(services, key)


async def outgoing(session: AsyncSession, tenants: Mapping[str, Tenant], chats: Sequence[Chat]) -> list[Outgoing]:
    """What is to be sent of these chats; nothing of one in which nothing waits for anybody."""
    lines = await line_store.to_be_sent(session, [chat.id for chat in chats])
    audiences = await line_store.audiences(session, [chat for chat in chats if chat.owner is None])
    found = (
        _outgoing(tenants[chat.instance_name], chat, [chat.owner] if chat.owner else audiences[chat.id], lines[chat.id])
        for chat in chats
    )
    return [one for one in found if one.commands]


async def send(services: Services, waiting: Sequence[Outgoing]) -> dict[int, ChatLine]:
    """Send, and note what was sent.

    Returns:
        The lines that were sent, by their ids; the others wait.
    """
    published = await asyncio.gather(*(_publish(services.commands, one) for one in waiting))
    sent = [one for one, is_published in zip(waiting, published, strict=True) if is_published]
    if not sent:
        return {}
    async with services.database.write() as session:
        chats = await line_store.lock_chats(session, [one.chat_key for one in sent])
        lines = await line_store.lock_lines(session, [line_id for one in sent for line_id in one.missing])
        late: list[SendMessage] = []
        for one in sent:
            chat = chats.get(one.chat_key)
            if chat is not None:
                late += _changed_meanwhile(one, chat, lines)
                _note_sent(one, chat, lines)
                late += await _tell_late(services.naming, session, one, chat)
    if late:
        await services.commands.publish(*late)
    return lines


def corrections(tenant: Tenant, chat: Chat, line: ChatLine, operators: Iterable[str], body: str) -> list[SendMessage]:
    """Tell these operators what the line says now: who was not sent it reads it as a new one."""
    return [
        replace(
            _command(tenant, chat, line, operator),
            body=body,
            message_id=stanza_ids.of_change(line, operator),
            replaces=stanza_ids.of_line(line, operator) if operator in line.sent_to else None,
        )
        for operator in operators
    ]


def retractions(tenant: Tenant, chat: Chat, line: ChatLine, operators: Iterable[str]) -> list[SendMessage]:
    """Tell these operators, who were sent the line, that it was taken back."""
    return [
        replace(
            _command(tenant, chat, line, operator),
            body=_TAKEN_BACK,
            message_id=stanza_ids.of_change(line, operator),
            retracts=stanza_ids.of_line(line, operator),
        )
        for operator in operators
    ]


async def audience(session: AsyncSession, chat: Chat) -> list[str]:
    """The operators who are to see what the chat's visitor does: its owner, or all online who may take it."""
    return [chat.owner] if chat.owner else (await line_store.audiences(session, [chat]))[chat.id]


async def notices(
    naming: Naming,
    session: AsyncSession,
    tenant: Tenant,
    chat: Chat,
    operators: Iterable[str],
    *,
    owner: str,
    because_of: str,
) -> list[SendMessage]:
    """Tell operators that `owner` has the chat. `because_of`: an id, so that a repeat is shown once."""
    found = await session.get(Operator, owner)
    name = (found.nick if found else None) or naming.parse_username(owner).ident
    return [
        SendMessage(
            instance_name=chat.instance_name,
            incarnation=tenant.incarnation,
            username=chat.username,
            operator=operator,
            body=f"{ASSISTANT} Chat was already accepted by {name}",
            message_id=stanza_ids.of_notice(because_of, operator),
        )
        for operator in sorted(operators)
    ]


def _outgoing(tenant: Tenant, chat: Chat, targets: Sequence[str], lines: Sequence[ChatLine]) -> Outgoing:
    missing: dict[int, list[str]] = {}
    commands: list[SendMessage] = []
    for line in lines:
        operators = [one for one in targets if one not in line.sent_to]
        if operators:
            missing[line.id] = operators
            commands += [_command(tenant, chat, line, operator) for operator in operators]
    texts = {line.id: line.body for line in lines if line.id in missing}
    return Outgoing(tenant, chat.id, chat.owner, targets, missing, texts, commands)


def _command(tenant: Tenant, chat: Chat, line: ChatLine, operator: str) -> SendMessage:
    return SendMessage(
        instance_name=chat.instance_name,
        incarnation=tenant.incarnation,
        username=chat.username,
        operator=operator,
        body=line.body or "",
        message_id=stanza_ids.of_line(line, operator),
    )


async def _publish(commands: CommandPublisher, one: Outgoing) -> bool:
    try:
        await commands.publish(*one.commands)
    except UnavailableError as error:
        log.warning("lines wait", instance_name=one.tenant.instance_name, count=len(one.commands), error=str(error))
        return False
    return True


def _changed_meanwhile(sent: Outgoing, chat: Chat, lines: Mapping[int, ChatLine]) -> list[SendMessage]:
    """What is to be told of lines that the visitor changed or took back while they were being sent."""
    told: list[SendMessage] = []
    for line_id, operators in sent.missing.items():
        line = lines.get(line_id)
        if line is None:
            continue
        if line.state is LineState.RETRACTED:
            told += retractions(sent.tenant, chat, line, operators)
        elif line.body is not None and line.body != sent.texts[line_id]:
            line.sent_to = sorted({*line.sent_to, *operators})
            told += corrections(sent.tenant, chat, line, operators, line.body)
    return told


def _note_sent(sent: Outgoing, chat: Chat, lines: Mapping[int, ChatLine]) -> None:
    for line_id, operators in sent.missing.items():
        line = lines.get(line_id)
        if line is None:
            continue
        line.sent_to = sorted({*line.sent_to, *operators})
        if chat.owner is not None and chat.owner not in line.sent_to:
            continue  # whose chat it is by now was not sent it yet
        if line.state is LineState.WAITING:
            line.state = LineState.SENT
        if chat.owner is not None and not sent.tenant.history_hours:
            line.body = None


async def _tell_late(naming: Naming, session: AsyncSession, sent: Outgoing, chat: Chat) -> list[SendMessage]:
    """What the others are told when somebody took the chat while it was being offered."""
    if sent.owner is not None or chat.owner is None or not chat.accepted_by:
        return []
    others = {*sent.targets} - {chat.owner}
    return await notices(naming, session, sent.tenant, chat, others, owner=chat.owner, because_of=chat.accepted_by)
