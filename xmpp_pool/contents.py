"""What an operator's client means by a message, whatever extensions it is made of.

Pure. The table of `docs/contents.md` says the same, and a test holds them together: what is neither words for the
visitor nor given back to the operator is dropped on purpose, and listed there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

from tenants.conversations.contents import Content, Kind
from tenants.core import languages
from xmpp_pool import links, texts
from xmpp_pool.stanzas import CHAT_STATES_NS, CLIENT_NS, MARKERS_NS, NICK_NS, RECEIPTS_NS, SID_NS
from xmpp_pool.unshowable import Reason, Unshowable

Found = Mapping[str, Sequence[ET.Element]]
"""The elements of a message by their tags."""

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_REACTIONS_NS = "urn:xmpp:reactions:0"
_REACTIONS = f"{{{_REACTIONS_NS}}}reactions"
_REPLACE = "{urn:xmpp:message-correct:0}replace"
_REPLY = f"{{{texts.REPLY_NS}}}reply"
_RETRACT = f"{{{texts.RETRACT_NS}}}retract"
_APPLY_TO, _RETRACT_V0 = "{urn:xmpp:fasten:0}apply-to", "{urn:xmpp:message-retract:0}retract"
_ORIGIN_ID = f"{{{SID_NS}}}origin-id"
_OCCUPANTS_NS = "urn:xmpp:occupant-id:0"
"""Later versions of ejabberd add one to each message in a room."""
_REQUEST, _MARKABLE = f"{{{RECEIPTS_NS}}}request", f"{{{MARKERS_NS}}}markable"
_CALLS = {"{urn:xmpp:jingle-message:0}propose", "{urn:xmpp:call-invites:0}invite"}

_ENCRYPTED_FOR = "{urn:xmpp:eme:0}encryption"
_METHODS = {
    "eu.siacs.conversations.axolotl": "OMEMO",
    "urn:xmpp:omemo:1": "OMEMO",
    "urn:xmpp:omemo:2": "OMEMO",
    "urn:xmpp:otr:0": "OTR",
    "jabber:x:encrypted": "OpenPGP",
    "urn:xmpp:openpgp:0": "OpenPGP",
}
"""By their namespaces, also as XEP-0380 names them."""
_ENCRYPTED = {
    **{f"{{{namespace}}}encrypted": method for namespace, method in _METHODS.items() if method == "OMEMO"},
    "{jabber:x:encrypted}x": "OpenPGP",
    "{urn:xmpp:openpgp:0}openpgp": "OpenPGP",
    "{urn:ietf:params:xml:ns:xmpp-e2e}e2e": "",
}

DROPPED = {
    "chat states": CHAT_STATES_NS,
    "receipts": RECEIPTS_NS,
    "chat markers": MARKERS_NS,
    "old events": "jabber:x:event",
    "hints": "urn:xmpp:hints",
    "ids": SID_NS,
    "ids of who is in a room": _OCCUPANTS_NS,
    "nicknames": NICK_NS,
    "delays": "urn:xmpp:delay",
    "old delays": "jabber:x:delay",
    "what becomes of a call": "urn:xmpp:jingle-message:0",
    "what becomes of an invitation to a call": "urn:xmpp:call-invites:0",
    "a reply without words": texts.REPLY_NS,
    "marks of fallbacks": texts.FALLBACK_NS,
    "old marks of fallbacks": texts.OLD_FALLBACK_NS,
    "styling": "urn:xmpp:styling:0",
    "signatures": "jabber:x:signed",
}
"""The namespaces of what says nothing to a visitor when it is alone. (Its elements are told to nobody.)"""
_BESIDE_TEXT = {
    texts.BODY, f"{{{CHAT_STATES_NS}}}active", _REQUEST, _MARKABLE,
    _ORIGIN_ID, f"{{{SID_NS}}}stanza-id", f"{{{_OCCUPANTS_NS}}}occupant-id",
}  # fmt: skip
"""What nearly all messages consist of, and which are to be read fast."""
_SAYS_NOTHING = {*DROPPED.values(), CLIENT_NS}
_OF_A_MESSAGE_YET_TO_COME = {f"{{{CHAT_STATES_NS}}}{state}" for state in ("composing", "paused", "inactive", "gone")}
"""Chat states that no content comes with (XEP-0085, 5.5): whatever is beside them says nothing either."""
_ALONE_DROPPED = {"{urn:xmpp:carbons:2}private", _REPLACE, _REACTIONS}


def read(message: ET.Element) -> Content | Unshowable | None:
    """What the message means, or why it cannot be shown; None if it says nothing."""
    found: defaultdict[str, list[ET.Element]] = defaultdict(list)
    for element in message:
        found[element.tag].append(element)
    other_id = _id(found.get(_ORIGIN_ID, ()))
    if found.keys() <= _BESIDE_TEXT and (text := texts.plain(found[texts.BODY])):
        return Content(text=text, other_id=other_id)
    language = message.get(_LANGUAGE)
    said = _said(found)
    method = _encryption(found, said.values())
    if method is not None:
        return Unshowable(Reason.ENCRYPTED, language, method)
    if found.keys() & _CALLS:
        return Unshowable(Reason.CALL, language)
    retracted = _retracted(found)
    if retracted is not None:
        return Content(Kind.RETRACTS, about=retracted, other_id=other_id)
    if said:
        return _content(said, found, other_id)
    if _REACTIONS in found:
        return Content(Kind.REACTS, _reactions(found), about=_id(found[_REACTIONS]), other_id=other_id)
    if not found.keys() & _OF_A_MESSAGE_YET_TO_COME and any(not _says_nothing(tag) for tag in found):
        return Unshowable(Reason.UNKNOWN, language)
    if _REPLACE in found:  # by nothing
        return Content(Kind.RETRACTS, about=_id(found[_REPLACE]), other_id=other_id)
    return None


def _encryption(found: Found, said: Iterable[str]) -> str | None:
    """How the message is encrypted, empty if that is not known; None if it is not. `said`: all that would be shown."""
    for tag, method in _ENCRYPTED.items():
        if tag in found:
            return method
    for element in found.get(_ENCRYPTED_FOR, ()):
        return _METHODS.get(element.get("namespace", ""), "")
    for text in [*said, _reactions(found)]:
        method_of_text = texts.encryption(text)
        if method_of_text is not None:
            return method_of_text
    return "" if links.is_any_encrypted(found) else None


def _id(elements: Sequence[ET.Element]) -> str:
    return elements[0].get("id", "") if elements else ""


def _retracted(found: Found) -> str | None:
    """The line that is taken back (XEP-0424): whatever words are with it are for clients that know no retractions."""
    if _RETRACT in found:
        return _id(found[_RETRACT])
    outer = [element for element in found.get(_APPLY_TO, ()) if element.find(_RETRACT_V0) is not None]
    return _id(outer) if outer else None


def _said(found: Found) -> dict[str, str]:
    """What the visitor is to read, by languages; the empty one is for everybody."""
    cut = [texts.REPLY_NS] if _REPLY in found else []
    cut += [_REACTIONS_NS, ""] if _REACTIONS in found else []
    said = texts.bodies(found, cut) or texts.html(found)
    said = texts.with_subjects(said, found)
    lines = [*links.lines(found), *texts.place_beside(said, found)]
    for line in lines if said else ():
        said = {language: text if line.is_in(text) else f"{text}\n{line.text}" for language, text in said.items()}
    if not said and lines:
        said = {"": "\n".join(dict.fromkeys(line.text for line in lines))}
    return said


def _content(said: Mapping[str, str], found: Found, other_id: str) -> Content:
    text = said.get("") or languages.find(said, "en") or next(iter(said.values()))
    kind = Kind.SAYS
    if _REPLACE in found:
        kind = Kind.EDITS
    elif texts.is_place_alone(found):
        kind = Kind.SHOWS_PLACE
    return Content(
        kind,
        text,
        translations=said if len(said) > 1 and "" not in said else {},
        about=_id(found.get(_REPLACE, ())),
        replies_to=_id(found[_REPLY]) if _REPLY in found else None,
        other_id=other_id,
    )


def _reactions(found: Found) -> str:
    """One on each line; it may be none, after the last one was taken back."""
    reactions = [" ".join((one.text or "").split()) for element in found.get(_REACTIONS, ())[:1] for one in element]
    return "\n".join(dict.fromkeys(one for one in reactions if one))


def _says_nothing(tag: str) -> bool:
    return tag[1:].partition("}")[0] in _SAYS_NOTHING or tag in _ALONE_DROPPED
