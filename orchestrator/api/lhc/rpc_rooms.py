"""XML-RPC calls about group chats of operators: LHC's extension makes them whatever its handler is.

A room's name says nothing of its tenant, so these calls are for a tenant's own credentials or address.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from orchestrator.api.lhc.calls import Call
from orchestrator.api.lhc.rpc_wire import COMMAND_FAILED, DONE, RpcError
from tenants.conversations import rooms
from tenants.conversations.rooms import NoAccountError, NoRoomError, Participant
from tenants.core.errors import InvalidInputError, TakenError
from tenants.core.naming import STANDALONE_INSTANCE, local_part, rooms_service
from tenants.core.text import clean
from tenants.store.models import RoomOrigin

log = structlog.get_logger(__name__)


async def muc_online_rooms(call: Call) -> dict[str, Any]:
    """The tenant's own rooms."""
    call.require("host")
    call.check_rooms_service("host")
    found = await rooms.find(call.services.database, _instance_name(call))
    return {"rooms": [{"room": f"{room.name}@{rooms_service(call.host)}"} for room in found]}


async def create_room(call: Call) -> dict[str, Any]:
    """A room that stays until it is destroyed."""
    call.require("name", "service", "host")
    call.check_host()
    call.check_rooms_service("service")
    try:
        await rooms.create(call.services, _instance_name(call), call.text("name"), RoomOrigin.LHC)
    except TakenError:
        raise RpcError(COMMAND_FAILED, "Room already exists") from None
    return DONE


async def change_room_option(call: Call) -> dict[str, Any]:
    """Only what the extension asks for, which all rooms have."""
    call.require("name", "service", "option", "value")
    call.check_rooms_service("service")
    if (call.text("option"), call.text("value")) != ("allow_subscription", "true"):
        raise InvalidInputError("option", "only allow_subscription can be set, to true")
    with _no_room("Room not found"):
        await rooms.get(call.services.database, _instance_name(call), call.text("name"))
    return DONE


async def subscribe_room(call: Call) -> dict[str, Any]:
    """Who is to be in the room, under what name."""
    call.require("user", "nick", "room", "nodes")
    who = _person(call, "user")
    room = local_part(call.text("room"), rooms_service(call.host), "room")
    with _no_room("The room does not exist"):
        await rooms.put_member(call.services.database, _instance_name(call), room, who, call.text("nick"))
    return {"nodes": []}


async def send_direct_invitation(call: Call) -> dict[str, Any]:
    """To accounts of the tenant, which are separated by colons."""
    call.require("name", "service", "password", "reason", "users")
    call.check_rooms_service("service")
    people = [_person(call, "users", user) for user in call.text("users").split(":") if user]
    with _no_room("room_not_found"):
        await rooms.invite(call.services, _instance_name(call), call.text("name"), people, call.text("reason"))
    return DONE


async def destroy_room(call: Call) -> dict[str, Any]:
    """Of a tenant in any state: LHC asks once."""
    call.require("name", "service")
    call.check_rooms_service("service")
    try:
        await rooms.destroy(call.services, _instance_name(call), call.text("name"))
    except NoRoomError:
        raise RpcError(COMMAND_FAILED, "Room doesn't exists") from None
    return DONE


async def send_groupchat(call: Call) -> None:
    """`send_message` of type `groupchat`: written in LHC's page. A success without a room, too."""
    who = _person(call, "from")
    room = local_part(call.text("to"), rooms_service(call.host), "to")
    body = clean(call.text("body"))
    try:
        await rooms.write(call.services, _instance_name(call), room, who, body)
    except (NoRoomError, NoAccountError):
        log.warning("a message to no room, or of nobody", instance_name=_instance_name(call))


HANDLERS: dict[str, Callable[[Call], Awaitable[dict[str, Any]]]] = {
    "muc_online_rooms": muc_online_rooms,
    "create_room": create_room,
    "change_room_option": change_room_option,
    "subscribe_room": subscribe_room,
    "send_direct_invitation": send_direct_invitation,
    "destroy_room": destroy_room,
}


def _instance_name(call: Call) -> str:
    if not call.services.settings.hosting:
        return STANDALONE_INSTANCE
    if call.confined_to is None:
        raise RpcError(
            COMMAND_FAILED,
            "Names of rooms say nothing of the tenant: in the settings of LHC's extension let rpc_server end in"
            " /t/INSTANCE/rpc, or set rpc_username to the instance and rpc_password to its own key",
        )
    return call.confined_to


@contextmanager
def _no_room(text: str) -> Iterator[None]:
    """Say with this text that there is no such room."""
    try:
        yield
    except NoRoomError:
        raise RpcError(COMMAND_FAILED, text) from None


def _person(call: Call, key: str, jid: str | None = None) -> Participant:
    jid = call.text(key) if jid is None else jid
    username = local_part(jid, call.host, key)
    return rooms.person(call.services.naming, _instance_name(call), username, key)
