"""What a message links to: out-of-band data (XEP-0066) and shared files (XEP-0447, XEP-0385).

A line is the address, behind what the client calls it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_OOB = "{jabber:x:oob}x"
_SHARING = "{urn:xmpp:sfs:0}file-sharing"
_URL_DATA = "{urn:xmpp:sfs:0}sources/{http://jabber.org/protocol/url-data}url-data"
_ENCRYPTED_SOURCE = "{urn:xmpp:sfs:0}sources/{urn:xmpp:esfs:0}encrypted"
_REFERENCE = "{urn:xmpp:reference:0}reference"
_SIMS_SOURCE = f"{{urn:xmpp:sims:1}}media-sharing/{{urn:xmpp:sims:1}}sources/{_REFERENCE}"
_NAMES = (
    "{urn:xmpp:file:metadata:0}file/{urn:xmpp:file:metadata:0}name",
    (
        "{urn:xmpp:sims:1}media-sharing/{urn:xmpp:jingle:apps:file-transfer:5}file/"
        "{urn:xmpp:jingle:apps:file-transfer:5}name"
    ),
)
_ENCRYPTED_LINK = "aesgcm:"
"""A link that holds the key of an encrypted file (XEP-0454)."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something to be added to what was said, unless that holds the address already."""

    address: str
    text: str


def lines(found: Mapping[str, Sequence[ET.Element]]) -> list[Line]:
    """The links of a message that a visitor can open."""
    return [_line(address, name) for address, name in _links(found) if not address.startswith(_ENCRYPTED_LINK)]


def are_all_encrypted(found: Mapping[str, Sequence[ET.Element]]) -> bool:
    """Whether the message shares files, and each is encrypted."""
    addresses = [address for address, _ in _links(found)]
    if addresses:
        return all(address.startswith(_ENCRYPTED_LINK) for address in addresses)
    return any(sharing.find(_ENCRYPTED_SOURCE) is not None for sharing in found.get(_SHARING, ()))


def _links(found: Mapping[str, Sequence[ET.Element]]) -> Iterator[tuple[str, str]]:
    """Addresses with what they are called."""
    for oob in found.get(_OOB, ()):
        yield from _link(oob.findtext("{jabber:x:oob}url"), oob.findtext("{jabber:x:oob}desc"))
    for sharing in found.get(_SHARING, ()):
        source = sharing.find(_URL_DATA)
        yield from _link(None if source is None else source.get("target"), _name(sharing))
    for reference in found.get(_REFERENCE, ()):
        if reference.get("type") == "data":
            sources = [reference, *reference.findall(_SIMS_SOURCE)]
            uris = [uri for source in sources if (uri := source.get("uri", "")).startswith(("http:", "https:"))]
            yield from _link(uris[0] if uris else None, _name(reference))


def _link(address: str | None, name: str | None) -> Iterator[tuple[str, str]]:
    address = (address or "").strip()
    if address:
        yield address, " ".join((name or "").split())


def _name(element: ET.Element) -> str | None:
    return next((name for path in _NAMES if (name := element.findtext(path))), None)


def _line(address: str, name: str) -> Line:
    return Line(address, f"{name}: {address}" if name and name not in address else address)
