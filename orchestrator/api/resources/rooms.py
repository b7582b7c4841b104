"""A tenant's rooms, group chats of its operators; the rules are in `tenants.conversations.rooms`."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.http.auth import ACTS_FOR_TENANT, READS_TENANT, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterId, Page, rows_named
from orchestrator.api.http.views import View, problems
from orchestrator.api.resources.chats import Message, MessageId
from tenants.accounts import operators
from tenants.conversations import chat_lines, rooms
from tenants.conversations.rooms import Participant
from tenants.core.naming import MAX_ROOM, check_nick, is_page_operator
from tenants.core.text import XmlText
from tenants.lifecycle import hosts
from tenants.process.services import Services
from tenants.store.models import Room, RoomOrigin

Nick = Annotated[XmlText, Field(min_length=1, max_length=rooms.MAX_NICK)]


class RoomRequest(BaseModel):
    """A room to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        min_length=1,
        max_length=MAX_ROOM,
        description="Any local part of a JID (RFC 6122); case is folded. Other tenants may have the same name.",
    )
    title: XmlText | None = Field(None, min_length=1, max_length=200, description="As clients show it; null: the name.")


class MemberRequest(BaseModel):
    """Who is to be in a room."""

    model_config = ConfigDict(extra="forbid")

    nick: Nick | None = Field(
        None, description="The name shown of what is written in the tenant's page; null: its own."
    )
    invite: bool = Field(default=True, strict=True, description="Whether the operator's client is sent an invitation.")


class RoomMessageRequest(BaseModel):
    """What was written in the tenant's page."""

    model_config = ConfigDict(extra="forbid")

    operator: str = Field(description="Who wrote it: an operator's username, or `[name].operator`.")
    message: Message
    message_id: MessageId | None = Field(None, description="A unique id: with it the call may be repeated.")


class MemberView(View):
    """Who is to be in a room."""

    operator: str = Field(description="The operator's username, or `[name].operator` of one who has no account.")
    nick: str


class RoomView(BaseModel):
    """A room as it is now."""

    id: int
    name: str
    title: str
    address: str = Field(description="Where operators' clients find it.")
    origin: RoomOrigin = Field(description="Who asked for it: the tenant's LHC by XML-RPC, or this API.")
    members: list[MemberView]
    created_at: datetime

    @classmethod
    def of(cls, services: Services, room: Room, host: str) -> "RoomView":
        """The room as its tenant, which lives on that XMPP host, sees it."""
        names = ("id", "name", "title", "origin", "created_at")
        return cls(
            **{name: getattr(room, name) for name in names},
            address=rooms.address(services, room, host),
            members=[
                MemberView(operator=_operator(services, member.username), nick=member.nick) for member in room.members
            ],
        )


class RoomPage(Page[RoomView, int], alias_generator=rows_named("rooms")):
    """Some rooms, oldest first."""


class SaidView(BaseModel):
    """A message that was accepted."""

    message_id: str


router = APIRouter(
    prefix="/v1/tenants/{instance_name}/rooms",
    tags=["rooms"],
    route_class=IdempotentRoute,
    responses=problems(404, 409, 429),
)


@router.get("", dependencies=[READS_TENANT])
async def list_rooms(
    instance_name: str,
    services: ServicesDep,
    after: AfterId = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RoomPage:
    """The rooms, oldest first."""
    found = await rooms.find(services.database, instance_name, after=after, limit=limit + 1)
    host = await hosts.of(services, instance_name)
    return RoomPage.of(found, limit, lambda room: RoomView.of(services, room, host))


@router.post("", status_code=HTTPStatus.CREATED, dependencies=[ACTS_FOR_TENANT])
async def create_room(instance_name: str, wanted: RoomRequest, services: ServicesDep, response: Response) -> RoomView:
    """Make a room, which stays until it is removed. All operators of the tenant may enter it."""
    room = await rooms.create(services, instance_name, wanted.name, RoomOrigin.API, title=wanted.title)
    response.headers["Location"] = f"/v1/tenants/{instance_name}/rooms/{quote(room.name, safe='')}"
    return RoomView.of(services, room, await hosts.of(services, instance_name))


@router.get("/{name}", dependencies=[READS_TENANT])
async def get_room(instance_name: str, name: str, services: ServicesDep) -> RoomView:
    """The room with its members."""
    room = await rooms.get(services.database, instance_name, name)
    return RoomView.of(services, room, await hosts.of(services, instance_name))


@router.delete("/{name}", status_code=HTTPStatus.NO_CONTENT, dependencies=[ACTS_FOR_TENANT])
async def delete_room(instance_name: str, name: str, services: ServicesDep) -> None:
    """Remove the room; who is in it is told."""
    await rooms.destroy(services, instance_name, name)


@router.put("/{name}/members/{operator}", dependencies=[ACTS_FOR_TENANT])
async def put_member(
    instance_name: str, name: str, operator: str, wanted: MemberRequest, services: ServicesDep
) -> RoomView:
    """Note who is to be in the room, and invite an operator who is not there."""
    who = _person(services, instance_name, operator)
    nick = None if wanted.nick is None else check_nick(wanted.nick)
    await rooms.put_member(services.database, instance_name, name, who, nick)
    if wanted.invite:
        await rooms.invite(services, instance_name, name, [who])
    room = await rooms.get(services.database, instance_name, name)
    return RoomView.of(services, room, await hosts.of(services, instance_name))


@router.delete("/{name}/members/{operator}", status_code=HTTPStatus.NO_CONTENT, dependencies=[ACTS_FOR_TENANT])
async def remove_member(instance_name: str, name: str, operator: str, services: ServicesDep) -> None:
    """Remove a member; nobody is thrown out of the room. One who is none is a success."""
    await rooms.remove_member(services.database, instance_name, name, _person(services, instance_name, operator))


@router.post("/{name}/messages", status_code=HTTPStatus.ACCEPTED, dependencies=[ACTS_FOR_TENANT])
async def say_in_room(instance_name: str, name: str, wanted: RoomMessageRequest, services: ServicesDep) -> SaidView:
    """Say something in the room, under the name that its author has there. It is no event: it comes from the tenant."""
    who = _person(services, instance_name, wanted.operator)
    body = chat_lines.check_body(wanted.message)
    return SaidView(
        message_id=await rooms.write(services, instance_name, name, who, body, message_id=wanted.message_id)
    )


def _person(services: Services, instance_name: str, operator: str) -> Participant:
    if is_page_operator(operator):
        return rooms.person(services.naming, instance_name, operator, "operator")
    username = services.naming.username(operators.name_of(instance_name, operator))
    return rooms.person(services.naming, instance_name, username, "operator")


def _operator(services: Services, username: str) -> str:
    return username if is_page_operator(username) else services.naming.parse_username(username).ident
