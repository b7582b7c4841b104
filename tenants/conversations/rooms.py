"""Rooms: group chats of a tenant's operators, who are there with XMPP clients or in LHC's page.

A room's row comes first and goes last, so a crash leaves nothing in ejabberd that the registry does not know. What of
it is said in ejabberd comes through the bridge; what is written in LHC's page goes to the tenant's shard, as visitors'
messages do.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.conversations import stanza_ids
from tenants.core.errors import ConflictError, ForeignNameError, InvalidInputError, NotFoundError, TakenError
from tenants.core.naming import (
    AccountKind,
    Naming,
    RoomName,
    check_direction,
    fold_page_operator,
    fold_room,
    is_page_operator,
    mend_nick,
    page_operator_of,
    rooms_service,
)
from tenants.core.text import clean
from tenants.ejabberd.client import Ejabberd
from tenants.ejabberd.errors import NotAppliedError
from tenants.lifecycle import admission, hosts
from tenants.process.services import Services
from tenants.shards.commands import SendToRoom
from tenants.store.database import Database, rows_changed
from tenants.store.models import (
    ROOMS_BY_DEFAULT,
    Account,
    AccountState,
    Operator,
    Room,
    RoomMember,
    RoomOrigin,
    RoomState,
)

log = structlog.get_logger(__name__)

MAX_MEMBERS = 200
"""Members of a room; mod_muc takes as many into one."""
MAX_NICK = 200
MAX_BODY = 30_000
"""Bytes of a message: a room keeps its latest ones in ejabberd's memory."""


class NoRoomError(NotFoundError):
    """The tenant has no such room."""


class NoAccountError(NotFoundError):
    """The tenant has no operator of that name."""


@dataclass(frozen=True, slots=True)
class Participant:
    """Who is meant by a name in a tenant's call.

    Attributes:
        username: as members are kept: an operator's account, or `[name].operator`.
        page_name: the name under which the person writes in LHC's page.
        nick: the name to be shown when none was given.
    """

    username: str
    page_name: str
    nick: str

    @property
    def has_account(self) -> bool:
        """Whether the person can be there with a client, and be invited."""
        return self.username != self.page_name


def person(naming: Naming, instance_name: str, username: str, field: str = "user") -> Participant:
    """Read a local part: an operator's account of that tenant, or somebody who writes in its LHC's page.

    Raises:
        ForeignNameError: an account of another tenant.
        InvalidInputError: it is nobody's name, or a visitor's.
    """
    if is_page_operator(username):
        folded = fold_page_operator(username, field)
        shown = username[: -len(page_operator_of(""))].replace(".", " ").strip()
        return Participant(folded, folded, _as_shown(shown) or folded)
    account = naming.parse_username(username, field)
    if account.kind is not AccountKind.OPERATOR:
        raise InvalidInputError(field, "must be an operator")
    if account.instance != instance_name:
        raise ForeignNameError(field, f"must be of '{instance_name}'")
    return Participant(naming.username(account), page_operator_of(account.ident), account.ident)


async def create(
    services: Services, instance_name: str, name: str, origin: RoomOrigin, *, title: str | None = None
) -> Room:
    """Make a room, in the registry and in ejabberd.

    Raises:
        InvalidInputError: a room cannot be named so.
        TakenError: the tenant has a room of that name.
        ConflictError: the tenant is shut or has as many as it may have; or the room is just being removed.
        EjabberdUnavailableError: to be asked once more; the reconciliation will make it otherwise.
    """
    name = fold_room(name)
    title = clean(title) if title else name
    local = check_direction(services.naming.room(RoomName(name, instance_name)))
    room_id = await _begin(services, instance_name, name, title, origin)
    await _make(await hosts.ejabberd_of(services, instance_name), local, title)
    async with services.database.write() as session:
        made = await session.execute(
            update(Room)
            .where(Room.id == room_id, Room.state == RoomState.PENDING)
            .values(state=RoomState.ACTIVE, changed_at=services.clock())
        )
    if not rows_changed(made):
        # somebody else has made it, or the tenant ends: then whoever ends it looks once more at what ejabberd has
        log.info("room was made or removed meanwhile", instance_name=instance_name)
    return await get(services.database, instance_name, name)


async def _begin(services: Services, instance_name: str, name: str, title: str, origin: RoomOrigin) -> int:
    """The id of the row, which is new, or of a creation that was not finished."""
    now = services.clock()
    async with services.database.write() as session:
        # alone: two at once could be one more than it may have
        tenant = await admission.hold(session, instance_name, None, alone=True)
        room = await session.scalar(of_name(instance_name, name))
        if room is None:
            count = await session.scalar(
                select(func.count()).select_from(Room).where(Room.instance_name == instance_name)
            )
            most = ROOMS_BY_DEFAULT if tenant.max_rooms is None else tenant.max_rooms
            if (count or 0) >= most:
                raise ConflictError(f"tenant '{instance_name}' has {most} rooms, as many as it may have")
            room = Room(
                instance_name=instance_name,
                name=name,
                title=title,
                origin=origin,
                state=RoomState.PENDING,
                created_at=now,
                changed_at=now,
                members=[],
            )
            session.add(room)
            await session.flush()
        elif room.state is RoomState.ACTIVE:
            raise TakenError("Room already exists")
        elif room.state is RoomState.REMOVING:
            raise ConflictError(f"room '{name}' is being removed; try again in a moment")
        return room.id


async def _make(ejabberd: Ejabberd, local: str, title: str) -> None:
    if await ejabberd.rooms.make({local: title}):
        raise NotAppliedError("lhc_make_rooms", 0, f"{local} could not be made")


async def get(database: Database, instance_name: str, name: str) -> Room:
    """The room with its members.

    Raises:
        InvalidInputError: no room is named so.
        NoRoomError: the tenant has no such room.
    """
    async with database.read() as session:
        return await _get(session, instance_name, fold_room(name))


async def find(database: Database, instance_name: str, *, after: int = 0, limit: int = ROOMS_BY_DEFAULT) -> list[Room]:
    """The tenant's rooms with their members, oldest first."""
    async with database.read() as session:
        rows = await session.scalars(
            select(Room)
            .where(Room.instance_name == instance_name, Room.state == RoomState.ACTIVE, Room.id > after)
            .order_by(Room.id)
            .limit(limit)
        )
        return list(rows)


def address(services: Services, room: Room, host: str) -> str:
    """The room's JID, on the tenant's host."""
    return f"{services.naming.room(RoomName(room.name, room.instance_name))}@{rooms_service(host)}"


async def put_member(
    database: Database, instance_name: str, name: str, who: Participant, nick: str | None = None
) -> RoomMember:
    """Note who is to be in the room, under what name; one who is noted already gets the name.

    What cannot be a name in a room is mended, or as if none was given.

    Raises:
        InvalidInputError: no room is named so.
        NotFoundError: there is no such tenant, room (NoRoomError) or account (NoAccountError).
        ConflictError: the tenant is shut; or the room has as many members as it may have.
    """
    name = fold_room(name)
    async with database.write() as session:
        await admission.hold(session, instance_name, None)
        room = await _get(session, instance_name, name, lock=True)
        if who.has_account:
            await _check_account(session, who)
        nick = _as_shown(nick or "") or await _nick_of(session, who)
        member = next((member for member in room.members if member.username == who.username), None)
        if member is None:
            if len(room.members) >= MAX_MEMBERS:
                raise ConflictError(f"room '{name}' has {MAX_MEMBERS} members, as many as it may have")
            member = RoomMember(room_id=room.id, username=who.username, nick=nick)
            session.add(member)
        member.nick = nick
    return member


async def remove_member(database: Database, instance_name: str, name: str, who: Participant) -> None:
    """The person is no member any more; one who was none is a success.

    Raises:
        NoRoomError: the tenant has no such room.
    """
    async with database.write() as session:
        room = await _get(session, instance_name, fold_room(name))
        await session.execute(
            delete(RoomMember).where(RoomMember.room_id == room.id, RoomMember.username == who.username)
        )


async def invite(
    services: Services, instance_name: str, name: str, people: Iterable[Participant], reason: str = ""
) -> None:
    """Invite those who have accounts and are not there (XEP-0249).

    Raises:
        InvalidInputError: no room is named so.
        ConflictError: the tenant is shut.
        NotFoundError: there is no such tenant, room (NoRoomError) or account (NoAccountError).
    """
    await admission.get(services, instance_name)
    room = await get(services.database, instance_name, name)
    invited = [one for one in people if one.has_account]
    async with services.database.read() as session:
        for one in invited:
            await _check_account(session, one)
    local = services.naming.room(RoomName(room.name, room.instance_name))
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    await ejabberd.rooms.invite(local, [one.username for one in invited], clean(reason))


async def write(
    services: Services, instance_name: str, name: str, who: Participant, body: str, *, message_id: str | None = None
) -> str:
    """Say something in the room that was written in LHC's page. Returns the message's id.

    It bears the name that the person has in the room. It is not told to LHC: it comes from there. An empty body is
    accepted, and nothing is said.

    Raises:
        InvalidInputError: no room is named so, or the message is too long.
        ConflictError: the tenant is shut.
        NotFoundError: there is no such tenant, room (NoRoomError) or account (NoAccountError).
        QueueUnavailableError: it could not be accepted.
    """
    tenant = await admission.get(services, instance_name)
    message_id = message_id or uuid.uuid4().hex
    if not body:
        return message_id
    if len(body.encode()) > MAX_BODY:
        raise InvalidInputError("message", f"must be of {MAX_BODY:,} bytes at most in a room")
    room = await get(services.database, instance_name, name)
    members = {member.username: member.nick for member in room.members}
    async with services.database.read() as session:
        if who.has_account:
            await _check_account(session, who)
        nick = _as_shown(members.get(who.username, "")) or await _nick_of(session, who)
    await services.commands.publish(
        SendToRoom(
            instance_name=instance_name,
            incarnation=tenant.incarnation,
            room=services.naming.room(RoomName(room.name, room.instance_name)),
            sender=services.naming.page_operator(who.page_name, instance_name),
            nick=nick,
            body=body,
            message_id=stanza_ids.of_room_message(room, message_id),
        )
    )
    return message_id


async def destroy(services: Services, instance_name: str, name: str) -> None:
    """Remove the room, in ejabberd and in the registry; who is in it is told.

    Raises:
        InvalidInputError: no room is named so.
        NoRoomError: the tenant has no such room.
        EjabberdUnavailableError: to be asked once more; the reconciliation will remove it otherwise.
    """
    name = fold_room(name)
    async with services.database.write() as session:
        room = await session.scalar(of_name(instance_name, name).with_for_update())
        if room is None:
            raise _unknown(instance_name, name)
        room.state, room.changed_at = RoomState.REMOVING, services.clock()
    await finish_removal(services, instance_name, [room])


async def finish_removal(services: Services, instance_name: str, found: Sequence[Room]) -> list[str]:
    """Remove the tenant's rooms that are marked as such. Returns the local parts of those that ejabberd still has."""
    locals_of = {services.naming.room(RoomName(room.name, room.instance_name)): room.id for room in found}
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    left = await ejabberd.rooms.remove(list(locals_of))
    gone = [room_id for local, room_id in locals_of.items() if local not in left]
    async with services.database.write() as session:
        await session.execute(delete(Room).where(Room.id.in_(gone), Room.state == RoomState.REMOVING))
    return left


async def remove_all(services: Services, instance_name: str, names: Sequence[str]) -> list[str]:
    """Remove all rooms of the tenant, by their local parts, and its rows. Returns those that are left."""
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    left = await ejabberd.rooms.remove(names)
    async with services.database.write() as session:
        await session.execute(delete(Room).where(Room.instance_name == instance_name))
    return left


async def mend(services: Services, instance_name: str, local: str) -> str | None:
    """Bring a room into the state that the registry says. Returns why that failed.

    A creation or removal that was given up by who began it is finished; a room that the registry does not know goes.
    """
    room = services.naming.parse_room(local)
    ejabberd = await hosts.ejabberd_of(services, instance_name)
    async with services.database.write() as session:
        row = await session.scalar(of_name(instance_name, room.name).with_for_update())
        if row is not None and row.state is RoomState.PENDING:
            row.state, row.changed_at = RoomState.ACTIVE, services.clock()
    if row is None or row.state is RoomState.REMOVING:
        left = await (ejabberd.rooms.remove([local]) if row is None else finish_removal(services, instance_name, [row]))
        return "is there all the same" if left else None
    missing = await ejabberd.rooms.make({local: row.title})
    return "could not be made" if missing else None


async def _get(session: AsyncSession, instance_name: str, name: str, *, lock: bool = False) -> Room:
    query = of_name(instance_name, name)
    room = await session.scalar(query.with_for_update() if lock else query)
    if room is None or room.state is not RoomState.ACTIVE:
        raise _unknown(instance_name, name)
    return room


def _unknown(instance_name: str, name: str) -> NoRoomError:
    return NoRoomError(f"tenant '{instance_name}' has no room '{name}'")


def of_name(instance_name: str, name: str) -> Select[Room]:
    """The statement that finds the tenant's room of that (folded) name."""
    return select(Room).where(Room.instance_name == instance_name, Room.name == name)


async def _check_account(session: AsyncSession, who: Participant) -> None:
    account = await session.get(Account, who.username)
    if account is None or account.state is not AccountState.ACTIVE:
        raise NoAccountError(f"there is no account '{who.username}'")


async def _nick_of(session: AsyncSession, who: Participant) -> str:
    operator = await session.get(Operator, who.username)
    return _as_shown((operator.nick if operator else None) or "") or who.nick


def _as_shown(nick: str) -> str | None:
    return mend_nick(clean(nick).strip()[:MAX_NICK])
