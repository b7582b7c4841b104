"""An operator at an ordinary XMPP client."""

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast
from xml.etree import ElementTree as ET

from slixmpp import JID, ClientXMPP, Message, Presence
from slixmpp.xmlstream import StanzaBase
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath

from bench.testbed.waiting import DEADLINE, until

MessageType = Literal["chat", "normal", "headline", "groupchat"]
SignType = Literal["chat", "normal", "groupchat", "error"]
_ROSTER = "jabber:iq:roster"


@dataclass(frozen=True, slots=True)
class SeenPresence:
    """A presence as it arrived. `at` is on the monotonic clock."""

    username: str
    type: str
    nick: str
    status: str
    at: float
    jid: str = ""
    """Whose, in full."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class SeenMessage:
    """A message as it arrived. `at` is on the monotonic clock."""

    username: str
    type: str
    body: str
    id: str
    error: str
    reason: str
    """The text of the error."""
    children: tuple[str, ...]
    at: float
    nick: str = ""
    """The resource of who sent it: in a room the name that is shown."""


def log_in_without_tls(client: ClientXMPP) -> None:
    """As a client that knows no channel binding.

    slixmpp would say that it does, and that the server seems not to (RFC 5802, 6: `y`). From 24.02 on ejabberd takes
    that for a sign that somebody between hides it.
    """
    client.enable_direct_tls = client.enable_starttls = False
    client.enable_plaintext = True
    mechanisms: Any = client.plugin["feature_mechanisms"]
    mechanisms.unencrypted_scram = True
    found = mechanisms.security_callback
    mechanisms.security_callback = lambda values: found(values) | {"binding_proposed": True}


class Operator:
    """One connection of an operator; keeps what it saw."""

    def __init__(
        self,
        username: str,
        host: str,
        password: str,
        address: tuple[str, int],
        resource: str = "desk",
        *,
        certificate: Path | None = None,
    ) -> None:
        self.username = username
        self.presences: list[SeenPresence] = []
        self.messages: list[SeenMessage] = []
        self.stanzas: list[ET.Element] = []
        """All that came, as it came."""
        self._invitations: list[tuple[str, str]] = []
        self._address = address
        self._host = host
        self._client = client = ClientXMPP(f"{username}@{host}/{resource}", password)
        client.register_plugin("xep_0172")
        client.register_plugin("xep_0199")
        client.add_filter("in", self._keep)
        if certificate is None:
            log_in_without_tls(client)
        else:
            # the server's own certificate is the authority
            client.ca_certs = certificate
            client.enable_direct_tls = False
        self._started = asyncio.Event()
        self._failed = asyncio.Event()
        self.disconnected = asyncio.Event()
        client.add_event_handler("session_start", lambda _: self._started.set())
        client.add_event_handler("failed_all_auth", lambda _: self._failed.set())
        client.add_event_handler("disconnected", lambda _: self.disconnected.set())
        for event in ("presence_available", "presence_unavailable"):
            client.add_event_handler(event, self._saw_presence)
        client.add_event_handler("presence_error", self._saw_error)
        # not slixmpp's event: it has none for what has no body
        client.register_handler(Callback("any message", MatchXPath("{jabber:client}message"), self._saw_any))

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.leave()

    async def connect(self, *, available: bool = True) -> None:
        """Log in, fetch the roster and say that we are available, as clients do."""
        self._client.connect(*self._address)
        await until(lambda: self._started.is_set() or self._failed.is_set(), f"login of {self.username}")
        if self._failed.is_set():
            raise PermissionError(f"login of {self.username} refused")
        await self._client.get_roster()
        if available:
            self.set_presence()

    def set_presence(self, show: str | None = None, *, status: str | None = None, available: bool = True) -> None:
        """Send a presence of our own."""
        self._client.send_presence(pshow=show, pstatus=status, ptype=None if available else "unavailable")

    def subscribe(self, username: str) -> None:
        """Ask to see somebody's presence."""
        self._client.send_presence_subscription(pto=f"{username}@{self._host}")

    async def leave(self) -> None:
        """Log out in good order."""
        await self._client.disconnect(wait=2)

    async def ask(self, to: str, element: str) -> None:
        """Send an IQ that sets something.

        Raises:
            slixmpp.exceptions.IqError: refused.
        """
        iq = self._client.make_iq_set(ito=to)
        iq.append(ET.Element(element))
        await iq.send(timeout=DEADLINE)

    def send_raw(self, xml: str) -> None:
        """Send whatever it is."""
        self._client.send_raw(xml)

    def answer(self, stanza_id: str) -> str:
        """How the IQ of that id was answered: `result`, or the error's condition; empty while it was not."""
        answers = [one for one in self.stanzas if one.get("id") == stanza_id and one.tag.endswith("}iq")]
        if not answers:
            return ""
        error = answers[-1].find("{jabber:client}error")
        return "result" if error is None else error[0].tag.rpartition("}")[2]

    async def taken(self) -> None:
        """Wait until the server has taken all that was written: a stream is handled in order, so a ping shows it."""
        await self._client.plugin["xep_0199"].send_ping(JID(self._host), timeout=DEADLINE)

    def cut(self) -> None:
        """Drop the TCP connection without a word."""
        transport: Any = self._client.transport
        transport.abort()

    def stop_answering(self) -> None:
        """Be a client that hangs: the connection stays, nothing is read any more."""
        transport: Any = self._client.transport
        transport.pause_reading()

    def has_unread(self, text: str) -> bool:
        """Whether the operating system has that text for a client that hangs: it is out of the server's hands."""
        transport: Any = self._client.transport
        with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as copy:
            copy.setblocking(False)
            try:
                return text.encode() in copy.recv(1 << 20, socket.MSG_PEEK)
            except BlockingIOError:
                return False

    def write(
        self, to: str, body: str, *, kind: MessageType = "chat", message_id: str | None = None, subject: str = ""
    ) -> str:
        """Send a message to a username (of our host) or a JID. Returns its id."""
        jid = to if "@" in to else f"{to}@{self._host}"
        message = self._client.make_message(mto=jid, mbody=body, mtype=kind, msubject=subject or None)
        message["id"] = message_id or self._client.new_id()
        message.send()
        return str(message["id"])

    def sign(self, to: str, element: str, *, kind: SignType = "chat", **attributes: str) -> None:
        """Send a message without a body that holds the element, a chat state or a receipt, to a username or a JID."""
        message = self._client.make_message(mto=to if "@" in to else f"{to}@{self._host}")
        message["type"] = kind
        message.append(ET.Element(element, attributes))
        message.send()

    def write_error(self, to: str, body: str) -> None:
        """Refuse a message of a username, as a client that cannot handle it."""
        message = self._client.make_message(mto=f"{to}@{self._host}/lhc", mbody=body)
        message["type"] = "error"
        message["error"]["condition"] = "not-acceptable"
        message.send()

    async def contacts(self) -> dict[str, tuple[str, list[str]]]:
        """Name and groups of each contact by its username, as the server lists them now."""
        answer = await self._client.make_iq_get(queryxmlns=_ROSTER).send(timeout=DEADLINE)
        return {
            item.get("jid", "").partition("@")[0]: (
                item.get("name", ""),
                sorted(group.text or "" for group in item.findall(f"{{{_ROSTER}}}group")),
            )
            for item in answer.xml.iter(f"{{{_ROSTER}}}item")
        }

    async def vcard(self, username: str) -> dict[str, str]:
        """What the vCard of an account holds (XEP-0054)."""
        iq = self._client.make_iq_get(ito=f"{username}@{self._host}")
        iq.append(ET.Element("{vcard-temp}vCard"))
        (card,) = (await iq.send(timeout=DEADLINE)).xml
        return {field.tag.rpartition("}")[2]: field.text or "" for field in card}

    async def edit_contact(self, username: str, name: str, *groups: str) -> None:
        """Give a contact a name and groups (RFC 6121, 2.3)."""
        await self._set_contact(username, {"name": name}, groups)

    async def remove_contact(self, username: str) -> None:
        """Remove a contact (RFC 6121, 2.5)."""
        await self._set_contact(username, {"subscription": "remove"}, ())

    async def _set_contact(self, username: str, attributes: dict[str, str], groups: Sequence[str]) -> None:
        iq = self._client.make_iq_set()
        query = ET.Element(f"{{{_ROSTER}}}query")
        item = ET.SubElement(query, f"{{{_ROSTER}}}item", {"jid": f"{username}@{self._host}", **attributes})
        for group in groups:
            ET.SubElement(item, f"{{{_ROSTER}}}group").text = group
        iq.append(query)
        await iq.send(timeout=DEADLINE)

    async def has_contact(self, username: str, name: str | None = None, seconds: float = DEADLINE) -> None:
        """Wait until the contact is in the roster, under that name if one is given."""
        await until(
            lambda: username in self._contacts() and name in {None, self._contacts()[username]},
            f"{self.username} has contact {username} {name}; has {self._contacts()}",
            seconds,
        )

    async def has_no_contact(self, username: str, seconds: float = DEADLINE) -> None:
        """Wait until the contact is gone from the roster."""
        await until(lambda: username not in self._contacts(), f"contact {username} goes", seconds)

    def _contacts(self) -> dict[str, str]:
        roster: Any = self._client.client_roster
        return {
            str(jid).partition("@")[0]: roster[jid]["name"]
            for jid in roster
            if roster[jid]["subscription"] in {"to", "both"}
        }

    async def sees(
        self, username: str, *, kind: str = "available", seconds: float = DEADLINE, **fields: str
    ) -> SeenPresence:
        """Wait until the *latest* presence of the visitor is of that kind and has those fields."""

        def found() -> SeenPresence | None:
            latest = self.latest(username)
            if latest is None or latest.type != kind:
                return None
            return latest if all(getattr(latest, name) == value for name, value in fields.items()) else None

        return await until(
            found, f"{self.username} sees {username} {kind} {fields}; saw {self.latest(username)}", seconds
        )

    async def reads(self, body: str, seconds: float = DEADLINE) -> SeenMessage:
        """Wait for a message with that body."""
        return await until(
            lambda: next((message for message in self.messages if message.body == body), None),
            f"{self.username} reads {body[:60]!r}",
            seconds,
        )

    async def join(self, room: str, nick: str) -> None:
        """Enter a room, by its JID, under that name (XEP-0045, 7.2).

        Raises:
            PermissionError: refused; holds the error's condition.
        """
        seen = len(self.presences)
        presence = self._client.make_presence(pto=f"{room}/{nick}")
        presence.append(ET.Element("{http://jabber.org/protocol/muc}x"))
        presence.send()
        answer = await until(
            lambda: next((one for one in self.presences[seen:] if one.jid == f"{room}/{nick}"), None),
            f"{self.username} is in {room}",
        )
        if answer.error:
            raise PermissionError(answer.error)

    def leave_room(self, room: str, nick: str) -> None:
        """Leave a room."""
        self._client.make_presence(pto=f"{room}/{nick}", ptype="unavailable").send()

    def write_marked(self, room: str, body: str, once: str) -> None:
        """Write in a room with the bridge module's own mark on the message."""
        message = self._client.make_message(mto=room, mbody=body, mtype="groupchat")
        message.append(ET.Element("{urn:lhc:bridge:0}once", {"id": once}))
        message.send()

    def error_of(self, message_id: str) -> str:
        """The condition of the error that answered the message; empty while none did."""
        return next((one.error for one in self.messages if one.id == message_id and one.error), "")

    async def is_refused(self, message_id: str, condition: str = "forbidden") -> None:
        """Wait until the message was answered with that error."""
        await until(lambda: self.error_of(message_id) == condition, f"a message of {self.username} is refused")

    async def invited(self) -> tuple[str, str]:
        """Wait for an invitation (XEP-0249). Gives the room and the reason."""
        await until(lambda: self._invitations, f"{self.username} is invited")
        return self._invitations[0]

    async def hears(self, room: str, body: str) -> SeenMessage:
        """Wait for a message with that body in the room."""
        local = room.partition("@")[0]
        return await until(
            lambda: next(
                (one for one in self.messages if (one.username, one.type, one.body) == (local, "groupchat", body)), None
            ),
            f"{self.username} hears {body[:60]!r} in {room}",
        )

    async def items_of(self, service: str) -> dict[str, str]:
        """What service discovery lists there (XEP-0030): names by JIDs.

        Raises:
            slixmpp.exceptions.IqError: refused.
        """
        iq = self._client.make_iq_get(ito=service)
        iq.append(ET.Element("{http://jabber.org/protocol/disco#items}query"))
        answer = await iq.send(timeout=DEADLINE)
        items = answer.xml.findall("*/{http://jabber.org/protocol/disco#items}item")
        return {item.get("jid", ""): item.get("name", "") for item in items}

    def latest(self, username: str) -> SeenPresence | None:
        """The latest presence of the visitor."""
        return next((seen for seen in reversed(self.presences) if seen.username == username), None)

    def _keep(self, stanza: StanzaBase) -> StanzaBase:
        self.stanzas.append(stanza.xml)
        return stanza

    def _saw_presence(self, presence: Presence) -> None:
        kind = "unavailable" if presence["type"] == "unavailable" else "available"
        self.presences.append(
            SeenPresence(
                presence["from"].local,
                kind,
                presence["nick"]["nick"],
                presence["status"],
                time.monotonic(),
                str(presence["from"]),
            )
        )

    def _saw_error(self, presence: Presence) -> None:
        sender, condition = presence["from"], presence["error"]["condition"]
        self.presences.append(SeenPresence(sender.local, "error", "", "", time.monotonic(), str(sender), condition))

    def _saw_any(self, stanza: StanzaBase) -> None:
        self._saw_message(cast(Message, stanza))

    def _saw_message(self, message: Message) -> None:
        failed = message["type"] == "error"
        invitation = message.xml.find("{jabber:x:conference}x")
        if invitation is not None:
            self._invitations.append((invitation.get("jid", ""), invitation.get("reason", "")))
        self.messages.append(
            SeenMessage(
                message["from"].local,
                message["type"],
                message["body"],
                message["id"],
                message["error"]["condition"] if failed else "",
                message["error"]["text"] if failed else "",
                tuple(child.tag for child in message.xml),
                time.monotonic(),
                message["from"].resource,
            )
        )
