"""Tells operators of visitors: who comes, changes, writes and goes, by directed presence and messages."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import delete, select, tuple_
from sqlalchemy.exc import DBAPIError

from tenants import admission
from tenants.commands import (
    AnyCommand,
    CloseTenant,
    CloseVisitor,
    SendMessage,
    SendToRoom,
    ShowTyping,
    ShowVisitor,
    shard_of,
)
from tenants.models import Tenant, VisitorSession
from tenants.services import Services
from tenants.visitors import DEFAULT_NICK, RESOURCE
from xmpp_pool import stanzas
from xmpp_pool.gateway import Gateway, StreamLostError
from xmpp_pool.operators import OperatorDirectory
from xmpp_pool.sessions import Session, SessionTable

Thing = TypeVar("Thing")

_NAMES_AT_ONCE = 500
"""Names in one statement; SQLite takes some thousands."""


class Announcer:
    """Carries out commands on the session table and the stream. Every command may come twice."""

    def __init__(
        self, services: Services, gateway: Gateway, operators: OperatorDirectory, serves: Callable[[str], bool]
    ) -> None:
        self._services = services
        self._serves = serves
        self._gateway = gateway
        self._operators = operators
        self._sessions = SessionTable()

    async def load(self, shards: set[int]) -> list[Session]:
        """The sessions of these shards, also those that ended meanwhile: somebody must announce their end."""
        shard_count = self._services.settings.shard_count
        sessions: list[Session] = []
        async with self._services.database.read() as session:
            names = await session.scalars(select(VisitorSession.instance_name).distinct())
            ours = [name for name in names if shard_of(name, shard_count) in shards]
            for chunk in _chunks(ours):
                rows = await session.scalars(select(VisitorSession).where(VisitorSession.instance_name.in_(chunk)))
                sessions += map(_session_of, rows)
        return sessions

    def take_up(self, sessions: list[Session]) -> None:
        """Go on with these sessions."""
        for session in sessions:
            self._sessions.put(session)

    def drop(self, shards: set[int]) -> None:
        """Forget the sessions of these shards, without a word to operators: another process goes on with them."""
        shard_count = self._services.settings.shard_count
        self._sessions.drop({name for name in self._sessions.tenants() if shard_of(name, shard_count) in shards})

    async def carry_out(self, command: AnyCommand) -> None:
        """Carry out one command.

        Raises:
            StreamLostError: to be carried out again on the next stream.
        """
        match command:
            case ShowVisitor():
                self._show(command)
            case SendMessage():
                self._send(command)
            case SendToRoom():
                self._say_in_room(command)
            case ShowTyping():
                self._show_typing(command)
            case CloseVisitor():
                # told whether or not the session is known: the first try may have ended with the stream
                self._sessions.remove(command.instance_name, command.username)
                self._say_unavailable(command.instance_name, command.username)
            case CloseTenant():
                await self._close_tenant(command.instance_name)

    async def expire(self) -> None:
        """Announce the end of sessions whose window is over."""
        now = self._services.clock()
        # who serves no longer says nothing: the sessions are another's now
        ended = [session for session in self._sessions.remove_expired(now) if self._serves(session.instance_name)]
        if not ended:
            return
        gone = await self._keep_prolonged(ended, now)
        await self._say_gone(gone)
        for returned in await self._forget([session.username for session in gone], now):
            self._announce(returned)

    async def close_refused(self) -> None:
        """End the sessions whose tenant was shut, or lost the feature, since their page view was accepted.

        Who shuts a tenant closes its sessions too; but a command that was on its way then comes after that.
        """
        refused = [session for tenant in await self._limited_tenants() for session in self._refused_by(tenant)]
        if not refused:
            return
        for session in refused:
            self._sessions.remove(session.instance_name, session.username)
        await self._say_gone(refused)
        # another version is of a later page view: accepted before and still to be refused, or accepted again
        row = tuple_(VisitorSession.username, VisitorSession.version)
        for chunk in _chunks([(session.username, session.version) for session in refused]):
            async with self._services.database.write() as transaction:
                await transaction.execute(delete(VisitorSession).where(row.in_(chunk)))

    def show_all(self, instance_name: str, jid: str) -> None:
        """Show an operator who has just come online all visitors that are."""
        for session in self._sessions.of_tenant(instance_name):
            payload = stanzas.available_payload(session.nick, session.status)
            self._gateway.send(stanzas.available(self._jid(session.username), jid, payload))

    def _show(self, command: ShowVisitor) -> None:
        if command.online_until <= self._services.clock():
            return  # it waited too long in the queue: the visitor has left
        session = Session(
            command.username,
            command.instance_name,
            command.nick,
            command.status,
            command.online_until,
            command.version,
        )
        self._announce(session)

    def _announce(self, session: Session) -> None:
        if self._sessions.put(session):
            payload = stanzas.available_payload(session.nick, session.status)
            for jid in self._operators.jids(session.instance_name):
                self._gateway.send(stanzas.available(self._jid(session.username), jid, payload))

    def _send(self, command: SendMessage) -> None:
        session = self._sessions.get(command.instance_name, command.username)
        self._gateway.send(
            stanzas.chat_message(
                sender=self._jid(command.username),
                # the bare JID: ejabberd picks the operator's devices, or keeps the message for later
                to=f"{command.operator}@{self._services.settings.xmpp_host}",
                body=command.body,
                message_id=command.message_id,
                nick=session.nick if session else DEFAULT_NICK,
            )
        )

    def _say_in_room(self, command: SendToRoom) -> None:
        self._gateway.send(
            stanzas.room_message(
                sender=f"{command.sender}@{self._services.settings.xmpp_host}",
                room=f"{command.room}@{self._services.settings.rooms_jid}",
                body=command.body,
                message_id=command.message_id,
                nick=command.nick,
            )
        )

    def _show_typing(self, command: ShowTyping) -> None:
        """Of no use to an operator who is offline, nor when it comes late."""
        if command.told_until <= self._services.clock():
            return
        for jid in self._operators.jids_of(command.instance_name, command.operator):
            self._gateway.send(stanzas.typing(self._jid(command.username), jid, composing=command.composing))

    async def _close_tenant(self, instance_name: str) -> None:
        sessions = self._sessions.of_tenant(instance_name)
        for session in sessions:
            self._say_unavailable(instance_name, session.username)
        await self._gateway.confirm()
        for session in sessions:
            self._sessions.remove(instance_name, session.username)
        # the tenant's end waits for these rows to go
        async with self._services.database.write() as transaction:
            await transaction.execute(delete(VisitorSession).where(VisitorSession.instance_name == instance_name))

    async def _limited_tenants(self) -> list[Tenant]:
        """Of the tenants that we serve and that have sessions, those that may not have all kinds of them."""
        tenants: list[Tenant] = []
        async with self._services.database.read() as session:
            for chunk in _chunks([name for name in self._sessions.tenants() if self._serves(name)]):
                tenants += await session.scalars(
                    select(Tenant).where(Tenant.instance_name.in_(chunk), admission.LIMITED)
                )
        return tenants

    def _refused_by(self, tenant: Tenant) -> list[Session]:
        kind_of = self._services.naming.parse_username
        return [
            session
            for session in self._sessions.of_tenant(tenant.instance_name)
            if admission.refusal(tenant, kind_of(session.username).kind)
        ]

    async def _keep_prolonged(self, ended: list[Session], now: float) -> list[Session]:
        """Go on with those that page views have prolonged, of which we are not told. Returns the others."""
        by_name = {session.username: session for session in ended}
        prolonged: dict[str, float] = {}
        try:
            async with self._services.database.read() as transaction:
                for chunk in _chunks(list(by_name)):
                    rows = await transaction.execute(
                        select(VisitorSession.username, VisitorSession.online_until).where(
                            VisitorSession.username.in_(chunk), VisitorSession.online_until > now
                        )
                    )
                    prolonged.update((username, end) for username, end in rows)
        except DBAPIError:
            self.take_up(ended)
            raise
        for username, online_until in prolonged.items():
            # not its nick and status: news of these comes as a command, and is news only then
            by_name[username].online_until = online_until
            self._sessions.put(by_name[username])
        return [session for session in ended if session.username not in prolonged]

    async def _say_gone(self, sessions: list[Session]) -> None:
        """Tell operators that these visitors left, who are out of the table; they are put back when that fails."""
        try:
            for session in sessions:
                self._say_unavailable(session.instance_name, session.username)
            await self._gateway.confirm()
        except StreamLostError:
            for session in sessions:
                self._sessions.put(session)
            raise

    def _say_unavailable(self, instance_name: str, username: str) -> None:
        for jid in self._operators.jids(instance_name):
            self._gateway.send(stanzas.unavailable(self._jid(username), jid))

    async def _forget(self, usernames: list[str], ended_before: float) -> list[Session]:
        """Remove the rows. Returns the sessions that a page view has prolonged meanwhile."""
        prolonged: list[Session] = []
        for chunk in _chunks(usernames):
            async with self._services.database.write() as transaction:
                await transaction.execute(
                    delete(VisitorSession).where(
                        VisitorSession.username.in_(chunk), VisitorSession.online_until <= ended_before
                    )
                )
                rows = await transaction.scalars(select(VisitorSession).where(VisitorSession.username.in_(chunk)))
                prolonged += map(_session_of, rows)
        return prolonged

    def _jid(self, username: str) -> str:
        return f"{username}@{self._services.settings.xmpp_host}/{RESOURCE}"


def _session_of(row: VisitorSession) -> Session:
    return Session(row.username, row.instance_name, row.nick, row.status, row.online_until, row.version)


def _chunks(things: Sequence[Thing]) -> Iterator[Sequence[Thing]]:
    return (things[start : start + _NAMES_AT_ONCE] for start in range(0, len(things), _NAMES_AT_ONCE))
