"""ejabberd's admin commands, in the few shapes that we use.

Facts this rests on: an answer of 200 does not mean that anything happened (`srg_create` over an
existing group), so what matters is read back. From 24.02 the unversioned calls mean the newest version of a command and
take lists; the client asks for the version. What answers look like in which version: `tenants.ejabberd.answers`.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from config.ejabberd_versions import Version, read_version
from tenants.ejabberd import answers
from tenants.ejabberd.admin_api import AdminApi
from tenants.ejabberd.bulk import BulkCommands
from tenants.ejabberd.errors import (
    EjabberdError,
    EjabberdUnavailableError,
    NoSessionError,
    NotAppliedError,
    PasswordRefusedError,
)
from tenants.ejabberd.rooms import RoomCommands

_RELOAD_SECONDS = 30.0
_BACKUP_SECONDS = 600.0
_MOVE_SECONDS = 6 * 3600.0
_LISTS_SINCE = (24, 2)
_LABEL_SINCE = (21, 7)
_NOT_THERE = ("unavailable", "offline")
"""What ejabberd says of a connection that has sent no available presence, and of one that ends just now."""
BRIDGE_VERSION = "13"
"""The version of the bridge module that this code works with: `VERSION` in `config/ejabberd/lhc_bridge_admin.erl`."""
AWAY = frozenset({"away", "xa", "dnd"})
"""What an available presence says of somebody who is not at hand (`show`; RFC 6121, 4.7.2.1)."""


@dataclass(frozen=True, slots=True)
class Roster:
    """A shared roster group as ejabberd holds it. `displayed`: names of groups, sorted."""

    label: str
    description: str
    displayed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """A connection of one user.

    Attributes:
        show: as in RFC 6121 (4.7.2.1), or `available`.
        seconds: its age.
        transport: `c2s`, `c2s_tls`, `websocket`, ..: how ejabberd calls it.
    """

    resource: str
    show: str
    status: str
    seconds: int
    transport: str
    ip: str
    port: int
    priority: int
    node: str

    @property
    def is_available(self) -> bool:
        """Whether it gets messages: it has sent presence, of a priority that is not below zero (RFC 6121, 4.7.2.3)."""
        return self.show not in _NOT_THERE and self.priority >= 0


@dataclass(frozen=True, slots=True)
class Listener:
    """Where ejabberd listens for clients; `tls` from the first byte."""

    ip: str
    port: int
    tls: bool


@dataclass(frozen=True, slots=True)
class ClientSession:
    """A connected client: the full JID, and what it has said of itself.

    Attributes:
        available: it has sent available presence (RFC 6121, 4.2).
        away: it is away by that.
        priority: that presence's.
        node: of ejabberd's cluster, which has the connection.
    """

    jid: str
    available: bool
    away: bool
    priority: int
    node: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of ejabberd's cluster.

    Attributes:
        name: as in `ejabberd@a`.
        waiting: messages that wait there for the pool, as it said last when it is down; None: nobody knows.
        connections: of the component.
        bridge: the version of its bridge module.
    """

    name: str
    is_up: bool
    waiting: int | None
    connections: int
    bridge: str


class Ejabberd:
    """The admin client of one virtual host; safe to share between tasks of one event loop.

    Attributes:
        bulk: the commands that take many names at once.
        rooms: the commands for group chats.
    """

    def __init__(self, api_url: str, host: str, secret: str, *, other_urls: Sequence[str] = ()) -> None:
        self.host = host
        self._api = AdminApi([api_url, *other_urls], host, secret)
        self._call = self._api.call
        self.bulk = BulkCommands(self._call, host)
        self.rooms = RoomCommands(self._call, host)

    async def close(self) -> None:
        await self._api.close()

    def at(self, host: str) -> Self:
        """The admin client of another virtual host, by the same connections."""
        if host == self.host:
            return self
        there = copy(self)
        there.host = host
        there.bulk, there.rooms = BulkCommands(self._call, host), RoomCommands(self._call, host)
        return there

    async def version(self) -> Version:
        """Ejabberd's version as (year, release). Another one may run by tomorrow.

        Raises:
            EjabberdUnavailableError: it cannot be reached.
            EjabberdError: the answer names no version.
        """
        text = str(await self._call("status"))
        version = read_version(text)
        if version is None:
            raise EjabberdError("status", 0, f"no version in {text[:200]!r}")
        return version

    async def asks_for_secret(self) -> bool:
        """Whether the admin API refuses those who know no secret.

        Raises:
            EjabberdUnavailableError: it cannot be reached.
        """
        return await self._api.asks_for_secret()

    async def bridge_version(self) -> str | None:
        """Which version of our bridge module is loaded (`lhc_bridge_version`); None when it is not.

        Raises:
            EjabberdUnavailableError: ejabberd cannot be reached.
        """
        try:
            return str(answers.single(await self._call("lhc_bridge_version"), "version"))
        except EjabberdUnavailableError:
            raise
        except EjabberdError:
            return None

    async def bridge_made_for(self) -> str:
        """Which version of ejabberd the loaded bridge module was compiled for (`lhc_bridge_made_for`)."""
        return str(answers.single(await self._call("lhc_bridge_made_for"), "version"))

    async def virtual_hosts(self) -> set[str]:
        """Which virtual hosts there are now (`registered_vhosts`)."""
        return {str(name) for name in await self._call("registered_vhosts")}

    async def reload(self) -> None:
        """Let every node read its configuration again (`reload_config`): hosts come and go by that."""
        await self._api.call_each("reload_config", seconds=_RELOAD_SECONDS)

    async def backup(self, file: str) -> None:
        """Write all that it keeps in Mnesia to a file of the machine that it runs on (`backup`)."""
        await self._call("backup", seconds=_BACKUP_SECONDS, file=file)

    async def client_listeners(self) -> list[Listener]:
        """Where clients log in over TCP (`lhc_client_listeners` of the bridge)."""
        answer = await self._call("lhc_client_listeners")
        return [Listener(ip=str(one["ip"]), port=int(one["port"]), tls=one["tls"] == "true") for one in answer]

    async def nodes(self) -> list[Node]:
        """The nodes of its cluster, of which there may be one (`lhc_nodes` of the bridge)."""
        return [
            Node(
                name=str(one["name"]),
                is_up=one["state"] == "up",
                waiting=None if int(one["waiting"]) < 0 else int(one["waiting"]),
                connections=int(one["connections"]),
                bridge=str(one["version"]),
            )
            for one in await self._call("lhc_nodes", host=self.host)
        ]

    async def storages(self) -> dict[str, str]:
        """Where each kind of what ejabberd keeps is kept (`lhc_storages` of the bridge)."""
        answer = await self._call("lhc_storages", host=self.host)
        return {str(one["kind"]): str(one["place"]) for one in answer}

    async def move_storage(self, target: str) -> dict[str, int]:
        """Move everything into the other storage, `sql` or `mnesia`; how many of each kind (`lhc_move_storage`).

        ejabberd serves nobody from then on, and is to be started with that storage.

        Raises:
            EjabberdError: it was not moved, and says why: everything is where it was, when ejabberd is started again.
        """
        answer = await self._call("lhc_move_storage", seconds=_MOVE_SECONDS, storage=target)
        return {str(one["kind"]): int(one["count"]) for one in answer}

    async def register(self, user: str, password: str) -> None:
        """Create the account (`register`).

        Raises:
            UserExistsError: the username is taken.
            PasswordRefusedError: the password cannot be one.
        """
        _check_text("register", password)
        await self._call("register", user=user, host=self.host, password=password)

    async def change_password(self, user: str, password: str) -> None:
        """Set the password (`change_password`).

        Raises:
            UserUnknownError: there is no such user.
            PasswordRefusedError: the password cannot be one.
        """
        _check_text("change_password", password)
        await self._call("change_password", user=user, host=self.host, newpass=password)

    async def has_user(self, user: str) -> bool:
        """Whether the account exists (`check_account`, whose answer is 0 for yes)."""
        return bool(await self._call("check_account", user=user, host=self.host) == 0)

    async def check_password(self, user: str, password: str) -> bool:
        """Whether this is the account's password (`check_password`, whose answer is 0 for yes)."""
        try:
            _check_text("check_password", password)
        except PasswordRefusedError:
            return False
        return bool(await self._call("check_password", user=user, host=self.host, password=password) == 0)

    async def create_roster(self, group: str, roster: Roster) -> None:
        """Create the shared roster group, or overwrite it (`srg_create`).

        Raises:
            NotAppliedError: reading back shows something else.
        """
        version = await self.version()
        name = "label" if version >= _LABEL_SINCE else "name"
        arguments: dict[str, Any] = {"group": group, "host": self.host, name: roster.label}
        arguments["description"] = roster.description
        if version >= _LISTS_SINCE:
            await self._call("srg_create/v1", **arguments, display=list(roster.displayed))
        else:
            # version 0 takes one string, its groups separated by a *literal* backslash and n
            await self._call("srg_create", **arguments, display="\\n".join(roster.displayed))
        seen = await self.roster(group)
        if seen != roster:
            raise NotAppliedError("srg_create", 0, f"{group} reads back as {seen}")

    async def roster(self, group: str) -> Roster | None:
        """The shared roster group, or None when there is none (`srg_get_info`)."""
        answer = await self._call("srg_get_info", group=group, host=self.host)
        info = {str(entry["key"]): entry["value"] for entry in answer}
        if not info:
            return None
        return Roster(
            label=answers.text(info.get("label", "")),
            description=answers.text(info.get("description", "")),
            displayed=answers.group_names(info.get("displayed_groups", "")),
        )

    async def delete_roster(self, group: str) -> None:
        """Delete the shared roster group (`srg_delete`); one that is gone already is a success.

        Raises:
            NotAppliedError: it is still there.
        """
        await self._call("srg_delete", group=group, host=self.host)
        if await self.roster(group) is not None:
            raise NotAppliedError("srg_delete", 0, f"{group} is still there")

    async def roster_members(self, group: str) -> list[str]:
        """The local parts of the group's members of this host, sorted (`srg_get_members`)."""
        members = await self._call("srg_get_members", group=group, host=self.host)
        return sorted(
            local for local, _, host in (str(member).partition("@") for member in members) if host == self.host
        )

    async def add_to_roster(self, user: str, group: str) -> None:
        """Make the user a member; operators online get a roster push, again if they had one.

        Not by `srg_user_add`, which computes the whole roster of every operator, online or not: half a second with
        5,000 visitors.

        Raises:
            EjabberdError: there is no such group.
            NotAppliedError: the user is no member all the same.
        """
        if await self.bulk.add_to_roster([user], group):
            raise NotAppliedError("lhc_add_to_rosters", 0, f"{user} is no member of {group}")

    async def remove_from_roster(self, user: str, group: str) -> None:
        """Remove the member; operators online get a roster push. Unknown names are a success.

        Raises:
            NotAppliedError: the user is a member all the same.
        """
        if await self.bulk.remove_from_roster([user], group):
            raise NotAppliedError("lhc_remove_from_rosters", 0, f"{user} is still a member of {group}")

    async def client_sessions(self) -> list[ClientSession]:
        """Every connected client, of all virtual hosts (`connected_users_info`)."""
        answer = await self._call("connected_users_info")
        return [
            ClientSession(
                jid=str(entry["jid"]),
                available=entry["status"] not in _NOT_THERE,
                away=entry["status"] in AWAY,
                priority=int(entry["priority"]),
                node=str(entry["node"]),
            )
            for entry in answer
        ]

    async def connections(self, user: str) -> list[ClientConnection]:
        """The user's connections now (`user_sessions_info`)."""
        answer = await self._call("user_sessions_info", user=user, host=self.host)
        return [
            ClientConnection(
                resource=str(entry["resource"]),
                show=str(entry["status"]),
                status=str(entry["statustext"]),
                seconds=int(entry["uptime"]),
                transport=str(entry["connection"]),
                ip=str(entry["ip"]),
                port=int(entry["port"]),
                priority=int(entry["priority"]),
                node=str(entry["node"]),
            )
            for entry in answer
        ]

    async def failed_logins(self) -> dict[tuple[str, str], int]:
        """How many logins failed since ejabberd's start (`lhc_failed_logins` of the bridge).

        By whose they were, `operator` or `visitor`, and how they ended: `refused`, or `paused`: too many had failed.
        """
        answer = await self._call("lhc_failed_logins", host=self.host)
        return {(str(one["who"]), str(one["outcome"])): int(one["count"]) for one in answer}

    async def present(self, user: str, resource: str, *, nick: str | None, status: str | None) -> None:
        """Let a client session send its presence with another nick or status (`lhc_present` of the bridge).

        None leaves what the client said last. Not by `send_stanza_c2s`, which sends a stanza *to* the client.

        Raises:
            NoSessionError: there is no such session.
        """
        nicks, statuses = ([text] if text is not None else [] for text in (nick, status))
        answer = await self._call(
            "lhc_present", user=user, host=self.host, resource=resource, nick=nicks, status=statuses
        )
        result = str(answers.single(answer, "result"))
        if result != "sent":
            raise NoSessionError("lhc_present", 0, result)

    async def refusals(self) -> dict[str, int]:
        """How much was refused for its size or number since ejabberd began, by kind (`lhc_refusals` of the bridge)."""
        return {str(one["kind"]): int(one["count"]) for one in await self._call("lhc_refusals")}

    async def tell(self, user: str, text: str) -> None:
        """Send the user a message from the host itself, which waits for one who is away (`lhc_tell` of the bridge).

        Not by `send_message`, which lets its caller write in anybody's name.
        """
        await self._call("lhc_tell", user=user, host=self.host, text=text)

    async def kick(self, user: str, resource: str, reason: str) -> None:
        """End one client session (`kick_session`)."""
        await self._call("kick_session", user=user, host=self.host, resource=resource, reason=reason)


def _check_text(command: str, password: str) -> None:
    """Raise PasswordRefusedError for what JSON can hold and UTF-8 cannot: a surrogate without its other half."""
    try:
        password.encode()
    except UnicodeEncodeError:
        raise PasswordRefusedError(command, 0, "the password is no Unicode text") from None
