"""The words of a message: its bodies without what their client put in for other clients, HTML, subject, place."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from xml.etree import ElementTree as ET

from xmpp_pool import links
from xmpp_pool.links import Line
from xmpp_pool.stanzas import CLIENT_NS

REPLY_NS = "urn:xmpp:reply:0"
RETRACT_NS = "urn:xmpp:message-retract:1"
FALLBACK_NS, OLD_FALLBACK_NS = "urn:xmpp:fallback:0", "urn:xmpp:feature-fallback:0"
BODY = f"{{{CLIENT_NS}}}body"

Found = Mapping[str, Sequence[ET.Element]]
"""The elements of a message by their tags."""
Range = tuple[int, int]

_SUBJECT = f"{{{CLIENT_NS}}}subject"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_HTML_NS = "{http://www.w3.org/1999/xhtml}"
_HTML = "{http://jabber.org/protocol/xhtml-im}html"
_BLOCKS = {
    f"{_HTML_NS}{name}"
    for name in ["blockquote", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ol", "p", "pre", "tr", "ul"]
}
_PLACE_NS = "{http://jabber.org/protocol/geoloc}"
_PLACE = f"{_PLACE_NS}geoloc"
_ADDRESS = ("description", "text", "building", "street", "area", "postalcode", "locality", "region", "country", "uri")
_GEO_URI = re.compile(r"geo:([-+.\d]{1,32}),([-+.\d]{1,32})", re.ASCII)
_NUMBER = re.compile(r"[-+.eE\d]{1,32}", re.ASCII)
_OTR_TAG = re.compile(" \t  \t\t\t\t \t \t \t  (?:[ \t]{8})*")
"""White space by which a client offers encryption (OTR), in words that are not encrypted."""


def plain(elements: Sequence[ET.Element]) -> str:
    """The body of a message that holds no more, when nothing has to be looked at in it; else empty."""
    text = (elements[0].text or "") if len(elements) == 1 else ""
    is_plain = text[:1].isalnum() and not any(sign in text for sign in _LOOKED_AT) and not elements[0].attrib
    return text if is_plain else ""


_LOOKED_AT = ("\t", "?OTR", "-----BEGIN", "://")
"""What may be white space or text of encryption."""
_CIPHERTEXTS = {
    # Data, a part of it, or the request to begin: in the middle of words, not the mere name.
    "OTR": re.compile(r"\A\s*\?OTR|\?OTR(?::[A-Za-z0-9+/]{4}|[,|][0-9a-fA-F]+[,|]|\??v[0-9x]*\?)"),
    "OpenPGP": re.compile("-----BEGIN PGP MESSAGE-----"),
    "": re.compile("aesgcm://", re.IGNORECASE),
}
"""Text that holds encryption, by its method. The last is a link that holds the key of an encrypted file (XEP-0454)."""


def encryption(text: str) -> str | None:
    """How something in the text is encrypted, empty if that has no name; None if nothing is."""
    return next((method for method, form in _CIPHERTEXTS.items() if form.search(text)), None)


def bodies(found: Found, cut: Collection[str]) -> dict[str, str]:
    """The words by languages, without the fallbacks for those extensions (XEP-0428; empty: for any)."""
    whole = _by_language(found.get(BODY, ()))
    ranges = [one for fallback in _fallbacks(found) if fallback.get("for", "") in cut for one in _ranges(fallback)]
    rest = {language: without(text, ranges) for language, text in whole.items()}
    if REPLY_NS in cut and not any(map(str.strip, rest.values())):
        rest = whole  # a client that marks all that it says as a quote
    return {language: text for language, text in rest.items() if text.strip()}


def with_subjects(said: Mapping[str, str], found: Found) -> dict[str, str]:
    """The words with the subject above them, if there is one; or the subject alone."""
    subjects = {language: text.strip() for language, text in _by_language(found.get(_SUBJECT, ())).items()}
    subjects = {language: text for language, text in subjects.items() if text}
    if not said or not subjects:
        return dict(said or subjects)
    anyhow = subjects.get("") or next(iter(subjects.values()))
    above = {language: subjects.get(language, anyhow) for language in said}
    return {
        language: text if _is_first_line(above[language], text) else f"{above[language]}\n{text}"
        for language, text in said.items()
    }


def _is_first_line(subject: str, text: str) -> bool:
    return f"{text.strip()}\n".startswith(f"{subject}\n")


def html(found: Found) -> dict[str, str]:
    """The text of what has no other body (XEP-0071)."""
    parts: list[str] = []
    for outer in found.get(_HTML, ()):
        for body in outer.findall(f"{_HTML_NS}body")[:1]:
            parts += _text_of(body)
    lines = [" ".join(line.split()) for line in "".join(parts).split("\n")]
    text = "\n".join(line for line in lines if line)
    return {"": text} if text else {}


def place_beside(said: Mapping[str, str], found: Found) -> list[Line]:
    """Where the operator is, or wants the visitor to be (XEP-0080)."""
    points = {_point(*match) for text in said.values() for match in _GEO_URI.findall(text)} - {None}
    # a client says it once more, as the address of a map
    elements = [one for one in found.get(_PLACE, ()) if _point(*_coordinates(one)) not in points]
    return [place for place in map(_place, elements) if place.text]


def is_place_alone(found: Found) -> bool:
    """Whether the message shows a place, and says nothing."""
    if _PLACE not in found:
        return False
    is_said = bodies(found, ()) or html(found) or with_subjects({}, found) or links.lines(found)
    return not is_said and bool(place_beside({}, found))


def _by_language(elements: Iterable[ET.Element]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for element in elements:
        language, text = element.get(_LANGUAGE, ""), _OTR_TAG.sub("", element.text or "")
        # there should be one of each
        texts[language] = f"{texts[language]}\n{text}" if texts.get(language) else text
    return texts


def _fallbacks(found: Found) -> list[ET.Element]:
    return [one for ns in (FALLBACK_NS, OLD_FALLBACK_NS) for one in found.get(f"{{{ns}}}fallback", ())]


def _ranges(fallback: ET.Element) -> list[Range]:
    """Which characters of the body are a fallback: all, unless it says which."""
    elements = [element for element in fallback if element.tag.endswith("}body")]
    if not elements:
        return [] if len(fallback) else [(0, _TO_THE_END)]
    bounds = [(one.get("start", "0"), one.get("end", str(_TO_THE_END))) for one in elements]
    # rather a quote too many than a word too few: a range that cannot be read is none
    return [(int(start), int(end)) for start, end in bounds if _is_index(start) and _is_index(end)]


_TO_THE_END = 999_999_999


def _is_index(text: str) -> bool:
    # digits of other scripts are numbers to `int`
    return re.fullmatch("[0-9]{1,9}", text) is not None


def without(text: str, ranges: Sequence[Range]) -> str:
    """The text without those characters, which are code points (XEP-0426)."""
    kept, at = [], 0
    for start, end in sorted(ranges):
        # where the range before it ends, if that is later; and none ends before it begins
        begin = max(at, start)
        kept.append(text[at:begin])
        at = max(begin, end)
    return "".join([*kept, text[at:]])


def _text_of(body: ET.Element) -> list[str]:
    """Pieces of text, a line feed at each end of a block. No recursion: it may be nested as deep as anybody likes."""
    parts: list[str] = []
    waiting: list[ET.Element | str] = [body]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            parts.append(one)
            continue
        edge = "\n" if one.tag in _BLOCKS else ""
        parts += [edge, _own_text(one)]
        # what comes first is on top
        waiting.append(f"{_target(one)}{edge}")
        for child in reversed(one):
            waiting += [(child.tail or "").replace("\n", " "), child]
    return parts


def _own_text(element: ET.Element) -> str:
    match element.tag.removeprefix(_HTML_NS):
        case "br":
            return "\n"
        case "img":
            return element.get("alt") or _web_address(element.get("src"))
        case _:
            return (element.text or "").replace("\n", " ")


def _target(element: ET.Element) -> str:
    """The address behind a link, unless it is what can be read of it."""
    address = _web_address(element.get("href"))
    return f" ({address})" if address and address != (element.text or "").strip() else ""


def _web_address(address: str | None) -> str:
    # one of an encrypted file is read, to be given back
    is_read = address and address.lower().startswith(("http:", "https:", "mailto:", "tel:", "aesgcm:"))
    return address if address and is_read else ""


def _place(element: ET.Element) -> Line:
    """Its coordinates, then what it is called."""
    lat, lon = _coordinates(element)
    point = f"{lat}, {lon}" if _point(lat, lon) else ""
    names = [" ".join((element.findtext(f"{_PLACE_NS}{name}") or "").split()) for name in _ADDRESS]
    called = ", ".join(dict.fromkeys(name for name in names if name))
    text = f"{point} ({called})" if point and called else point or called
    return Line(point or called, text)


def _coordinates(element: ET.Element) -> tuple[str, str]:
    lat, lon = (element.findtext(f"{_PLACE_NS}{name}", "").strip() for name in ("lat", "lon"))
    return lat, lon


def _point(lat: str, lon: str) -> tuple[float, float] | None:
    """The coordinates as numbers; None if they are none of a place on earth."""
    if not (_NUMBER.fullmatch(lat) and _NUMBER.fullmatch(lon)):
        return None
    try:
        point = float(lat), float(lon)
    except ValueError:
        return None
    return point if abs(point[0]) <= _MOST_LAT and abs(point[1]) <= _MOST_LON else None


_MOST_LAT, _MOST_LON = 90.0, 180.0
