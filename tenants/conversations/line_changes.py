"""A visitor takes back or corrects what was said: operators who have the line are told (XEP-0308, XEP-0424).

Each operator's copy of a line has an id of its own. A line that is on its way just now is changed when it is noted as
sent (`line_sender.send`): so nobody is told of a change before the line, and nobody is left with the old text.
"""

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import chat_lines, chats, line_sender
from tenants.core.errors import ConflictError, NotFoundError
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.store.models import Chat, ChatLine, LineState


async def edit(services: Services, instance_name: str, chat_id: str, message_id: str, body: str) -> ChatLine:
    """The line reads otherwise. May be repeated.

    Raises:
        NotFoundError: there is no such tenant or chat, or the visitor has not written such a line, as far as is known.
        ConflictError: the tenant is shut, or routes its chats itself; the chat is closed, or the line taken back.
        InvalidInputError: the text is empty or too long.
        QueueUnavailableError: operators could not be told; to be repeated.
    """
    tenant = await admission.get_routed(services, instance_name)
    body = chat_lines.check_body(body)
    async with services.database.write() as session:
        chat = await chats.lock_open(session, instance_name, chat_id)
        line = await _lock_line(session, chat, message_id)
        if line.state is LineState.RETRACTED:
            raise ConflictError(f"message '{message_id}' was taken back")
        if line.body is not None:
            line.body = body
        # nobody has a line that waits; an owner who came later reads the text as a new one
        receivers = [chat.owner] if chat.owner and line.sent_to else line.sent_to
    await services.commands.publish(*line_sender.corrections(tenant, chat, line, receivers, body))
    return line


async def retract(services: Services, instance_name: str, chat_id: str, message_id: str) -> None:
    """The line was not said. One that was taken back already stays so; whoever has it is told again.

    Raises:
        NotFoundError: there is no such tenant or chat, or the visitor has not written such a line, as far as is known.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
        QueueUnavailableError: operators could not be told; to be repeated.
    """
    tenant = await admission.get_routed(services, instance_name)
    async with services.database.write() as session:
        chat = await chats.lock_open(session, instance_name, chat_id)
        line = await _lock_line(session, chat, message_id)
        line.state, line.body = LineState.RETRACTED, None
    await services.commands.publish(*line_sender.retractions(tenant, chat, line, line.sent_to))


def own_line(chat: Chat, message_id: str) -> Select[ChatLine]:
    """The statement that finds the line of the chat's visitor."""
    return select(ChatLine).where(
        ChatLine.chat_id == chat.id, ChatLine.message_id == message_id, ChatLine.sender == chat.username
    )


async def _lock_line(session: AsyncSession, chat: Chat, message_id: str) -> ChatLine:
    found: ChatLine | None = await session.scalar(own_line(chat, message_id).with_for_update())
    if found is None:
        raise NotFoundError(f"chat {chat.chat_id} has no message '{message_id}' of its visitor, or has it no longer")
    return found
