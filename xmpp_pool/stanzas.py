"""The stanzas we write, as text, and the ones we read.

Written by hand because presence is fanned out by the thousand: the part that is the same for every operator is
rendered once. All text passes through `escape`; what XML cannot hold was replaced at the boundary
(`tenants.core.text`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

FORWARD_NS = "urn:xmpp:forward:0"
SID_NS = "urn:xmpp:sid:0"
BRIDGE_NS = "urn:lhc:bridge:0"
"""Of ejabberd's bridge module, our own."""
CHAT_STATES_NS = "http://jabber.org/protocol/chatstates"
RECEIPTS_NS = "urn:xmpp:receipts"
MARKERS_NS = "urn:xmpp:chat-markers:0"
CORRECTION_NS = "urn:xmpp:message-correct:0"
RETRACTION_NS = "urn:xmpp:message-retract:1"
REACTIONS_NS = "urn:xmpp:reactions:0"
NICK_NS = "http://jabber.org/protocol/nick"
CLIENT_NS = "jabber:client"
STANZA_ERROR_NS = "urn:ietf:params:xml:ns:xmpp-stanzas"
COMPONENT_NS = "jabber:component:accept"
_PRESENCE = f"{{{CLIENT_NS}}}presence"
_FORWARDED = (f"{{{CLIENT_NS}}}message", _PRESENCE)
_BROWSER = f"{{{BRIDGE_NS}}}browser"


def available_payload(nick: str, status: str) -> str:
    """What a visitor's available presence holds: the status and the nickname (XEP-0172)."""
    return f"<status>{escape(status)}</status><nick xmlns='{NICK_NS}'>{escape(nick)}</nick>"


def available(sender: str, to: str, payload: str) -> str:
    """A directed available presence (RFC 6121, 4.6)."""
    return f"<presence from={quoteattr(sender)} to={quoteattr(to)}>{payload}</presence>"


def unavailable(sender: str, to: str) -> str:
    """A directed unavailable presence."""
    return f"<presence type='unavailable' from={quoteattr(sender)} to={quoteattr(to)}/>"


def nick_of(username: str, nick: str, server: str, sender: str) -> str:
    """Tells the bridge module what a visitor is called from now on. It does not answer."""
    return (
        f"<iq type='set' id='nick' from={quoteattr(sender)} to={quoteattr(server)}>"
        f"<nick xmlns='{BRIDGE_NS}' user={quoteattr(username)}>{escape(nick)}</nick></iq>"
    )


def chat_message(
    sender: str,
    to: str,
    body: str,
    message_id: str,
    nick: str | None,
    *,
    replaces: str | None = None,
    retracts: str | None = None,
) -> str:
    """A chat message with the sender's nickname, which clients show for a contact they do not know yet.

    None: it is not known here, as the visitor's own client says it.

    The operator's client is asked for a receipt (XEP-0184), unless the message changes an earlier one: it `replaces`
    that (XEP-0308) or `retracts` it (XEP-0424, with a body for who knows nothing of that). By `<once/>` the bridge
    module knows repeats, and drops them; it takes the element out.
    """
    named = "" if nick is None else f"<nick xmlns='{NICK_NS}'>{escape(nick)}</nick>"
    about = f"<request xmlns='{RECEIPTS_NS}'/>"
    if replaces is not None:
        about = f"<replace xmlns='{CORRECTION_NS}' id={quoteattr(replaces)}/>"
    elif retracts is not None:
        about = (
            f"<retract xmlns='{RETRACTION_NS}' id={quoteattr(retracts)}/>"
            f"<fallback xmlns='urn:xmpp:fallback:0' for='{RETRACTION_NS}'/><store xmlns='urn:xmpp:hints'/>"
        )
    return (
        f"<message type='chat' from={quoteattr(sender)} to={quoteattr(to)} id={quoteattr(message_id)}>"
        f"<body>{escape(body)}</body>{named}"
        f"{about}<once xmlns='{BRIDGE_NS}' id={quoteattr(message_id)}/></message>"
    )


def reactions(sender: str, to: str, stanza_id: str, of: str, reactions: Iterable[str]) -> str:
    """The sender's reactions to the message `of`, all of them (XEP-0444). Kept for a client that is away (XEP-0334)."""
    given = "".join(f"<reaction>{escape(one)}</reaction>" for one in reactions)
    return (
        f"<message type='chat' from={quoteattr(sender)} to={quoteattr(to)} id={quoteattr(stanza_id)}>"
        f"<reactions xmlns='{REACTIONS_NS}' id={quoteattr(of)}>{given}</reactions>"
        f"<store xmlns='urn:xmpp:hints'/><once xmlns='{BRIDGE_NS}' id={quoteattr(stanza_id)}/></message>"
    )


def room_message(sender: str, room: str, body: str, message_id: str, nick: str) -> str:
    """A message to a room (XEP-0045) from somebody who is not in it; the bridge module sees to the name shown."""
    return (
        f"<message type='groupchat' from={quoteattr(sender)} to={quoteattr(room)} id={quoteattr(message_id)}>"
        f"<body>{escape(body)}</body><nick xmlns='{NICK_NS}'>{escape(nick)}</nick>"
        f"<once xmlns='{BRIDGE_NS}' id={quoteattr(message_id)}/></message>"
    )


def typing(sender: str, to: str, *, composing: bool) -> str:
    """Says that the sender writes, or writes no longer (XEP-0085); never kept for later (XEP-0334)."""
    state = "composing" if composing else "paused"
    return (
        f"<message type='chat' from={quoteattr(sender)} to={quoteattr(to)}>"
        f"<{state} xmlns='{CHAT_STATES_NS}'/><no-store xmlns='urn:xmpp:hints'/></message>"
    )


def receipt(sender: str, to: str, stanza_id: str, of: str, *, received: bool, marker: str | None) -> str:
    """Says what became of the operator's message `of`, as its client has asked.

    By a receipt (XEP-0184), and by a marker (XEP-0333), `received` or `displayed`. Kept for a client that is away
    (XEP-0334).
    """
    said = f"<received xmlns='{RECEIPTS_NS}' id={quoteattr(of)}/>" if received else ""
    if marker is not None:
        said += f"<{marker} xmlns='{MARKERS_NS}' id={quoteattr(of)}/>"
    return (
        f"<message type='chat' from={quoteattr(sender)} to={quoteattr(to)} id={quoteattr(stanza_id)}>{said}"
        f"<store xmlns='urn:xmpp:hints'/><once xmlns='{BRIDGE_NS}' id={quoteattr(stanza_id)}/></message>"
    )


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A message that the bridge module took out of ejabberd's routing.

    Attributes:
        message_id: what the sender's client calls it; empty when it does not.
        wants_receipt: that client asks for a receipt (XEP-0184).
        is_markable: it takes markers (XEP-0333).
        for_browser: a browser of the visitor is logged in itself, and wants to know what to show.
        element: what it holds (`xmpp_pool.contents`).
    """

    stanza_id: str
    sender: str
    receiver: str
    body: str
    message_id: str
    wants_receipt: bool = field(default=False, kw_only=True)
    is_markable: bool = field(default=False, kw_only=True)
    for_browser: bool = field(default=False, kw_only=True)
    element: ET.Element = field(default_factory=lambda: ET.Element("message"), kw_only=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ForwardedError(Forwarded):
    """A message that came back: the sender is who did not get it, the receiver who wrote it."""

    condition: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ForwardedPresence:
    """An operator came into a room, or left it."""

    stanza_id: str
    sender: str
    receiver: str
    available: bool


@dataclass(frozen=True, slots=True)
class Signal:
    """A message without a body. `composing`: None when it says nothing of that; `receipt_of`: the message's id."""

    sender: str
    receiver: str
    composing: bool | None
    receipt_of: str | None


def read_signal(stanza: ET.Element) -> Signal:
    """Read the bridge module's message that holds a chat state (XEP-0085) or a receipt (XEP-0184) of an operator.

    Raises:
        ValueError: it is not of that form.
    """
    message = stanza.find(f"{{{FORWARD_NS}}}forwarded/{{{CLIENT_NS}}}message")
    sender, receiver = (None, None) if message is None else (message.get("from"), message.get("to"))
    if message is None or not (sender and receiver):
        raise ValueError("no forwarded message with from and to")
    states = {child.tag.rpartition("}")[2] for child in message if child.tag.startswith(f"{{{CHAT_STATES_NS}}}")}
    receipt = message.find(f"{{{RECEIPTS_NS}}}received")
    return Signal(
        sender,
        receiver,
        composing="composing" in states if states else None,
        receipt_of=receipt.get("id") if receipt is not None else None,
    )


def read_forwarded(iq: ET.Element, component_jid: str) -> Forwarded | ForwardedPresence:
    """Read the bridge module's IQ: a forwarded stanza (XEP-0297) with the module's own stanza id (XEP-0359).

    Raises:
        ValueError: it is not of that form.
    """
    forwarded = iq.findall(f"{{{FORWARD_NS}}}forwarded/*")
    message = next((element for element in forwarded if element.tag in _FORWARDED), None)
    if message is None:
        raise ValueError("no forwarded stanza")
    stanza_id = next(
        (sid.get("id") for sid in message.findall(f"{{{SID_NS}}}stanza-id") if sid.get("by") == component_jid), None
    )
    sender, receiver = message.get("from"), message.get("to")
    if not (stanza_id and sender and receiver):
        raise ValueError("the forwarded stanza lacks stanza-id, from or to")
    if message.tag == _PRESENCE:
        return ForwardedPresence(stanza_id, sender, receiver, available=message.get("type") != "unavailable")
    body = message.findtext(f"{{{CLIENT_NS}}}body") or ""
    message_id = message.get("id") or ""
    if message.get("type") == "error":
        return ForwardedError(stanza_id, sender, receiver, body, message_id, *_read_error(message))
    return Forwarded(
        stanza_id,
        sender,
        receiver,
        body,
        message_id,
        wants_receipt=message.find(f"{{{RECEIPTS_NS}}}request") is not None,
        is_markable=message.find(f"{{{MARKERS_NS}}}markable") is not None,
        for_browser=any(element.tag == _BROWSER for element in forwarded),
        element=message,
    )


def _read_error(message: ET.Element) -> tuple[str, str | None]:
    """The condition and the text of a stanza error (RFC 6120, 8.3)."""
    condition, reason = "undefined-condition", None
    for element in message.findall(f"{{{CLIENT_NS}}}error/*"):
        namespace, _, name = element.tag[1:].partition("}")
        if namespace == STANZA_ERROR_NS and name == "text":
            reason = element.text
        elif namespace == STANZA_ERROR_NS:
            condition = name
    return condition, reason
