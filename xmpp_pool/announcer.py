"""Tells operators of visitors: who comes, changes and writes, by directed presence and messages.

News is written at once; bulk goes through `Fanout`, in turns. The table of sessions changes first, and a stanza of a
bulk is made from it at the moment of writing. So of two stanzas about one visitor the later one is always right. How
sessions end is in `xmpp_pool.session_ends`.
"""

from collections.abc import Callable, Iterator
from typing import assert_never

from tenants.core.naming import domain_of, rooms_service
from tenants.core.text import own_nick
from tenants.process.services import Services
from tenants.shards.commands import (
    CloseVisitor,
    SendMessage,
    SendReactions,
    SendReceipt,
    SendToRoom,
    ShowTyping,
    ShowVisitor,
    shard_of,
)
from tenants.visitors import stored_sessions
from tenants.visitors.presence import RESOURCE
from tenants.visitors.stored_sessions import Session
from xmpp_pool import stanzas
from xmpp_pool.fanout import Fanout
from xmpp_pool.gateway import Gateway
from xmpp_pool.operator_directory import OperatorDirectory
from xmpp_pool.sessions import SessionTable

Quick = ShowVisitor | SendMessage | SendToRoom | ShowTyping | SendReceipt | SendReactions | CloseVisitor
"""Commands that write a few stanzas each. `CloseTenant` may write thousands, and takes its time."""


class Announcer:
    """Carries out commands on the session table and the stream. Every command may come twice.

    `host_of`: the XMPP host of a tenant.
    """

    def __init__(
        self,
        services: Services,
        gateway: Gateway,
        operators: OperatorDirectory,
        sessions: SessionTable,
        fanout: Fanout,
        *,
        host_of: Callable[[str], str],
    ) -> None:
        self._services = services
        self._host_of = host_of
        self._gateway = gateway
        self._operators = operators
        self._sessions = sessions
        self._fanout = fanout

    async def load(self, shards: set[int]) -> SessionTable:
        """The sessions of these shards, also those that ended meanwhile: operators are still to be told of their end.

        They are read piece by piece into a table of their own, so nobody acts on them before `take_up`.
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
            case SendReceipt():
                self._send_receipt(command)
            case SendReactions():
                self._send_reactions(command)
            case CloseVisitor():
                # told whether or not the session is known: the first try may have ended with the stream
                self._sessions.remove(command.instance_name, command.username)
                self._say_unavailable(command.instance_name, command.username)
            case _:
                assert_never(command)

    def show_all(self, instance_name: str, jid: str) -> None:
        """Show all visitors online to an operator's connection that has just come: soon, in turns with other bulk."""
        self._fanout.show(instance_name, jid, self._presences(instance_name, jid))

    def show_one(self, username: str, jid: str) -> None:
        """Show a visitor to a connection of an operator of its tenant once more, if both are online.

        Raises:
            InvalidInputError: that is nobody's username.
            StreamLostError: on the next stream all are shown anyway.
        """
        instance_name = self._services.naming.parse_username(username).instance
        session = self._sessions.get(instance_name, username)
        if session is not None and self._operators.is_there(instance_name, jid):
            self._gateway.send(_presence(session, jid))

    def _presences(self, instance_name: str, jid: str) -> Iterator[str]:
        """The presences of all visitors of a tenant for one connection; each is made when its turn comes."""
        for username in self._sessions.usernames(instance_name):
            if not self._operators.is_there(instance_name, jid):
                return
            session = self._sessions.get(instance_name, username)
            if session is not None:
                yield _presence(session, jid)

    def _show(self, command: ShowVisitor) -> None:
        if command.online_until <= self._services.clock():
            return  # it waited too long in the queue: the visitor has left
        self.announce(
            Session(
                command.username,
                command.instance_name,
                command.nick,
                command.status,
                command.online_until,
                command.version,
            )
        )

    def announce(self, session: Session) -> None:
        """Put the session into the table, and tell the operators if that is news."""
        if _may_be_news(session, self._sessions.get(session.instance_name, session.username)):
            host = self._host_of(session.instance_name)
            self._gateway.send(
                stanzas.nick_of(session.username, session.nick, host, self._services.settings.component_jid)
            )
        if self._sessions.put(session):
            payload = stanzas.available_payload(session.nick, session.status)
            for jid in self._operators.jids(session.instance_name):
                self._gateway.send(stanzas.available(jid_of(session.username, domain_of(jid)), jid, payload))

    def _send(self, command: SendMessage) -> None:
        session = self._sessions.get(command.instance_name, command.username)
        host = self._host_of(command.instance_name)
        self._gateway.send(
            stanzas.chat_message(
                sender=jid_of(command.username, host),
                to=_bare_jid(command.operator, host),
                body=command.body,
                message_id=command.message_id,
                nick=session.nick if session else None,
                replaces=command.replaces,
                retracts=command.retracts,
            )
        )

    def _say_in_room(self, command: SendToRoom) -> None:
        host = self._host_of(command.instance_name)
        self._gateway.send(
            stanzas.room_message(
                sender=f"{command.sender}@{host}",
                room=f"{command.room}@{rooms_service(host)}",
                body=command.body,
                message_id=command.message_id,
                nick=command.nick,
            )
        )

    def _show_typing(self, command: ShowTyping) -> None:
        """Tell the operator's connections that are online, unless the command comes too late to be of use."""
        if command.told_until <= self._services.clock():
            return
        for jid in self._operators.jids_of(command.instance_name, command.operator):
            sender = jid_of(command.username, domain_of(jid))
            self._gateway.send(stanzas.typing(sender, jid, composing=command.composing))

    def _send_receipt(self, command: SendReceipt) -> None:
        host = self._host_of(command.instance_name)
        self._gateway.send(
            stanzas.receipt(
                jid_of(command.username, host),
                # should this device be gone, ejabberd takes another one
                f"{_bare_jid(command.operator, host)}/{command.resource}",
                command.receipt_id,
                command.of,
                received=command.received,
                marker=command.marker,
            )
        )

    def _send_reactions(self, command: SendReactions) -> None:
        host = self._host_of(command.instance_name)
        sender, to = jid_of(command.username, host), _bare_jid(command.operator, host)
        self._gateway.send(stanzas.reactions(sender, to, command.stanza_id, command.of, command.reactions))

    def _say_unavailable(self, instance_name: str, username: str) -> None:
        for jid in self._operators.jids(instance_name):
            self._gateway.send(stanzas.unavailable(jid_of(username, domain_of(jid)), jid))


def jid_of(username: str, host: str) -> str:
    """The JID that a visitor is shown as, to operators of that host: they and their visitors live on one."""
    return f"{username}@{host}/{RESOURCE}"


def _bare_jid(operator: str, host: str) -> str:
    """For what ejabberd gives to those of the operator's devices that it picks, or keeps for later."""
    return f"{operator}@{host}"


def _presence(session: Session, jid: str) -> str:
    """The visitor's presence for one connection of an operator."""
    payload = stanzas.available_payload(session.nick, session.status)
    return stanzas.available(jid_of(session.username, domain_of(jid)), jid, payload)


def _may_be_news(session: Session, known: Session | None) -> bool:
    """Whether ejabberd may not know yet what the visitor is called, who says a name of its own.

    A command that comes twice bears the version that is known; the stream may have ended before the nick was told.
    """
    if not own_nick(session.nick):
        return False
    if known is None or session.version == known.version:
        return True
    return session.version > known.version and session.nick != known.nick
