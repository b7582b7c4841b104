"""What visitors write in their chats: kept first, then sent to whom it is for (`line_sender`).

A line is a row first and a command second. Lines that are written at the same time are judged, kept, sent and noted as
sent all together, whether their chats have an owner or not.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import line_sender, line_store
from tenants.conversations.line_store import Key, LineKey
from tenants.core.errors import ConflictError, DomainError, InvalidInputError, NotFoundError, UnavailableError
from tenants.core.naming import AccountKind
from tenants.core.text import check_text
from tenants.lifecycle import admission
from tenants.process.services import Batched, Services
from tenants.store.models import Chat, ChatLine, ChatState, OwnerOffline, Tenant
from tenants.visitors import presence

MAX_BODY = 65_536
"""Bytes of a message in UTF-8."""


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


async def write(
    services: Services, instance_name: str, chat_id: str, body: str, message_id: str | None = None
) -> ChatLine:
    """The visitor writes in the chat. Who gives a `message_id` may repeat the call.

    Raises:
        NotFoundError: there is no such tenant or chat.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
        InvalidInputError: the message is empty or too long.
    """
    tenant = admission.check_routed(await admission.recent(services, instance_name, AccountKind.CHAT))
    writing = Writing(instance_name, chat_id, check_body(body), message_id or uuid.uuid4().hex)
    written = await _WRITE_LINE.do(services, writing)
    chat = written.chat
    if written.online_until < services.clock() + tenant.online_seconds / 2:
        # Who writes is online. The line is kept, so it matters little when that cannot be told now.
        with suppress(UnavailableError):
            await presence.show(services, tenant, services.naming.parse_username(chat.username), chat.nick, None)
    return written.line


@dataclass(frozen=True, slots=True)
class Writing:
    """A message to be kept."""

    instance_name: str
    chat_id: str
    body: str
    message_id: str

    @property
    def chat_key(self) -> Key:
        """Which chat it is for."""
        return self.instance_name, self.chat_id


@dataclass(frozen=True, slots=True)
class Found:
    """What messages are judged by.

    Attributes:
        lines: that are kept already.
        owners: whether they are online; one whose account is gone is not among them.
    """

    tenants: Mapping[str, Tenant]
    chats: Mapping[Key, Chat]
    lines: Mapping[LineKey, ChatLine]
    owners: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a message.

    Attributes:
        chat: which it is for.
        is_new: it is to be kept; False for one that is kept already.
        releases: the chat's owner is not there for it: the chat is nobody's again.
    """

    chat: Chat
    is_new: bool
    releases: bool


def decide(found: Found, writing: Writing) -> Decision | DomainError:
    """What becomes of the message, or why it is not kept. Changes nothing."""
    tenant = found.tenants.get(writing.instance_name)
    try:
        tenant = admission.check(tenant, writing.instance_name, AccountKind.CHAT)
    except DomainError as error:
        return error
    chat = found.chats.get(writing.chat_key)
    if chat is None:
        return NotFoundError(f"tenant '{writing.instance_name}' has no chat {writing.chat_id}")
    if chat.state is ChatState.CLOSED:
        return ConflictError(f"chat {writing.chat_id} is closed")
    if (chat.id, writing.message_id) in found.lines:
        return Decision(chat, is_new=False, releases=False)
    return Decision(chat, is_new=True, releases=_is_left(tenant, chat, found.owners))


def _is_left(tenant: Tenant, chat: Chat, owners: Mapping[str, bool]) -> bool:
    """Whether the chat's owner is gone, or is offline and the tenant wants others to have such chats."""
    if chat.owner is None:
        return False
    if chat.owner not in owners:
        return True
    return tenant.owner_offline is OwnerOffline.RELEASE and not owners[chat.owner]


@dataclass(frozen=True, slots=True)
class _Written:
    """A line that is kept, its chat, and until when the visitor is online (Unix seconds, 0 if not)."""

    line: ChatLine
    chat: Chat
    online_until: float


async def _write_all(services: Services, writings: Sequence[Writing]) -> list[_Written | Exception]:
    """Keep messages of any tenants, and send what waits in their chats."""
    now = services.clock()
    async with services.database.write() as session:
        found = await _find(session, writings)
        decisions = [decide(found, one) for one in writings]
        _release(decisions, now)
        kept = await line_store.keep(services.database, session, _new_rows(writings, decisions, now))
        chats = list({one.chat.id: one.chat for one in decisions if isinstance(one, Decision)}.values())
        await session.flush()
        waiting = await line_sender.outgoing(session, found.tenants, chats)
        ends = await line_store.online_until(session, [chat.username for chat in chats])
    sent = await line_sender.send(services, waiting)
    lines = {**found.lines, **kept}
    return [_written(one, decision, lines, ends, sent) for one, decision in zip(writings, decisions, strict=True)]


_WRITE_LINE = Batched("write_line", _write_all)


async def _find(session: AsyncSession, writings: Sequence[Writing]) -> Found:
    tenants, _ = await admission.hold_many(session, {one.instance_name for one in writings})
    chats = await line_store.lock_numbered(session, {one.chat_key for one in writings})
    keys = {(chats[one.chat_key].id, one.message_id) for one in writings if one.chat_key in chats}
    lines = await line_store.find_lines(session, keys)
    owners = await line_store.owners_online(session, {chat.owner for chat in chats.values() if chat.owner})
    return Found(tenants, chats, lines, owners)


def _release(decisions: Sequence[Decision | DomainError], now: float) -> None:
    for one in decisions:
        if isinstance(one, Decision) and one.releases:
            one.chat.owner, one.chat.accepted_by, one.chat.state = None, None, ChatState.PENDING
            one.chat.pending_since = now


def _new_rows(
    writings: Sequence[Writing], decisions: Sequence[Decision | DomainError], now: float
) -> list[dict[str, Any]]:
    """The lines to be kept: one for each id, whatever the number of messages that bear it."""
    rows: dict[LineKey, dict[str, Any]] = {}
    for one, decision in zip(writings, decisions, strict=True):
        if isinstance(decision, Decision) and decision.is_new:
            values = line_store.line_values(decision.chat, one.body, one.message_id, now)
            rows.setdefault((decision.chat.id, one.message_id), values)
    return list(rows.values())


def _written(
    writing: Writing,
    decision: Decision | DomainError,
    lines: Mapping[LineKey, ChatLine],
    ends: Mapping[str, float],
    sent: Mapping[int, ChatLine],
) -> _Written | Exception:
    if isinstance(decision, DomainError):
        return decision
    chat = decision.chat
    line = lines[chat.id, writing.message_id]
    return _Written(sent.get(line.id, line), chat, ends.get(chat.username, 0.0))
