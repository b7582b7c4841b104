"""Tells operators of visitors: who comes, changes, writes and goes, by directed presence and messages.

News are written at once, what is told in bulk by `Fanout`, in turns. The table of sessions is what is true: it changes
first, and what is still to be told in bulk is made from it at the moment of writing. So of two things said of a visitor
the last is always the true one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from tenants.core.text import DEFAULT_NICK
from tenants.lifecycle import admission
from tenants.process.services import Services
from tenants.shards.commands import CloseVisitor, SendMessage, SendToRoom, ShowTyping, ShowVisitor, shard_of
from tenants.store.database import DATABASE_AWAY
from tenants.store.models import Tenant
from tenants.visitors import stored_sessions
from tenants.visitors.presence import RESOURCE
from tenants.visitors.stored_sessions import Session
from xmpp_pool import stanzas
from xmpp_pool.fanout import Fanout
from xmpp_pool.gateway import Gateway, StreamLostError
from xmpp_pool.operator_directory import OperatorDirectory
from xmpp_pool.sessions import SessionTable

Quick = ShowVisitor | SendMessage | SendToRoom | ShowTyping | CloseVisitor
"""Commands that are a few stanzas. To close a tenant may be thousands, and takes its time."""

_ENDS_AT_ONCE = 500
"""Sessions that are looked at, and ended, together."""


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
        self._fanout = Fanout(gateway, serves)

    async def run(self) -> None:
        """Tell what is told in bulk; until cancelled."""
        await self._fanout.run()

    async def load(self, shards: set[int]) -> SessionTable:
        """The sessions of these shards, also those that ended meanwhile: somebody must announce their end.

        Read piece by piece, and into a table of their own: until they are taken up, nobody acts on them.
        """
        shard_count = self._services.settings.shard_count
        table = SessionTable()
        async for piece in stored_sessions.read_sessions(
            self._services.database, lambda name: shard_of(name, shard_count) in shards
        ):
            for session in piece:
                table.put(session)
        return table

    def take_up(self, sessions: SessionTable) -> None:
        """Go on with these sessions."""
        self._sessions.absorb(sessions)

    def drop(self, shards: set[int]) -> None:
        """Forget the sessions of these shards, without a word to operators: another process goes on with them."""
        shard_count = self._services.settings.shard_count
        for part in (self._sessions, self._fanout):
            part.drop([name for name in part.tenants() if shard_of(name, shard_count) in shards])

    def carry_out(self, command: Quick) -> None:
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

    async def close(self, instance_name: str) -> bool:
        """End all sessions of a tenant. False when it became another process's meanwhile, who has to do it.

        Raises:
            StreamLostError, DATABASE_AWAY: to be done again.
        """
        sessions = self._sessions.of_tenant(instance_name)
        self._sessions.drop([instance_name])
        if len(await self._say_gone(sessions)) < len(sessions) or not self._serves(instance_name):
            return False
        # the tenant's end waits for these rows to go
        await stored_sessions.remove_of_tenant(self._services.database, instance_name)
        return True

    async def expire(self) -> None:
        """Announce the end of sessions whose window is over."""
        now = self._services.clock()
        while self._sessions.is_due(now):
            await self._end_due(self._sessions.take_due(now, _ENDS_AT_ONCE), now)
            # else it might not give way to anybody: who is prolonged by commands is no work for others
            await asyncio.sleep(0)

    async def _end_due(self, due: list[Session], now: float) -> None:
        try:
            prolonged = await stored_sessions.read_prolonged(
                self._services.database, [session.username for session in due], now
            )
        except DATABASE_AWAY:
            for session in due:
                self._sessions.go_on(session)
            raise
        gone = [session for session in due if self._is_over(session, prolonged, now)]
        for session in gone:
            self._sessions.remove(session.instance_name, session.username)
        # who serves no longer says nothing: the sessions are another's now
        told = await self._say_gone([session for session in gone if self._serves(session.instance_name)])
        try:
            returned = await stored_sessions.remove_ended(
                self._services.database, [session.username for session in told], now
            )
        except DATABASE_AWAY:
            self._put_back(told)
            raise
        for session in returned:
            self._announce(session)

    def _is_over(self, due: Session, prolonged: dict[str, float], now: float) -> bool:
        """Whether it is; if not, the session goes on, as it is by now."""
        session = self._sessions.get(due.instance_name, due.username)
        if session is None:
            return False
        # not its nick and status: news of these comes as a command, and is news only then
        session.online_until = max(session.online_until, prolonged.get(session.username, 0.0))
        if session.online_until <= now:
            return True
        self._sessions.go_on(session)
        return False

    async def close_refused(self) -> None:
        """End the sessions whose tenant was shut, or lost the feature, since their page view was accepted.

        Who shuts a tenant closes its sessions too; but a command that was on its way then comes after that.
        """
        more = True
        while more:
            refused = list(islice(self._refused(await self._limited_tenants()), _ENDS_AT_ONCE))
            more = len(refused) == _ENDS_AT_ONCE
            await self._refuse(refused)

    async def _refuse(self, refused: list[Session]) -> None:
        if not refused:
            return
        for session in refused:
            self._sessions.remove(session.instance_name, session.username)
        told = await self._say_gone(refused)
        # another version is of a later page view: accepted before and still to be refused, or accepted again
        try:
            await stored_sessions.remove_unchanged(self._services.database, told)
        except DATABASE_AWAY:
            self._put_back(told)
            raise

    def show_all(self, instance_name: str, jid: str) -> None:
        """Show an operator who has just come online all visitors that are: in turns with others, and soon."""
        self._fanout.show(instance_name, jid, self._presences(instance_name, jid))

    def _presences(self, instance_name: str, jid: str) -> Iterator[str]:
        """Those of all visitors of a tenant for one connection, each as it is when its turn comes."""
        for username in self._sessions.usernames(instance_name):
            if not self._operators.is_online(instance_name, jid):
                return
            session = self._sessions.get(instance_name, username)
            if session is not None:
                payload = stanzas.available_payload(session.nick, session.status)
                yield stanzas.available(self._jid(username), jid, payload)

    def _show(self, command: ShowVisitor) -> None:
        if command.online_until <= self._services.clock():
            return  # it waited too long in the queue: the visitor has left
        self._announce(
            Session(
                command.username,
                command.instance_name,
                command.nick,
                command.status,
                command.online_until,
                command.version,
            )
        )

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

    async def _limited_tenants(self) -> list[Tenant]:
        """Of the tenants that we serve and that have sessions, those that may not have all kinds of them."""
        served = [name for name in self._sessions.tenants() if self._serves(name)]
        return await admission.limited_of(self._services.database, served)

    def _refused(self, tenants: Iterable[Tenant]) -> Iterator[Session]:
        kind_of = self._services.naming.parse_username
        for tenant in tenants:
            for session in self._sessions.of_tenant(tenant.instance_name):
                if admission.refusal(tenant, kind_of(session.username).kind):
                    yield session

    async def _say_gone(self, sessions: list[Session]) -> list[Session]:
        """Tell operators that these visitors left, who are out of the table; they are put back when that fails.

        Returns those of whom they were told: the others are of tenants that became another process's meanwhile.

        Raises:
            StreamLostError: to be done again.
        """
        by_tenant: dict[str, list[Session]] = defaultdict(list)
        for session in sessions:
            by_tenant[session.instance_name].append(session)
        try:
            told = await asyncio.gather(
                *(self._fanout.tell(name, self._farewells(name, gone)) for name, gone in by_tenant.items())
            )
        except StreamLostError:
            self._put_back(sessions)
            raise
        return [one for done, gone in zip(told, by_tenant.values(), strict=True) if done for one in gone]

    def _farewells(self, instance_name: str, gone: list[Session]) -> Iterator[str]:
        """Those of visitors of a tenant to all its operators, unless one of them is back when its turn comes."""
        for session in gone:
            if self._sessions.get(instance_name, session.username) is None:
                for jid in self._operators.jids(instance_name):
                    yield stanzas.unavailable(self._jid(session.username), jid)

    def _put_back(self, sessions: Iterable[Session]) -> None:
        """Their end is to be told, and recorded, once more."""
        for session in sessions:
            self._sessions.put(session)

    def _say_unavailable(self, instance_name: str, username: str) -> None:
        for jid in self._operators.jids(instance_name):
            self._gateway.send(stanzas.unavailable(self._jid(username), jid))

    def _jid(self, username: str) -> str:
        return f"{username}@{self._services.settings.xmpp_host}/{RESOURCE}"
