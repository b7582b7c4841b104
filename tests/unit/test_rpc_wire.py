"""XML-RPC's reader: what a client library wrote is read exactly, and whatever else is refused, never raised."""

import xmlrpc.client
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.lhc.rpc_wire import RpcError, read, write, write_fault
from tenants.core.text import clean
from tests.world.rpc import METHODS, Encode, fault_in, library_request, php_request

NAMES = st.from_regex("[a-z_]{1,20}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")) | st.sampled_from(
    ["", " ", "\n", "a\tb\n", "&#38;", "<b>]]>", "]]>", "'\"", "👋ž", "\\n"]
)
CALLS = [library_request(method, {"user": "a"}, arguments) for method, arguments in METHODS.items()]


@pytest.mark.parametrize("encode", [library_request, php_request])
@given(structs=st.lists(st.dictionaries(NAMES, TEXTS, min_size=1, max_size=5), min_size=1, max_size=2))
def test_a_call_is_read_as_it_was_written(encode: Encode, structs: list[dict[str, str]]) -> None:
    assert read(encode("a_method", *structs)) == ("a_method", structs)


@given(st.binary(max_size=2000))
def test_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(RpcError):
        read(body)


def calling(text: bytes) -> bytes:
    """A call of PHP's with that text, as it is, for the argument `body`."""
    return php_request("a_method", {"body": "HERE"}).replace(b"HERE", text)


@given(st.binary(max_size=100))
def test_whatever_bytes_a_text_has_it_is_read(text: bytes) -> None:
    markup = {b"&": b"&#38;", b"<": b"&#60;", b">": b"&#62;"}
    written = b"".join(markup.get(bytes([byte]), bytes([byte])) for byte in text)
    assert read(calling(written)) == ("a_method", [{"body": clean(text.decode(errors="replace"))}])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((reference, "\ufffd") for reference in ("&#11;", "&#x0B;", "&#0;", "&#xFFFE;", "&#xd83d;", "&#55357;")),
        *((reference, "\ufffd") for reference in ("&#1114112;", "&#99999999999999999999;", "&#x110000;")),
        *(("&#0000000000065;", "A"), ("&#x1F44B;", "\U0001f44b"), ("&#13;", "\r"), ("&#10;", "\n")),
        *(("<![CDATA[&#11;\x0b]]>", "&#11;\ufffd"), ("&#38;#11;", "&#11;"), ("]]&#62;", "]]>")),
    ],
)
def test_references_are_mended_where_they_are_some(text: str, expected: str) -> None:
    """Also beside what had to be mended."""
    for beside in ("", "\x0b"):
        assert read(calling((beside + text).encode()))[1] == [{"body": beside.replace("\x0b", "\ufffd") + expected}]


def test_latin_1_is_read_as_it_says() -> None:
    body = calling(b"f\xfcr\x0b").replace(b'encoding="utf-8"', b'encoding="iso-8859-1"')
    assert read(body)[1] == [{"body": "für\ufffd"}]


@pytest.mark.parametrize(
    "wrong",
    [
        calling(b"&unknown;\x0b"),
        calling(b"\x0b").replace(b"<methodCall>", b"<!DOCTYPE x><methodCall>"),
        calling(b"\x0b&a;").replace(b"<methodCall>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><methodCall>"),
        calling(b"\x0b").replace(b"utf-8", b"punycode"),
        calling(b"\x0b" + b"<![CDATA[" * 11_000),
        calling(b"\x0b</string><string>" * 500),
    ],
)
def test_what_is_mended_is_read_with_the_same_care(wrong: bytes) -> None:
    with pytest.raises(RpcError, match="no methodCall"):
        read(wrong)


TAGS = st.sampled_from(
    [
        *("methodCall", "methodName", "params", "param", "value", "struct", "member", "name", "array", "data"),
        *("string", "int", "i4", "i8", "biginteger", "bigdecimal", "double", "boolean", "base64", "nil", "fault"),
        *("dateTime.iso8601", "methodResponse", "ex:nil", "x:int", "unknown"),
    ]
)


@st.composite
def trees(draw: st.DrawFn, depth: int = 5) -> str:
    """Well-formed XML out of the words of XML-RPC, in any order."""
    tag = draw(TAGS)
    if depth == 0 or draw(st.booleans()):
        content = draw(
            st.sampled_from(["", "1", "x", "-", "nan", "1e999", "9" * 5000, "register", "=", "20200101T00:00:00"])
        )
    else:
        content = "".join(draw(st.lists(trees(depth - 1), max_size=4)))
    return (
        f"<{tag}>{content}</{tag.rpartition(' ')[2]}>"
        if ":" not in tag
        else f"<{tag} xmlns:ex='e' xmlns:x='x'>{content}</{tag}>"
    )


@given(trees(), st.lists(trees(), max_size=3))
def test_trees_are_read_or_refused(tree: str, params: list[str]) -> None:
    call = "".join(f"<param><value>{param}</value></param>" for param in params)
    for body in (tree, f"<methodCall><methodName>x</methodName><params>{call}</params></methodCall>"):
        with suppress(RpcError):
            read(body.encode())


@given(
    st.sampled_from(CALLS), st.lists(st.tuples(st.integers(0), st.integers(0, 50), st.binary(max_size=20)), min_size=1)
)
def test_damaged_calls_are_read_or_refused(call: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    for place, length, put in changes:
        start = place % (len(call) + 1)
        call = call[:start] + put + call[start + length :]
    with suppress(RpcError):
        read(call)


@pytest.mark.parametrize(
    "inner",
    [
        "<value><array><data>" * 10 + "</data></array></value>" * 10,
        "<value><array><data>" + "<value/>" * 500 + "</data></array></value>",
        "<value><struct>" + "<member><name>a</name><value/></member>" * 170 + "</struct></value>",
    ],
)
def test_what_is_deeper_or_larger_than_any_call_is_refused(inner: str) -> None:
    body = f"<methodCall><methodName>x</methodName><params><param>{inner}</param></params></methodCall>"
    with pytest.raises(RpcError, match="ValueError"):
        read(body.encode())


def test_a_fault_is_no_longer_than_its_reader_needs() -> None:
    code, text = fault_in(write_fault(RpcError(-118, "<&>" + "x" * 100_000)))
    assert code == -118
    assert text.startswith("Error -118\n<&>xxx")
    assert len(text) < 600


def test_an_answer_is_one_struct() -> None:
    answer = {"res": 0, "text": "ą <&> \"'"}
    assert xmlrpc.client.loads(write(answer)) == ((answer,), None)
