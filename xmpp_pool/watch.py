"""Watches operators: who is online, told by the bridge module and by pings, for the announcer and for LHC."""

import asyncio
import time
from collections.abc import Callable

import structlog
from slixmpp import JID, Presence
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from tenants import callbacks
from tenants.errors import DomainError, InvalidInputError
from tenants.models import Account
from tenants.naming import AccountKind, AccountName
from tenants.services import Services
from xmpp_pool.announcer import Announcer
from xmpp_pool.gateway import Gateway, StreamLostError
from xmpp_pool.operators import Connection, OperatorDirectory

log = structlog.get_logger(__name__)

_LIMIT = 20_000
"""Presence changes waiting at most; beyond it the stream is dropped, and the picture read anew."""
_PINGS_AT_ONCE = 500


class OperatorWatch:
    """Keeps the directory true. Changes are handled one after another, in the order in which they were reported."""

    def __init__(
        self,
        services: Services,
        gateway: Gateway,
        announcer: Announcer,
        operators: OperatorDirectory,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._gateway = gateway
        self._announcer = announcer
        self._operators = operators
        self._monotonic = monotonic
        self._changes: asyncio.Queue[tuple[JID, bool] | asyncio.Future[None]] = asyncio.Queue(_LIMIT)
        self._ping_gate = asyncio.Semaphore(_PINGS_AT_ONCE)

    def report(self, presence: Presence) -> None:
        """Queue what the bridge module reports."""
        if presence["type"] in {"available", "away", "chat", "dnd", "xa", "unavailable"}:
            self._queue(presence["from"], available=presence["type"] != "unavailable")

    async def resync(self) -> None:
        """Read from ejabberd who is online, and put everything right; after each (re)connect.

        Raises:
            DomainError: ejabberd could not be asked.
            DBAPIError: the registry could not be asked.
            StreamLostError: the stream ended meanwhile.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._changes.put(done)
        await done

    async def run(self) -> None:
        """Handle changes; until cancelled."""
        while True:
            change = await self._changes.get()
            if isinstance(change, asyncio.Future):
                try:
                    await self._read_picture()
                    change.set_result(None)
                except (StreamLostError, DomainError, DBAPIError) as error:
                    change.set_exception(error)
                continue
            try:
                await self._change(*change)
            except (StreamLostError, DBAPIError) as error:
                log.warning("presence change not handled, reading the picture anew", error=type(error).__name__)
                self._gateway.abort()

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
                    if connection.next_ping_at <= now:
                        connection.next_ping_at = now + self._services.settings.operator_ping_seconds
                        pings.create_task(self._ping(instance_name, username, connection.jid))

    async def _change(self, jid: JID, available: bool) -> None:
        name = self._operator_name(jid)
        if name is None:
            return
        username = self._services.naming.username(name)
        if not available:
            if self._operators.remove(name.instance, username, jid.full):
                await callbacks.operator_changed(self._services, name, online=False)
            return
        if username in await self._registered({username}):
            new, first = self._operators.add(name.instance, username, self._connection(jid.full))
            if new:
                self._announcer.show_all(name.instance, jid.full)
            if first:
                await callbacks.operator_changed(self._services, name, online=True)

    async def _read_picture(self) -> None:
        connected = await self._services.ejabberd.client_sessions()
        names: dict[str, AccountName] = {}
        jids: list[tuple[str, JID]] = []
        for client in connected:
            jid = JID(client.jid)
            name = self._operator_name(jid)
            if client.available and name is not None:
                username = self._services.naming.username(name)
                names[username] = name
                jids.append((username, jid))
        registered = await self._registered(set(names))
        self._operators.clear()
        for username, jid in jids:
            if username in registered:
                self._operators.add(names[username].instance, username, self._connection(jid.full))
        for presence in await callbacks.online_operators(self._services):
            if presence.username not in self._operators.usernames():
                gone = self._services.naming.parse_username(presence.username)
                await callbacks.operator_changed(self._services, gone, online=False)
        for username in self._operators.usernames():
            await callbacks.operator_changed(self._services, names[username], online=True)
        for instance_name, _, connection in self._operators.connections():
            self._announcer.show_all(instance_name, connection.jid)
        log.info("operators online", count=len(self._operators.usernames()), visitors=self._announcer.session_count)

    async def _ping(self, instance_name: str, username: str, jid: str) -> None:
        settings = self._services.settings
        sender = f"{instance_name}@{settings.component_jid}"
        async with self._ping_gate:
            try:
                answered = await self._gateway.ping(sender, jid, settings.operator_ping_timeout)
                name = self._services.naming.parse_username(username)
                if answered:
                    await callbacks.operator_answered(self._services, name, jid)
                    return
                log.info("operator does not answer, disconnected", instance_name=instance_name)
                await self._services.ejabberd.kick(username, JID(jid).resource, "No answer to a ping")
            except StreamLostError:
                return
            except (DomainError, DBAPIError) as error:
                log.warning("ping not handled", instance_name=instance_name, error=type(error).__name__)
                return
        self._queue(JID(jid), available=False)

    def _queue(self, jid: JID, *, available: bool) -> None:
        try:
            self._changes.put_nowait((jid, available))
        except asyncio.QueueFull:
            log.error("too many presence changes wait, reading the picture anew", limit=_LIMIT)  # noqa: TRY400 - no traceback worth having
            self._gateway.abort()

    def _operator_name(self, jid: JID) -> AccountName | None:
        if jid.domain != self._services.settings.xmpp_host or not jid.local:
            return None
        try:
            name = self._services.naming.parse_username(jid.local)
        except InvalidInputError:
            return None
        return name if name.kind is AccountKind.OPERATOR else None

    async def _registered(self, usernames: set[str]) -> set[str]:
        """Those that the registry knows as operators: ejabberd may have accounts of others."""
        async with self._services.database.read() as session:
            rows = await session.scalars(
                select(Account.username).where(Account.username.in_(usernames), Account.kind == AccountKind.OPERATOR)
            )
            return set(rows)

    def _connection(self, jid: str) -> Connection:
        return Connection(jid, next_ping_at=self._monotonic() + self._services.settings.operator_ping_seconds)
