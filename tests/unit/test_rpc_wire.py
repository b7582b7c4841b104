"""XML-RPC's reader: what a client library wrote is read exactly, and whatever else is refused, never raised."""

import xmlrpc.client
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api.lhc.rpc_wire import RpcError, read, write, write_fault
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
