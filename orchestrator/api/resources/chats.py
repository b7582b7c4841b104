"""A tenant's chats, for the tenant itself: the rules are in `tenants.conversations.chats`."""

from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.http.auth import ACTS_FOR_TENANT, READS_MESSAGES, READS_TENANT, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterId, Limit, Page, rows_named
from orchestrator.api.http.views import View, problems
from tenants.accounts import operators
from tenants.conversations import chat_lines, chats, line_changes, ownership, visitor_answers
from tenants.core.naming import check_identifier
from tenants.core.text import DEFAULT_NICK, XmlText
from tenants.delivery.receipts import Progress
from tenants.process.services import Services
from tenants.store.models import Chat, ChatLine, ChatState, LineState
from tenants.visitors.page_view_request import DEFAULT_STATUS

Nick = Annotated[XmlText, Field(min_length=1, max_length=200)]
Message = Annotated[
    XmlText,
    Field(min_length=1, max_length=chat_lines.MAX_BODY, description=f"Up to {chat_lines.MAX_BODY} bytes of UTF-8."),
]
MessageId = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{8,64}$")]
Reaction = Annotated[XmlText, Field(min_length=1, max_length=64, pattern=r"^\S+$", description="An emoji.")]


class ChatRequest(BaseModel):
    """A chat that begins."""

    model_config = ConfigDict(extra="forbid")

    chat_id: str = Field(description="The tenant's own number of the chat.")
    visitor_id: str | None = Field(None, description="The visitor's number; null when nobody known.")
    nick: Nick = DEFAULT_NICK
    status: XmlText = Field(DEFAULT_STATUS, max_length=10_000, description="What stands beside the nick.")
    department: str | None = Field(None, min_length=1, max_length=100, description="Null: anybody may take it.")
    message: Message | None = Field(None, description="The first message.")


class ChatChange(BaseModel):
    """What is different now."""

    model_config = ConfigDict(extra="forbid")

    nick: Nick
    status: XmlText | None = Field(None, max_length=10_000, description="Null: as it is.")


class OwnerRequest(BaseModel):
    """Whose the chat is to be."""

    model_config = ConfigDict(extra="forbid")

    operator: str = Field(description="The operator's username.")


class TypingRequest(BaseModel):
    """Whether the visitor is writing."""

    model_config = ConfigDict(extra="forbid")

    composing: bool = Field(strict=True)


class MessageRequest(BaseModel):
    """What the visitor wrote."""

    model_config = ConfigDict(extra="forbid")

    message: Message
    message_id: MessageId | None = Field(None, description="A unique id: with it the call may be repeated.")


class EditRequest(BaseModel):
    """What a message of the visitor says now."""

    model_config = ConfigDict(extra="forbid")

    message: Message


class VisitorState(StrEnum):
    """How far an operator's message has come: to the visitor's browser, or to the visitor."""

    DELIVERED = "delivered"
    READ = "read"


class ReceiptRequest(BaseModel):
    """What became of an operator's message."""

    model_config = ConfigDict(extra="forbid")

    state: VisitorState


class ReactionsRequest(BaseModel):
    """All reactions of the visitor to a message; none takes them back."""

    model_config = ConfigDict(extra="forbid")

    reactions: list[Reaction] = Field(max_length=20)


class ChatView(BaseModel):
    """A chat as it is now."""

    id: int
    chat_id: str
    state: ChatState
    username: str = Field(description="The account that it is spoken from.")
    nick: str
    department: str | None
    owner: str | None = Field(description="The operator who has it.")
    created_at: datetime
    accepted_at: datetime | None
    closed_at: datetime | None

    @classmethod
    def of(cls, services: Services, chat: Chat) -> "ChatView":
        """The chat as its tenant sees it."""
        values = {name: getattr(chat, name) for name in cls.model_fields if name != "owner"}
        return cls(**values, owner=_operator(services, chat.owner))


class ChatPage(Page[ChatView, int], alias_generator=rows_named("chats")):
    """Some chats, oldest first."""


class LineView(View):
    """Something that was said."""

    id: int
    message_id: str
    sender: str = Field(description="The account of the visitor, or of the operator.")
    state: LineState = Field(
        description="`unconfirmed`: sent five minutes ago or more, and no client has said so far that it has it."
    )
    body: str | None = Field(description="Null when it has arrived and the tenant keeps no history.")
    created_at: datetime
    arrived_at: datetime | None

    @classmethod
    def of(cls, line: ChatLine, now: float) -> "LineView":
        """The line as its tenant sees it at that time."""
        values = {name: getattr(line, name) for name in cls.model_fields if name != "state"}
        return cls(**values, state=line.state_at(now))


class LinePage(Page[LineView, int], alias_generator=rows_named("messages")):
    """What was said in a chat, oldest first."""


router = APIRouter(
    prefix="/v1/tenants/{instance_name}/chats",
    tags=["chats"],
    route_class=IdempotentRoute,
    responses=problems(404, 409, 429),
)


@router.get("", dependencies=[READS_TENANT])
async def list_chats(
    instance_name: str, services: ServicesDep, state: ChatState | None = None, after: AfterId = 0, limit: Limit = 50
) -> ChatPage:
    """The chats, oldest first; closed ones of a month."""
    found = await chats.find(services.database, instance_name, state=state, after=after, limit=limit + 1)
    return ChatPage.of(found, limit, lambda chat: ChatView.of(services, chat))


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    dependencies=[ACTS_FOR_TENANT],
    responses={HTTPStatus.OK: {"model": ChatView, "description": "There is such a chat already."}},
)
async def start_chat(instance_name: str, wanted: ChatRequest, services: ServicesDep, response: Response) -> ChatView:
    """Begin a chat: it is offered to the operators who may take it. One of that number is found as it is."""
    new = chats.NewChat(
        chat_id=check_identifier(wanted.chat_id, "chat_id"),
        visitor_id=None if wanted.visitor_id is None else check_identifier(wanted.visitor_id, "visitor_id"),
        nick=wanted.nick,
        department=wanted.department,
        body=wanted.message,
        status=wanted.status,
    )
    chat, is_new = await chats.start(services, instance_name, new)
    if not is_new:
        response.status_code = HTTPStatus.OK
    response.headers["Location"] = f"/v1/tenants/{instance_name}/chats/{chat.chat_id}"
    return ChatView.of(services, chat)


@router.get("/{chat_id}", dependencies=[READS_TENANT])
async def get_chat(instance_name: str, chat_id: str, services: ServicesDep) -> ChatView:
    """The chat."""
    return ChatView.of(services, await chats.get(services.database, instance_name, chat_id))


@router.patch("/{chat_id}", dependencies=[ACTS_FOR_TENANT])
async def change_chat(instance_name: str, chat_id: str, wanted: ChatChange, services: ServicesDep) -> ChatView:
    """Give the visitor another nick or status; operators see it at once."""
    return ChatView.of(services, await chats.rename(services, instance_name, chat_id, wanted.nick, wanted.status))


@router.put("/{chat_id}/owner", dependencies=[ACTS_FOR_TENANT])
async def assign_chat(instance_name: str, chat_id: str, wanted: OwnerRequest, services: ServicesDep) -> ChatView:
    """Give the chat to an operator, whoever has it now."""
    operator = operators.name_of(instance_name, wanted.operator)
    return ChatView.of(services, await ownership.assign(services, instance_name, chat_id, operator))


@router.post("/{chat_id}/typing", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def show_typing(instance_name: str, chat_id: str, wanted: TypingRequest, services: ServicesDep) -> TypingRequest:
    """Operators see that the visitor is writing, or no longer."""
    await chats.show_typing(services, instance_name, chat_id, composing=wanted.composing)
    return wanted


@router.delete("/{chat_id}", status_code=HTTPStatus.NO_CONTENT, dependencies=[ACTS_FOR_TENANT])
async def close_chat(instance_name: str, chat_id: str, services: ServicesDep) -> None:
    """End the chat; one that is closed already stays so."""
    await chats.close(services, instance_name, chat_id)


@router.post("/{chat_id}/messages", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def write_message(instance_name: str, chat_id: str, wanted: MessageRequest, services: ServicesDep) -> LineView:
    """The visitor writes: to the chat's owner, or to all who may take it."""
    line = await chat_lines.write(services, instance_name, chat_id, wanted.message, wanted.message_id)
    return LineView.of(line, services.clock())


@router.get("/{chat_id}/messages", dependencies=[READS_MESSAGES])
async def list_messages(
    instance_name: str, chat_id: str, services: ServicesDep, after: AfterId = 0, limit: Limit = 50
) -> LinePage:
    """What was said, as far as it is kept: all of it for `history_hours`, else what has not arrived."""
    found = await chats.history(services.database, instance_name, chat_id, after=after, limit=limit + 1)
    now = services.clock()
    return LinePage.of(found, limit, lambda line: LineView.of(line, now))


@router.patch("/{chat_id}/messages/{line_id}", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def edit_message(
    instance_name: str, chat_id: str, line_id: str, wanted: EditRequest, services: ServicesDep
) -> LineView:
    """The visitor corrects what was written; `line_id` is the message's id. Operators who have it see the new text."""
    line = await line_changes.edit(services, instance_name, chat_id, line_id, wanted.message)
    return LineView.of(line, services.clock())


@router.delete("/{chat_id}/messages/{line_id}", status_code=HTTPStatus.NO_CONTENT, dependencies=[ACTS_FOR_TENANT])
async def retract_message(instance_name: str, chat_id: str, line_id: str, services: ServicesDep) -> None:
    """The visitor takes back what was written; one that was taken back already stays so."""
    await line_changes.retract(services, instance_name, chat_id, line_id)


@router.post("/{chat_id}/messages/{line_id}/receipts", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def confirm_message(
    instance_name: str, chat_id: str, line_id: str, wanted: ReceiptRequest, services: ServicesDep
) -> ReceiptRequest:
    """An operator's message, by the id that its event told, has come to the visitor: the operator's client sees it."""
    progress = Progress.DISPLAYED if wanted.state is VisitorState.READ else Progress.RECEIVED
    await visitor_answers.confirm(services, instance_name, chat_id, line_id, progress)
    return wanted


@router.put("/{chat_id}/messages/{line_id}/reactions", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def react(
    instance_name: str, chat_id: str, line_id: str, wanted: ReactionsRequest, services: ServicesDep
) -> ReactionsRequest:
    """The visitor reacts to a message, which operators' clients show.

    An operator's is known by the id that its event told, the visitor's own by yours.
    """
    await visitor_answers.react(services, instance_name, chat_id, line_id, wanted.reactions)
    return wanted


def _operator(services: Services, username: str | None) -> str | None:
    return None if username is None else services.naming.parse_username(username).ident
