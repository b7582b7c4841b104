"""Any text, both ways, through a real client: it arrives exactly as it is, or is refused and changes nothing."""

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tenants.conversations import chat_lines
from tenants.core.errors import InvalidInputError
from tests.world.tenant_api import TenantApi

MAX_STANZA = 250_000
"""What an operator's client may send at once, a little less than ejabberd's own limit."""
TEXTS = {
    "emoji": "\N{FAMILY}\N{ZERO WIDTH JOINER}\N{EMOJI MODIFIER FITZPATRICK TYPE-5}\U0001faf1\U0001f3fb",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\u202c",
    "combining": "e\N{COMBINING ACUTE ACCENT}" * 3 + "Z" + "\N{COMBINING DOT ABOVE}" * 50,
    "markup": "<script>alert(1)</script> & </body></message></stream:stream> ]]> <![CDATA[x]]> &amp; &#0; <!-- -->",
    "white space": " \t\n  a  \n\n b \u00a0\u2028\u2029 ",
    "noncharacters": "\ufffd\U0001fffe\ue000\ufeff",
    "64 KB": "&" * chat_lines.MAX_BODY,
    "64 KB of more bytes": "\N{GRINNING FACE}" * (chat_lines.MAX_BODY // 4),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_text_arrives_exactly(api: TenantApi, text: str) -> None:
    bob = await api.operator("bob")
    await api.chat("1", message="first")
    await bob.reads("first")
    # as PHP writes it, every character escaped
    body = json.dumps({"message": text})
    answer = await api.http.post("/chats/1/messages", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202
    await bob.reads(text)
    visitor = api.tenant.lhc.name("visitor.1.chat")
    if len(escape(text)) < MAX_STANZA:
        bob.write(visitor, text)
        await api.tenant.receiver.message(text)
    if len(text) <= 200:
        assert (await api.http.patch("/chats/1", json={"nick": text, "status": text})).status_code == 200
        seen = await bob.sees(visitor, status=text)
        assert seen.nick == text


REFUSED = {
    "zero": "a\0b",
    "vertical tab": "\v",
    "escape": "\x1b[31mred",
    "delete is fine but this is not": "\x7f\ufffe",
    "half a character": "\ud83d",
    "nothing": "",
    "too long": "x" * (chat_lines.MAX_BODY + 1),
    "too many bytes": "\N{GRINNING FACE}" * (chat_lines.MAX_BODY // 4 + 1),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
async def test_a_text_that_cannot_arrive_is_refused(api: TenantApi, text: str) -> None:
    bob = await api.operator("bob")
    await api.chat("1", message="first")
    json_type = {"Content-Type": "application/json"}
    # not by httpx, which cannot write half a character
    refused = await api.http.post("/chats/1/messages", content=json.dumps({"message": text}), headers=json_type)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "message"
    if len(text) < 100:
        nick = await api.http.patch("/chats/1", content=json.dumps({"nick": text}), headers=json_type)
        assert nick.status_code == 422
    await api.write("1", "second")
    await bob.reads("second")
    assert [message.body for message in bob.messages] == ["first", "second"]


@dataclass
class Talk:
    """A chat that an operator has."""

    api: TenantApi
    bob: Operator
    visitor: str


@pytest.fixture
async def talk(api: TenantApi) -> Talk:
    bob = await api.operator("bob")
    await api.chat("1", message="first")
    await bob.reads("first")
    return Talk(api, bob, api.tenant.lhc.name("visitor.1.chat"))


# not shrunk: the first text that fails tells enough, and each try takes a while
@given(text=st.text(min_size=1, max_size=300))
@settings(
    max_examples=100,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_whatever_is_written_arrives_or_is_refused(talk: Talk, text: str) -> None:
    before = len(talk.bob.messages)
    content, headers = json.dumps({"message": text}), {"Content-Type": "application/json"}
    answer = await talk.api.http.post("/chats/1/messages", content=content, headers=headers)
    try:
        expected = chat_lines.check_body(text)
    except InvalidInputError:
        assert answer.status_code == 422
        return
    assert answer.status_code == 202
    await until(lambda: len(talk.bob.messages) > before, "the operator reads it")
    assert [message.body for message in talk.bob.messages[before:]] == [expected]
    if not expected.strip():
        return  # of an operator's client white space alone says nothing
    talk.bob.write(talk.visitor, expected)
    await talk.api.tenant.receiver.message(expected)
