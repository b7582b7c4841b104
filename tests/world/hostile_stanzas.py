"""Every kind of stanza that somebody hostile may send, by its name; `{to}` is the victim, `{id}` the stanza's own."""

WORD = "hostile"
"""In each of them that holds a text: who was not to be reached has not read it."""

_BODY = f"<body>{WORD}</body>"
_FORWARDED = (
    "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' from='{to}' to='{to}'>"
    f"{_BODY}</message></forwarded>"
)
_TYPES = ("chat", "normal", "headline", "groupchat", "error")
_CHILDREN = {
    **{f"chat state {name}": f"<{name} xmlns='http://jabber.org/protocol/chatstates'/>" for name in ("active", "gone")},
    "receipt asked for": f"{_BODY}<request xmlns='urn:xmpp:receipts'/>",
    "receipt": "<received xmlns='urn:xmpp:receipts' id='1-line'/>",
    "chat marker": "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
    "carbon received": f"<received xmlns='urn:xmpp:carbons:2'>{_FORWARDED}</received>",
    "carbon sent": f"<sent xmlns='urn:xmpp:carbons:2'>{_FORWARDED}</sent>",
    "forwarded": _FORWARDED,
    "archived": f"<result xmlns='urn:xmpp:mam:2' id='1'>{_FORWARDED}</result>",
    "delayed": f"{_BODY}<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2001-01-01T00:00:00Z'/>",
    "the bridge's mark": f"{_BODY}<once xmlns='urn:lhc:bridge:0' id='1'/>",
    "direct invitation": f"<x xmlns='jabber:x:conference' jid='{{to}}' reason='{WORD}'/>",
    "mediated invitation": (
        f"<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{{to}}'><reason>{WORD}</reason></invite></x>"
    ),
    "declined invitation": (
        f"{_BODY}<x xmlns='http://jabber.org/protocol/muc#user'><decline to='{{to}}'><reason>{WORD}</reason></decline>"
        "</x>"
    ),
    "extended addresses": (
        f"{_BODY}<addresses xmlns='http://jabber.org/protocol/address'><address type='to' jid='{{to}}'/></addresses>"
    ),
    "nick": f"{_BODY}<nick xmlns='http://jabber.org/protocol/nick'>{WORD}</nick>",
    "markup": (
        f"{_BODY}<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>{WORD}"
        "</body></html>"
    ),
    "link": f"{_BODY}<x xmlns='jabber:x:oob'><url>https://{WORD}.example</url></x>",
    "correction": f"{_BODY}<replace xmlns='urn:xmpp:message-correct:0' id='1'/>",
    "retraction": "<retract xmlns='urn:xmpp:message-retract:1' id='1'/>",
    "reaction": f"<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>{WORD}</reaction></reactions>",
    "attention": "<attention xmlns='urn:xmpp:attention:0'/>",
    "to be stored": f"{_BODY}<store xmlns='urn:xmpp:hints'/>",
    "PEP event": f"<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='{WORD}'/></event>",
    "form": f"<x xmlns='jabber:x:data' type='form'><title>{WORD}</title></x>",
    "contacts": "<x xmlns='http://jabber.org/protocol/rosterx'><item action='add' jid='{to}'/></x>",
    "call": "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>",
    "encrypted": f"{_BODY}<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>{WORD}</payload></encrypted>",
    "captcha": f"<captcha xmlns='urn:xmpp:captcha'><x xmlns='jabber:x:data' type='form'/></captcha>{_BODY}",
    "subject": f"<subject>{WORD}</subject>",
    "several bodies": f"{_BODY}<body xml:lang='de'>{WORD}</body>",
    "nothing": "",
}
_PRESENCES = ("available", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error")
_SHOWN = {
    "join": "<x xmlns='http://jabber.org/protocol/muc'/>",
    "photo": "<x xmlns='vcard-temp:x:update'><photo>0123456789abcdef0123456789abcdef01234567</photo></x>",
    "capabilities": f"<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='{WORD}' ver='1'/>",
}
_QUERIES = {
    "last activity": ("get", "<query xmlns='jabber:iq:last'/>"),
    "version": ("get", "<query xmlns='jabber:iq:version'/>"),
    "time": ("get", "<time xmlns='urn:xmpp:time'/>"),
    "ping": ("get", "<ping xmlns='urn:xmpp:ping'/>"),
    "vCard": ("get", "<vCard xmlns='vcard-temp'/>"),
    "vCard set": ("set", f"<vCard xmlns='vcard-temp'><FN>{WORD}</FN></vCard>"),
    "vCard4": ("get", "<vcard xmlns='urn:ietf:params:xml:ns:vcard-4.0'/>"),
    "roster": ("get", "<query xmlns='jabber:iq:roster'/>"),
    "roster push": ("set", f"<query xmlns='jabber:iq:roster'><item jid='{WORD}@localhost' name='{WORD}'/></query>"),
    "information": ("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
    "items": ("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
    "registration": ("get", "<query xmlns='jabber:iq:register'/>"),
    "password": ("set", f"<query xmlns='jabber:iq:register'><username>x</username><password>{WORD}</password></query>"),
    "search": ("get", "<query xmlns='jabber:iq:search'/>"),
    "private storage": ("get", "<query xmlns='jabber:iq:private'><x xmlns='a:b'/></query>"),
    "privacy list": ("get", "<query xmlns='jabber:iq:privacy'/>"),
    "block": ("set", "<block xmlns='urn:xmpp:blocking'><item jid='{to}'/></block>"),
    "PEP items": ("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'/></pubsub>"),
    "PEP publication": (
        "set",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='1'/></publish></pubsub>",
    ),
    "room's members": ("get", "<query xmlns='http://jabber.org/protocol/muc#admin'><item role='none'/></query>"),
    "room's owner": ("get", "<query xmlns='http://jabber.org/protocol/muc#owner'/>"),
    "room's end": ("set", "<query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query>"),
    "subscription to a room": ("set", f"<subscribe xmlns='urn:xmpp:mucsub:0' nick='{WORD}'/>"),
    "command": ("set", "<command xmlns='http://jabber.org/protocol/commands' node='config' action='execute'/>"),
    "archive": ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
    "byte stream": ("get", "<query xmlns='http://jabber.org/protocol/bytestreams'/>"),
    "in-band stream": ("set", "<open xmlns='http://jabber.org/protocol/ibb' block-size='4096' sid='1'/>"),
    "jingle": ("set", "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='1'/>"),
    "remote call": ("set", "<query xmlns='jabber:iq:rpc'/>"),
    "push": ("set", "<enable xmlns='urn:xmpp:push:0' jid='{to}' node='1'/>"),
    "carbons": ("set", "<enable xmlns='urn:xmpp:carbons:2'/>"),
    "session": ("set", "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>"),
    "the bridge's sync": ("set", "<sync xmlns='urn:lhc:bridge:0'/>"),
    "an answer": ("result", "<query xmlns='jabber:iq:last' seconds='1'/>"),
    "an error": ("error", "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"),
}
KINDS = {
    **{
        f"message of type {kind}": f"<message id='{{id}}' to='{{to}}' type='{kind}'>{_BODY}</message>"
        for kind in _TYPES
    },
    **{f"message: {name}": f"<message id='{{id}}' to='{{to}}'>{child}</message>" for name, child in _CHILDREN.items()},
    **{
        f"presence {kind}": f"<presence id='{{id}}' to='{{to}}'"
        f"{'' if kind == 'available' else f' type={kind!r}'}><status>{WORD}</status></presence>"
        for kind in _PRESENCES
    },
    **{f"presence: {name}": f"<presence id='{{id}}' to='{{to}}'>{child}</presence>" for name, child in _SHOWN.items()},
    **{
        f"IQ: {name}": f"<iq id='{{id}}' to='{{to}}' type='{kind}'>{child}</iq>"
        for name, (kind, child) in _QUERIES.items()
    },
}
"""Each as XML; to be filled in by `stanza`."""


def stanza(kind: str, to: str, stanza_id: str) -> str:
    """The stanza of that kind to that address."""
    return KINDS[kind].replace("{to}", to).replace("{id}", stanza_id)
