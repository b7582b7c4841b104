"""Watches which operators are online, by the bridge module's reports and by pings.

The bridge module tells every pool process of every operator, so each process knows them all, and can take over a shard
without asking. Only the process that serves an operator's tenant acts: it shows visitors, pings, and tells LHC.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from slixmpp import JID, Presence

from tenants.accounts import operators
from tenants.conversations import chats, operator_presence
from tenants.core.errors import DomainError, InvalidInputError
from tenants.core.naming import AccountKind, AccountName
from tenants.ejabberd.client import AWAY
from tenants.process.leases import LeaseLostError
from tenants.process.services import Services
from tenants.shards.commands import shard_of
from tenants.store.database import DATABASE_AWAY
from xmpp_pool.announcer import Announcer
from xmpp_pool.gateway import Gateway
from xmpp_pool.operator_directory import Connection, OperatorDirectory
from xmpp_pool.shards import Shards
from xmpp_pool.stream import StreamLostError

log = structlog.get_logger(__name__)

_LIMIT = 20_000
"""Changes at most that wait. Beyond that the stream is dropped, and ejabberd is asked anew who is online."""
_PINGS_AT_ONCE = 500


class OperatorWatch:
    """Keeps the directory up to date. Changes are handled one after another, in the order in which they came."""

    def __init__(
        self,
        services: Services,
        gateway: Gateway,
        announcer: Announcer,
        operators: OperatorDirectory,
        shards: Shards,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._gateway = gateway
        self._announcer = announcer
        self._operators = operators
        self._shards = shards
        self._monotonic = monotonic
        self._work: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(_LIMIT)
        self._ping_gate = asyncio.Semaphore(_PINGS_AT_ONCE)

    def report(self, presence: Presence, node: str) -> None:
        """Queue what the bridge module of a node reports."""
        if presence["type"] in {"available", "away", "chat", "dnd", "xa", "unavailable"}:
            jid, show = presence["from"], presence["type"]
            gone = show == "unavailable"
            connection = self._connection(jid, presence["priority"], node, away=show in AWAY)
            self._queue_change(jid, node, None if gone else connection)

    def node_down(self, node: str) -> None:
        """Queue the end of all connections that the node had."""
        self._queue(partial(self._end_all_at, node))

    async def resync(self) -> None:
        """Ask ejabberd who is online, and put everything right. To be called after each (re)connect.

        Raises:
            DomainError: ejabberd could not be asked.
            DATABASE_AWAY: the registry could not be asked.
            StreamLostError: the stream ended meanwhile.
        """
        await self._in_turn(self._read_picture)

    async def take_up(self, shards: set[int]) -> None:
        """Begin to act for the tenants of these shards: tell LHC what it does not know, and operators who is there.

        Raises:
            DATABASE_AWAY: the registry could not be asked.
            StreamLostError: the stream ended meanwhile.
        """
        shard_count = self._services.settings.shard_count
        await self._in_turn(partial(self._act_for, lambda name: shard_of(name, shard_count) in shards))

    async def run(self) -> None:
        """Handle changes, one after another; until cancelled."""
        while True:
            work = await self._work.get()
            try:
                await work()
            except (StreamLostError, *DATABASE_AWAY) as error:
                log.warning("presence change not handled, reading the picture anew", error=type(error).__name__)
                self._gateway.abort()

    async def _in_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work after the changes that were reported before it, and before those after it."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def do() -> None:
            try:
                await work()
            except (StreamLostError, DomainError, *DATABASE_AWAY) as error:
                outcome: Exception | None = error
            else:
                outcome = None
            if done.cancelled():
                return
            if outcome is None:
                done.set_result(None)
            else:
                done.set_exception(outcome)

        await self._work.put(do)
        await done

    async def ping_forever(self) -> None:
        """Ping each connection at the interval; until cancelled."""
        pause = min(1.0, self._services.settings.operator_ping_seconds / 4)
        async with asyncio.TaskGroup() as pings:
            while True:
                await asyncio.sleep(pause)
                if not self._gateway.established:
                    continue
                now = self._monotonic()
                for instance_name, username, connection in self._operators.connections():
                    if connection.next_ping_at <= now and self._shards.serves(instance_name):
                        connection.next_ping_at = now + self._services.settings.operator_ping_seconds
                        pings.create_task(self._ping(instance_name, username, connection.jid, connection.node))

    async def _end_all_at(self, node: str) -> None:
        for _, _, connection in self._operators.connections():
            if connection.node == node:
                await self._change(JID(connection.jid), node, None)

    async def _change(self, jid: JID, node: str, connection: Connection | None) -> None:
        """A connection at that node is as it says from now on; None: it is gone, or no longer available."""
        name = self._operator_name(jid)
        if name is None:
            return
        username = self._services.naming.username(name)
        was_online, is_new, came_back = self._operators.is_online(name.instance, username), False, False
        if connection is None:
            self._operators.remove(name.instance, username, jid.full, node)
        elif await self._is_home(username, jid.domain):
            is_new, came_back = self._operators.put(name.instance, username, connection)
        if not self._shards.serves(name.instance):
            return
        if is_new:
            self._announcer.show_all(name.instance, jid.full)
        is_online = self._operators.is_online(name.instance, username)
        if is_online != was_online:
            await self._tell_lhc(name, online=is_online)
            if is_online:
                await chats.operator_came(self._services.wake, name)
        elif is_online and came_back:
            await self._tell_lhc(name, online=True, again=True)

    async def _is_home(self, username: str, host: str) -> bool:
        """Whether it is an operator of a tenant that lives on that host."""
        return (await operators.homes_of(self._services.database, {username})).get(username) == host

    async def _read_picture(self) -> None:
        connected = await self._services.ejabberd.client_sessions()
        names: dict[str, AccountName] = {}
        connections: list[tuple[str, Connection]] = []
        for client in connected:
            jid = JID(client.jid)
            name = self._operator_name(jid)
            if client.available and name is not None and not self._gateway.is_down(client.node):
                username = self._services.naming.username(name)
                names[username] = name
                connections.append((username, self._connection(jid, client.priority, client.node, away=client.away)))
        homes = await operators.homes_of(self._services.database, names)
        self._operators.clear()
        for username, connection in connections:
            if homes.get(username) == JID(connection.jid).domain:
                self._operators.put(names[username].instance, username, connection)
        log.info("operators online", count=len(self._operators.usernames()))
        await self._act_for(self._shards.serves)

    async def _act_for(self, ours: Callable[[str], bool]) -> None:
        """For these tenants: tell LHC where it is wrong about who is online, and show visitors to all who are."""
        online = self._operators.usernames()
        believed = {
            one.username
            for one in await operator_presence.online_operators(self._services.database)
            if ours(one.instance_name)
        }
        for username in believed - online:
            await self._tell_lhc(self._services.naming.parse_username(username), online=False)
        for username in online:
            name = self._services.naming.parse_username(username)
            if ours(name.instance) and username not in believed:
                await self._tell_lhc(name, online=True)
        for instance_name, _, connection in self._operators.connections():
            if ours(instance_name):
                self._announcer.show_all(instance_name, connection.jid)

    async def _tell_lhc(self, name: AccountName, *, online: bool, again: bool = False) -> None:
        lease = self._shards.lease_of(name.instance)
        if lease is None:
            return
        try:
            await operator_presence.operator_changed(self._services, name, online=online, again=again, lease=lease)
        except LeaseLostError:
            log.info("left to who serves the tenant now", instance_name=name.instance)

    async def _ping(self, instance_name: str, username: str, jid: str, node: str) -> None:
        settings = self._services.settings
        async with self._ping_gate:
            try:
                answered = await self._gateway.ping(instance_name, jid, node, settings.operator_ping_timeout)
                if answered is None:
                    answered = await self._is_connected(username, jid)
                name = self._services.naming.parse_username(username)
                if answered:
                    await operator_presence.operator_answered(self._services, name, jid)
                    return
                log.info("operator does not answer, disconnected", instance_name=instance_name)
                gone = JID(jid)
                await self._services.ejabberd.at(gone.domain).kick(username, gone.resource, "No answer to a ping")
            except StreamLostError:
                return
            except (DomainError, *DATABASE_AWAY) as error:
                log.warning("ping not handled", instance_name=instance_name, error=type(error).__name__)
                return
        self._queue_change(JID(jid), node, None)

    async def _is_connected(self, username: str, jid: str) -> bool:
        asked = JID(jid)
        connections = await self._services.ejabberd.at(asked.domain).connections(username)
        return any(connection.resource == asked.resource for connection in connections)

    def _queue_change(self, jid: JID, node: str, connection: Connection | None) -> None:
        self._queue(partial(self._change, jid, node, connection))

    def _queue(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            self._work.put_nowait(work)
        except asyncio.QueueFull:
            log.error("too many presence changes wait, reading the picture anew", limit=_LIMIT)  # noqa: TRY400 - no traceback worth having
            self._gateway.abort()

    def _operator_name(self, jid: JID) -> AccountName | None:
        if not jid.local:
            return None
        try:
            name = self._services.naming.parse_username(jid.local)
        except InvalidInputError:
            return None
        return name if name.kind is AccountKind.OPERATOR else None

    def _connection(self, jid: JID, priority: int, node: str, *, away: bool) -> Connection:
        next_ping_at = self._monotonic() + self._services.settings.operator_ping_seconds
        return Connection(jid.full, next_ping_at, priority, away, node)
