"""What a visitor does with a message, without words: an operator's has arrived, was read, or a reaction (XEP-0444).

An operator's message is known by the id that the tenant was told, as long as its event is kept: a day after it was
delivered; the visitor's own by the tenant's id.
"""

import uuid
from collections.abc import Sequence

from sqlalchemy import select

from tenants.conversations import chats, line_changes, stanza_ids
from tenants.core.errors import ConflictError, NotFoundError
from tenants.delivery import outbox, receipts
from tenants.delivery.receipts import Progress
from tenants.lifecycle import admission
from tenants.outbound import webhooks
from tenants.process.services import Services
from tenants.shards.commands import SendReactions
from tenants.store.database import Database
from tenants.store.models import CallbackMessage, Chat, ChatState, Conversation, LineState, Tenant

_LOOKED_AT = 1000
"""The latest messages of a conversation, among which one is looked for."""


async def confirm(services: Services, instance_name: str, chat_id: str, message_id: str, progress: Progress) -> None:
    """The message has come so far. The operator's client is told if it asks for that.

    Raises:
        NotFoundError: there is no such tenant, chat or message, or it is not known any more.
        ConflictError: the tenant is shut, or routes its chats itself; or the chat is closed.
        QueueUnavailableError: it could not be accepted.
    """
    tenant, chat = await _open_chat(services, instance_name, chat_id)
    message = await _message(services.database, chat, message_id)
    if message is None:
        raise NotFoundError(f"chat {chat_id} has no message '{message_id}' of an operator, or has it no longer")
    receipt = receipts.of_message(tenant, message, progress)
    if receipt is not None:
        await services.commands.publish(receipt)


async def react(
    services: Services, instance_name: str, chat_id: str, message_id: str, reactions: Sequence[str]
) -> None:
    """These are the visitor's reactions to the message from now on; none: they are taken back.

    Raises:
        NotFoundError: there is no such tenant, chat or message, or it is not known any more.
        ConflictError: the tenant is shut, or routes its chats itself; the chat is closed; or no operator's client can
            know what is meant.
        QueueUnavailableError: it could not be accepted.
    """
    tenant, chat = await _open_chat(services, instance_name, chat_id)
    known_as = await _known_as(services.database, chat, message_id)
    await services.commands.publish(
        *(
            SendReactions(
                instance_name=instance_name,
                incarnation=tenant.incarnation,
                username=chat.username,
                operator=operator,
                of=of,
                reactions=list(reactions),
                stanza_id=f"reaction-{uuid.uuid4().hex}",
            )
            for operator, of in known_as.items()
        )
    )


async def _open_chat(services: Services, instance_name: str, chat_id: str) -> tuple[Tenant, Chat]:
    tenant = await admission.get_routed(services, instance_name)
    chat = await chats.get(services.database, instance_name, chat_id)
    if chat.state is ChatState.CLOSED:
        raise ConflictError(f"chat {chat_id} is closed")
    return tenant, chat


async def _known_as(database: Database, chat: Chat, message_id: str) -> dict[str, str]:
    """What the clients of operators call the message, by operators: who wrote it, or all who have the visitor's own."""
    async with database.read() as session:
        line = await session.scalar(line_changes.own_line(chat, message_id))
    if line is not None:
        if line.state is LineState.RETRACTED:
            raise ConflictError(f"message '{message_id}' was taken back")
        have = [one for one in line.sent_to if chat.owner in {None, one}]
        if not have:
            raise ConflictError(f"no operator has message '{message_id}' yet")
        return {operator: stanza_ids.of_line(line, operator) for operator in have}
    message = await _message(database, chat, message_id)
    if message is None:
        raise NotFoundError(f"chat {chat.chat_id} has no message '{message_id}', or has it no longer")
    if message.client_id is None:
        raise ConflictError("the operator's client gave this message no id: nothing can refer to it")
    return {message.sender: message.client_id}


async def _message(database: Database, chat: Chat, message_id: str) -> CallbackMessage | None:
    """The id that was told is a digest: the messages of the chat's conversation are looked at for it."""
    latest = (
        select(CallbackMessage.id, CallbackMessage.stanza_id)
        .join(Conversation, Conversation.id == CallbackMessage.conversation_id)
        .where(
            Conversation.instance_name == chat.instance_name,
            Conversation.receiver == chat.username,
            CallbackMessage.event.in_(outbox.MESSAGES),
        )
        .order_by(CallbackMessage.id.desc())
        .limit(_LOOKED_AT)
    )
    async with database.read() as session:
        for key, stanza_id in await session.execute(latest):
            if webhooks.event_id(stanza_id) == message_id:
                return await session.get(CallbackMessage, key)
    return None
