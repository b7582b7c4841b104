"""What operators' clients mean: read as the table of docs/contents.md says, and nothing lost in silence."""

import re
import string
from pathlib import Path
from random import Random
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.conversations.contents import Content, Kind
from tenants.core.text import clean
from tenants.delivery import plain_lines
from tests.world.contents import BACK, CREATED, NOTHING, REACTION, RETRACTED, SAMPLES, UPDATED, Sample
from xmpp_pool import contents, texts
from xmpp_pool.contents import DROPPED
from xmpp_pool.unshowable import _TEXTS, Reason, Unshowable

PAGE = Path(__file__).parents[2] / "docs" / "contents.md"
EVENTS = {
    Kind.SAYS: CREATED,
    Kind.SHOWS_PLACE: CREATED,
    Kind.EDITS: UPDATED,
    Kind.RETRACTS: RETRACTED,
    Kind.REACTS: REACTION,
}


def message(*elements: str, language: str = "en", **attributes: str) -> ET.Element:
    more = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return ET.fromstring(f"<message xmlns='jabber:client' xml:lang='{language}'{more}>{''.join(elements)}</message>")


def read(*elements: str) -> Content:
    found = contents.read(message(*elements))
    assert isinstance(found, Content)
    return found


def rows() -> list[list[str]]:
    table = PAGE.read_text().partition("|---|---|---|\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def outcome(found: Content | Unshowable | None) -> str:
    if found is None:
        return NOTHING
    return BACK if isinstance(found, Unshowable) else EVENTS[found.kind]


def line(content: Content) -> str:
    """What LHC is posted."""
    match content.kind:
        case Kind.EDITS:
            return plain_lines.correction(content.text, None)
        case Kind.RETRACTS:
            return plain_lines.retraction(None)
        case Kind.REACTS:
            return plain_lines.reaction(content.text)
        case kind:
            return plain_lines.said(content.text, {"is_location": kind is Kind.SHOWS_PLACE}, None)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.row}: {sample.xml[:60]}")
def test_each_row_of_the_table(sample: Sample) -> None:
    found = contents.read(message(sample.xml))
    assert outcome(found) == sample.outcome
    if isinstance(found, Content):
        assert line(found) == (sample.line or "")
    row = next(row for row in rows() if row[0].startswith(sample.row))
    assert row[2].startswith((f"`{sample.outcome}`", sample.outcome))


def test_each_row_of_the_table_has_a_sample() -> None:
    names = [row[0] for row in rows()]
    assert [name for name in names if not any(name.startswith(sample.row) for sample in SAMPLES)] == []


def test_the_page_lists_what_is_dropped_on_purpose() -> None:
    table = PAGE.read_text().partition("## What says nothing")[2]
    assert {*re.findall("`([^`]+:[^`]+)`", table)} == {*DROPPED.values(), "urn:xmpp:carbons:2"}


WORDS = st.text(string.ascii_letters, min_size=12, max_size=16)
"""Long enough to be nothing else."""
OPAQUE = [sample.xml for sample in SAMPLES if sample.outcome == BACK]
SILENT = [sample.xml for sample in SAMPLES if sample.outcome == NOTHING]
SPOKEN = [
    "<body>{}</body>",
    "<body xml:lang='de'>{}</body>",
    "<subject>{}</subject>",
    "<x xmlns='jabber:x:oob'><url>https://{}</url></x>",
    (
        "<file-sharing xmlns='urn:xmpp:sfs:0'><sources><url-data xmlns='http://jabber.org/protocol/url-data' "
        "target='https://{}'/></sources></file-sharing>"
    ),
    "<reference xmlns='urn:xmpp:reference:0' type='data' uri='https://{}'/>",
    "<geoloc xmlns='http://jabber.org/protocol/geoloc'><text>{}</text></geoloc>",
]
BESIDE = [
    "",
    "<replace xmlns='urn:xmpp:message-correct:0' id='1'/>",
    "<reply xmlns='urn:xmpp:reply:0' id='1'/>",
    "<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'/>",
    "<fallback xmlns='urn:xmpp:fallback:0' for='urn:unheard:of'/>",
    "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>",
    "<something xmlns='urn:unheard:of'/>",
    "<request xmlns='urn:xmpp:receipts'/>",
]


@given(st.lists(st.tuples(st.sampled_from(SPOKEN), WORDS)), st.lists(st.sampled_from(BESIDE + SILENT)), st.randoms())
def test_all_words_are_read_in_any_combination(
    spoken: list[tuple[str, str]], beside: list[str], shuffle: Random
) -> None:
    elements = [form.replace("{}", words) for form, words in spoken] + beside
    shuffle.shuffle(elements)
    found = contents.read(message(*elements))
    without_language = any(form == SPOKEN[0] for form, _ in spoken)
    for form, words in spoken:
        if form == SPOKEN[1] and without_language:
            continue  # the same in another language
        assert isinstance(found, Content)
        assert words in found.text
    is_typing = any("<composing" in one for one in beside)
    if not spoken and not is_typing and any("unheard:of'/>" in one and "fallback" not in one for one in beside):
        assert found is not None, "what is not known is told"


@given(st.lists(st.sampled_from([sample.xml for sample in SAMPLES]), max_size=6), st.sampled_from(OPAQUE[:10]))
def test_nothing_of_what_is_encrypted_is_ever_shown(others: list[str], encrypted: str) -> None:
    assert outcome(contents.read(message(*others, encrypted))) == BACK


@given(st.lists(st.sampled_from([sample.xml for sample in SAMPLES if sample.outcome != NOTHING]), min_size=1))
def test_what_means_something_alone_means_something_in_company(elements: list[str]) -> None:
    assert contents.read(message(*elements)) is not None


@given(st.text(st.characters()).map(clean))
def test_any_text_is_read_as_it_is(text: str) -> None:
    found = contents.read(message(f"<body>{escape(text)}</body>"))
    if text.strip() and not any(sign in text for sign in ("?OTR", "-----BEGIN PGP", "aesgcm:")):
        assert isinstance(found, Content)
        assert found.text == text


@given(
    st.text(string.printable).map(clean), st.integers(-5, 60), st.integers(-5, 60), st.sampled_from(["", "x", "9" * 40])
)
def test_ranges_of_fallbacks_may_be_anything(text: str, start: int, end: int, strange: str) -> None:
    fallback = (
        f"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='{start}{strange}' end='{end}'/>"
        f"<body start='{end}' end='{strange}'/></fallback>"
    )
    reply = "<reply xmlns='urn:xmpp:reply:0' id='1'/>"
    found = contents.read(message(f"<body>words {escape(text)}</body>", reply, fallback))
    assert found is not None


@given(st.text(), st.lists(st.tuples(st.integers(-5, 30), st.integers(-5, 30))))
def test_what_is_left_of_a_text_is_never_more_than_it_was(text: str, ranges: list[tuple[int, int]]) -> None:
    cut = {at for start, end in ranges for at in range(max(start, 0), end)}
    left = texts.without(text, ranges)
    assert left == "".join(one for at, one in enumerate(text) if at not in cut)


def test_html_may_be_nested_as_deep_as_anybody_likes() -> None:
    depth = 5000
    nested = "<div>" * depth + "deep" + "</div>" * depth
    found = read(
        "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>"
        f"{nested}</body></html>"
    )
    assert found.text == "deep"


def test_a_quote_is_counted_in_characters() -> None:
    quote = "> \N{GRINNING FACE}\N{GRINNING FACE}\n"
    fallback = (
        f"<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'><body start='0' end='{len(quote)}'/></fallback>"
    )
    found = read(f"<body>{escape(quote)}yes</body><reply xmlns='urn:xmpp:reply:0' id='m1'/>", fallback)
    assert (found.text, found.replies_to) == ("yes", "m1")


def test_a_message_may_have_several_ids() -> None:
    found = read("<body>hi</body><origin-id xmlns='urn:xmpp:sid:0' id='o1'/><stanza-id xmlns='urn:xmpp:sid:0' id='s'/>")
    assert found == Content(text="hi", other_id="o1")


@pytest.mark.parametrize(
    ("language", "begins"), [("de-AT", "Nicht zug"), ("en", "Not del"), ("fi", "Not del"), ("", "Not")]
)
def test_the_reason_is_in_the_operators_language(language: str, begins: str) -> None:
    found = contents.read(message("<encrypted xmlns='urn:xmpp:omemo:2'/>", language=language))
    assert isinstance(found, Unshowable)
    assert found.text.startswith(begins)
    assert "OMEMO" in found.text


@pytest.mark.parametrize("language", _TEXTS)
def test_a_reason_without_a_known_method_reads_well(language: str) -> None:
    texts = [Unshowable(reason, language).text for reason in Reason]
    assert len({*texts}) == len(Reason)
    assert not any("{" in text or "()" in text for text in texts)


def test_a_client_puts_no_words_into_a_reason() -> None:
    """It is logged."""
    found = contents.read(message("<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='secret words'/>"))
    assert isinstance(found, Unshowable)
    assert "secret" not in found.text
