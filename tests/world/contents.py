"""What operators' clients send, by the rows of the table in docs/contents.md, and what is to become of it."""

from dataclasses import dataclass, field
from typing import Any

BACK = "back to the operator"
NOTHING = "nothing"
CREATED, UPDATED, RETRACTED, REACTION = "message.created", "message.updated", "message.retracted", "message.reaction"


@dataclass(frozen=True, slots=True)
class Sample:
    """A message, and what becomes of it.

    Attributes:
        row: of the table.
        outcome: what webhooks tell: an event, BACK or NOTHING.
        line: what LHC is posted; None for nothing.
        text: what webhooks tell as the message, where that is another.
        data: what else is in the event.
    """

    row: str
    xml: str
    outcome: str
    line: str | None = None
    text: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    kind: str = "chat"


_REPLY_FALLBACK = "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='{}'/></fallback>"
_HTML = "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>{}</body></html>"
_SHARED = (
    "<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><name>Prices 2026.pdf</name></file>"
    "<sources><url-data xmlns='http://jabber.org/protocol/url-data' target='https://files.example/p.pdf'/></sources>"
    "</file-sharing>"
)
_SIMS = (
    "<reference xmlns='urn:xmpp:reference:0' type='data'><media-sharing xmlns='urn:xmpp:sims:1'><file "
    "xmlns='urn:xmpp:jingle:apps:file-transfer:5'><name>map.png</name></file><sources><reference "
    "xmlns='urn:xmpp:reference:0' type='data' uri='https://files.example/map.png'/></sources></media-sharing></reference>"
)
_PLACE = "<geoloc xmlns='http://jabber.org/protocol/geoloc'><lat>52.5</lat><lon>13.4</lon><locality>Berlin</locality></geoloc>"
_OOB = "<x xmlns='jabber:x:oob'><url>https://files.example/a.png</url></x>"
_RETRACTION = "An earlier message was withdrawn."
_NOT_KNOWN = {"message_id": None, "written_by": None}
ENCRYPTED = (
    ("OMEMO", "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted>"),
    ("OMEMO", "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>aGk=</payload></encrypted>"),
    ("PGP", "<x xmlns='jabber:x:encrypted'>hQEM</x>"),
    ("OpenPGP", "<openpgp xmlns='urn:xmpp:openpgp:0'>hQEM</openpgp>"),
    ("other encryption", "<encryption xmlns='urn:xmpp:eme:0' namespace='urn:example:mine' name='Mine'/>"),
)

SAMPLES = [
    Sample("text", "<body>Hi &amp; bye</body>", CREATED, "Hi & bye"),
    Sample("text", "<body>*bold* &gt; and\n&gt; typed</body>", CREATED, "*bold* > and\n> typed"),
    Sample("text", "<body>offered \t  \t\t\t\t \t \t \t    \t\t  \t </body>", CREATED, "offered"),
    Sample("HTML alone", _HTML.format("<p>Hello <b>you</b></p><p>there</p>"), CREATED, "Hello you\nthere"),
    Sample(
        "HTML alone",
        _HTML.format("<p>See <a href='https://x.example/'>this</a><br/><img src='cid:1' alt='a cat'/></p>"),
        CREATED,
        "See this (https://x.example/)\na cat",
    ),
    Sample("HTML alone", f"<body>plain</body>{_HTML.format('<p>rich</p>')}", CREATED, "plain"),
    Sample("subject", "<subject>Please call us</subject>", CREATED, "Please call us", kind="normal"),
    Sample("subject", "<subject>Order</subject><body>It is sent</body>", CREATED, "Order\nIt is sent", kind="normal"),
    Sample("subject", "<subject>Re</subject><body>Really?</body>", CREATED, "Re\nReally?", kind="normal"),
    Sample("subject", "<subject>Order</subject><body>Order\nIt is sent</body>", CREATED, "Order\nIt is sent"),
    Sample("subject", "<subject>Call us</subject><body>Call us</body>", CREATED, "Call us"),
    Sample("headline", "<body>We close at six.</body>", CREATED, "We close at six.", kind="headline"),
    Sample("several languages", "<body xml:lang='de'>Ja</body><body>Yes</body>", CREATED, "Yes"),
    Sample("several languages", "<body xml:lang='de'>Ja, gern</body><body xml:lang='en'>Sure</body>", CREATED, "Sure"),
    Sample("link", _OOB, CREATED, "https://files.example/a.png"),
    Sample("link", f"<body>Look:</body>{_OOB}", CREATED, "Look:\nhttps://files.example/a.png"),
    Sample("link", f"<body>https://files.example/a.png</body>{_OOB}", CREATED, "https://files.example/a.png"),
    Sample(
        "link",
        f"<body>https://files.example/a.png2</body>{_OOB}",
        CREATED,
        "https://files.example/a.png2\nhttps://files.example/a.png",
    ),
    Sample(
        "link", f"<body>(see https://files.example/a.png).</body>{_OOB}", CREATED, "(see https://files.example/a.png)."
    ),
    Sample("shared file", _SHARED.replace("Prices 2026.pdf", "p"), CREATED, "p: https://files.example/p.pdf"),
    Sample("shared file", _SHARED.replace("Prices 2026.pdf", "p.pdf"), CREATED, "https://files.example/p.pdf"),
    Sample("shared file", _SHARED, CREATED, "Prices 2026.pdf: https://files.example/p.pdf"),
    Sample("shared file", f"<body>Here</body>{_SHARED}", CREATED, "Here\nPrices 2026.pdf: https://files.example/p.pdf"),
    Sample("shared file", _SIMS, CREATED, "https://files.example/map.png"),
    Sample("shared file", f"<body>A map</body>{_SIMS}", CREATED, "A map\nhttps://files.example/map.png"),
    Sample(
        "location",
        _PLACE,
        CREATED,
        "Location: 52.5, 13.4 (Berlin)",
        text="52.5, 13.4 (Berlin)",
        data={"is_location": True},
    ),
    Sample(
        "location",
        _PLACE.replace("52.5", "nan"),
        CREATED,
        "Location: Berlin",
        text="Berlin",
        data={"is_location": True},
    ),
    Sample("location", f"<body>geo:52.50,13.4</body>{_PLACE}", CREATED, "geo:52.50,13.4"),
    Sample("location", f"<body>the geo: link</body>{_PLACE}", CREATED, "the geo: link\n52.5, 13.4 (Berlin)"),
    Sample(
        "location",
        f"<body>geo:1..2,3</body>{_PLACE.replace('52.5', 'x')}",
        CREATED,
        "geo:1..2,3\nBerlin",
    ),
    Sample("location", f"<body>Here we are</body>{_PLACE}", CREATED, "Here we are\n52.5, 13.4 (Berlin)"),
    Sample(
        "reply",
        f"<body>&gt; How much?\n12 euros</body><reply xmlns='urn:xmpp:reply:0' id='none'/>{_REPLY_FALLBACK.format(12)}",
        CREATED,
        "12 euros",
        data={"in_reply_to": _NOT_KNOWN},
    ),
    Sample(
        "reply",
        "<body>abcdef</body><reply xmlns='urn:xmpp:reply:0' id='none'/><fallback xmlns='urn:xmpp:fallback:0' "
        "for='urn:xmpp:reply:0'><body start='5' end='2'/><body start='4' end='-1'/></fallback>",
        CREATED,
        "abcdef",
        data={"in_reply_to": _NOT_KNOWN},
    ),
    Sample(
        "correction",
        "<body>fourteen</body><replace xmlns='urn:xmpp:message-correct:0' id='none'/>",
        UPDATED,
        "Correction: fourteen",
        text="fourteen",
    ),
    Sample(
        "correction by nothing",
        "<body/><replace xmlns='urn:xmpp:message-correct:0' id='none'/>",
        RETRACTED,
        _RETRACTION,
    ),
    Sample("retraction", "<retract xmlns='urn:xmpp:message-retract:1' id='none'/>", RETRACTED, _RETRACTION),
    Sample(
        "retraction",
        "<apply-to xmlns='urn:xmpp:fasten:0' id='none'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>"
        "<fallback xmlns='urn:xmpp:fallback:0'/><body>This person attempted to retract a previous message</body>",
        RETRACTED,
        _RETRACTION,
    ),
    Sample(
        "reaction",
        "<reactions xmlns='urn:xmpp:reactions:0' id='none'><reaction>\N{THUMBS UP SIGN}</reaction></reactions>"
        "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reactions:0'><body/></fallback><body>reacted</body>",
        REACTION,
        "\N{THUMBS UP SIGN}",
        data={**_NOT_KNOWN, "reactions": ["\N{THUMBS UP SIGN}"]},
    ),
    Sample(
        "reaction taken back",
        "<reactions xmlns='urn:xmpp:reactions:0' id='none'/>",
        REACTION,
        data={**_NOT_KNOWN, "reactions": []},
    ),
    *(Sample(row, xml, BACK) for row, xml in ENCRYPTED),
    *(Sample(row, f"<body>[This message is encrypted]</body>{xml}", BACK) for row, xml in ENCRYPTED),
    Sample("OTR", "<body>?OTR?v23?\nbob has requested an Off-the-Record conversation.</body>", BACK),
    Sample("OTR", "<body>?OTR:AAMDAAAA.</body>", BACK),
    Sample("OTR", "<body>Here:\n?OTR:AAEDAAAA.</body>", BACK),
    Sample("OTR", "<body>Here: ?OTR?v23?</body>", BACK),
    Sample("OTR", "<subject>?OTR:AAEDAAAA.</subject>", BACK),
    Sample("OTR", _HTML.format("<p>?OTR:AAEDAAAA.</p>"), BACK),
    Sample("OTR", f"{_HTML.format('<p>Hi</p>')}<subject>?OTR:AAEDAAAA.</subject>", BACK),
    Sample(
        "OTR", "<reactions xmlns='urn:xmpp:reactions:0' id='1'><reaction>?OTR:AAEDAAAA.</reaction></reactions>", BACK
    ),
    Sample(
        "text", "<body>What is ?OTR, and aesgcm: in a link?</body>", CREATED, "What is ?OTR, and aesgcm: in a link?"
    ),
    Sample("PGP", "<body>Here it is:\n-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----</body>", BACK),
    Sample("PGP", _HTML.format("<pre>-----BEGIN PGP MESSAGE-----\n\nhQEM</pre>"), BACK),
    Sample("PGP", "<body>-----BEGIN PGP MESSAGE-----\n\nhQEM\n-----END PGP MESSAGE-----</body>", BACK),
    Sample("encrypted file", "<body>aesgcm://files.example/a#00</body>", BACK),
    Sample("encrypted file", "<body>see AESGCM://files.example/a#00 there</body>", BACK),
    Sample("encrypted file", _HTML.format("<p>see <a href='aesgcm://files.example/a#00'>this</a></p>"), BACK),
    Sample("encrypted file", f"<x xmlns='jabber:x:oob'><url>Aesgcm://files.example/a#00</url></x>{_SHARED}", BACK),
    Sample("encrypted file", "<x xmlns='jabber:x:oob'><url>aesgcm://files.example/a#00</url></x>", BACK),
    Sample(
        "encrypted file",
        "<file-sharing xmlns='urn:xmpp:sfs:0'><sources><encrypted xmlns='urn:xmpp:esfs:0'/></sources></file-sharing>",
        BACK,
    ),
    Sample("call", "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'/><store xmlns='urn:xmpp:hints'/>", BACK),
    Sample("call", "<invite xmlns='urn:xmpp:call-invites:0'/><body>A call</body>", BACK),
    Sample("anything else without text", "<attention xmlns='urn:xmpp:attention:0'/>", BACK),
    Sample("anything else without text", "<x xmlns='jabber:x:conference' jid='room@x'/>", BACK, kind="normal"),
    Sample(
        "anything else without text",
        "<geoloc xmlns='http://jabber.org/protocol/geoloc'><lat>x</lat><lon>1</lon></geoloc>",
        BACK,
    ),
    Sample("anything else without text", "<something xmlns='urn:unheard:of'/>", BACK),
    Sample("text", "<body>and so on</body><something xmlns='urn:unheard:of'/>", CREATED, "and so on"),
    Sample("only what says nothing", "", NOTHING),
    Sample("only what says nothing", "<body/>", NOTHING),
    Sample("only what says nothing", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>", NOTHING),
    Sample(
        "only what says nothing", "<active xmlns='http://jabber.org/protocol/chatstates'/><thread>t</thread>", NOTHING
    ),
    Sample("only what says nothing", "<retract xmlns='urn:xmpp:jingle-message:0' id='c1'/>", NOTHING),
    Sample(
        "only what says nothing",
        "<composing xmlns='http://jabber.org/protocol/chatstates'/><typed xmlns='urn:example:mine'>3</typed>",
        NOTHING,
    ),
]
