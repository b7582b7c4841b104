"""What a message links to: out-of-band data (XEP-0066) and shared files (XEP-0447, XEP-0385).

A line is the address, behind what the client calls it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote
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

    def is_in(self, said: str) -> bool:
        """Whether that holds the address: as a whole, not as the beginning of another one."""
        return re.search(rf"(?<![\w/=]){re.escape(self.address)}(?![\w/?#&=%~+@-]|[.,:;!]\w)", said) is not None


def lines(found: Mapping[str, Sequence[ET.Element]]) -> list[Line]:
    """The links of a message that a visitor can open."""
    return [_line(address, name) for address, name in _links(found) if not _is_encrypted(address)]


def is_any_encrypted(found: Mapping[str, Sequence[ET.Element]]) -> bool:
    """Whether the message shares a file that is encrypted: it would be missing among the others."""
    if any(_is_encrypted(address) for address, _ in _links(found)):
        return True
    encrypted = [one for one in found.get(_SHARING, ()) if one.find(_ENCRYPTED_SOURCE) is not None]
    return any(one.find(_URL_DATA) is None for one in encrypted)


def _is_encrypted(address: str) -> bool:
    return address.lower().startswith(_ENCRYPTED_LINK)


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
    # most addresses end with the name of the file
    end = unquote(re.split("[?#]", address)[0].rpartition("/")[2])
    return Line(address, f"{name}: {address}" if name and name != end else address)
