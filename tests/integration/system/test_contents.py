"""Whatever an operator's client sends is told as the table of docs/contents.md says, or comes back with a reason."""

import json
from typing import Any

import pytest

from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tests.world.contents import BACK, ENCRYPTED, NOTHING, SAMPLES, UPDATED, Sample
from tests.world.tenant import NewTenant, Tenant
from tests.world.tenant_api import TenantApi
from tests.world.told import Told, login
from tests.world.visitors import PASSWORD, new_visitor

END = "that was all"


def send(operator: Operator, to: str, xml: str, stanza_id: str, kind: str = "chat", *, language: str = "en") -> None:
    operator.send_raw(f"<message to='{to}' type='{kind}' id='{stanza_id}' xml:lang='{language}'>{xml}</message>")


async def all_sent(new_tenant: NewTenant, **wanted: str) -> tuple[Tenant, Operator]:
    """A tenant, and an operator who has sent each sample to a visitor of its own, and then the end."""
    tenant = await new_tenant()
    bob = await tenant.operator_online("bob")
    url = f"http://{tenant.callback_host}:{tenant.receiver.port}/"
    changed = await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"callback_url": url, **wanted})
    assert changed.status_code in {200, 202}, changed.text
    for number, sample in enumerate(SAMPLES, 1):
        visitor = f"{tenant.lhc.name(f'visitor.{number}')}@{tenant.host}"
        send(bob, visitor, sample.xml, f"s{number}", sample.kind)
        send(bob, visitor, f"<body>{END}</body>", f"e{number}")
    return tenant, bob


def visitor_of(tenant: Tenant, number: int) -> str:
    return tenant.lhc.name(f"visitor.{number}")


def came_back(bob: Operator, number: int) -> str:
    return bob.error_of(f"s{number}")


@pytest.mark.parametrize("routing", ["lhc", "orchestrator"])
async def test_each_row_of_the_table_as_lhc_is_posted_it(new_tenant: NewTenant, routing: str) -> None:
    tenant, bob = await all_sent(new_tenant, routing=routing)

    def lines(number: int) -> list[str]:
        forms = [one.form for one in tenant.callbacks("/xmppservice/processmessage")]
        return [form["body"] for form in forms if form["receiver"] == visitor_of(tenant, number)]

    for number, sample in enumerate(SAMPLES, 1):
        await until(lambda number=number: lines(number)[-1:] == [END], f"all is posted after {sample.xml}")  # type: ignore[misc]
        assert lines(number) == [*([sample.line] if sample.line else []), END], sample.xml
        assert came_back(bob, number) == ("not-acceptable" if sample.outcome == BACK else ""), sample.xml


@pytest.mark.parametrize("routing", ["lhc", "orchestrator"])
async def test_each_row_of_the_table_as_webhooks_tell_it(new_tenant: NewTenant, routing: str) -> None:
    tenant, bob = await all_sent(new_tenant, routing=routing, event_format="webhook")
    created = "message.created" if routing == "lhc" else "invitation.created"

    def events(number: int) -> list[tuple[str, dict[str, Any]]]:
        all_ = [json.loads(one.raw) for one in tenant.callbacks("/")]
        of_visitor = [one for one in all_ if one["data"].get("username") == visitor_of(tenant, number)]
        # whether a sign of typing is told depends on what waits
        return [(one["type"], one["data"]) for one in of_visitor if one["type"] != "typing"]

    def is_all_told(number: int) -> bool:
        told = events(number)
        return bool(told) and told[-1][1].get("message") == END

    for number, sample in enumerate(SAMPLES, 1):
        await until(lambda number=number: is_all_told(number), f"all is told after {sample.xml}")  # type: ignore[misc]
        told = events(number)[:-1]
        assert [kind for kind, _ in told] == expected(sample, created), sample.xml
        assert came_back(bob, number) == ("not-acceptable" if sample.outcome == BACK else ""), sample.xml
        for _, data in told:
            assert data.get("message") == (sample.text or sample.line if "message" in data else None), sample.xml
            assert sample.data.items() <= data.items(), sample.xml
            assert data.get("is_correction") == (True if sample.outcome == UPDATED else None)


def expected(sample: Sample, created: str) -> list[str]:
    """The events: of a line that is not known, an edit is a line of its own."""
    if sample.outcome in {BACK, NOTHING}:
        return []
    return [created if sample.outcome in {"message.created", UPDATED} else sample.outcome]


async def test_only_who_says_something_takes_a_chat(api: TenantApi, hooked: Told) -> None:
    bob = await login(api, hooked, "bob")
    chat = await api.chat("5", message="hello?")
    await bob.reads("hello?")
    to = f"{chat['username']}@{api.tenant.host}"
    silent = [sample for sample in SAMPLES if sample.outcome in {BACK, "message.retracted", "message.reaction"}]
    for number, sample in enumerate(silent):
        send(bob, to, sample.xml, f"s{number}", sample.kind, language="de")
    last = max(number for number, sample in enumerate(silent) if sample.outcome == BACK)
    await until(lambda: bob.error_of(f"s{last}"), "the last one comes back")
    await hooked.next("message.reaction", reactions=[])
    assert await api.owner("5") is None
    errors = {one.find("{jabber:client}error") for one in bob.stanzas if one.get("type") == "error"}
    assert {error.get("type") for error in errors if error is not None} == {"modify"}
    reasons = {message.reason for message in bob.messages if message.error}
    assert any(reason.startswith("Nicht zugestellt: Die Nachricht ist verschlüsselt (OMEMO)") for reason in reasons)
    assert hooked.of("message.created") == hooked.of("chat.accepted") == []
    bob.write(to, "here I am")
    await hooked.next("message.created", message="here I am")
    assert await api.owner("5") == "bob"


def replacing(line: str, body: str) -> str:
    return f"<body>{body}</body><replace xmlns='urn:xmpp:message-correct:0' id='{line}'/>"


def retracting(line: str) -> str:
    return f"<retract xmlns='urn:xmpp:message-retract:1' id='{line}'/>"


def reacting(line: str) -> str:
    return f"<reactions xmlns='urn:xmpp:reactions:0' id='{line}'><reaction>\N{HEAVY BLACK HEART}</reaction></reactions>"


async def test_webhooks_tell_which_line_is_meant(api: TenantApi, hooked: Told) -> None:
    await api.tenant.panel.http.put(f"/v1/tenants/{api.tenant.name}", json={"history_hours": 1})
    bob = await login(api, hooked, "bob")
    chat = await api.chat("5", message="hello?")
    to = f"{chat['username']}@{api.tenant.host}"
    await api.write("5", "how much is it?", message_id="line-0001")
    asked = (await bob.reads("how much is it?")).id
    send(bob, to, "<body>12 euros</body><origin-id xmlns='urn:xmpp:sid:0' id='o1'/>", "m1")
    said = (await hooked.next("message.created", message="12 euros"))["message_id"]
    send(bob, to, replacing("m1", "13 euros"), "m2")
    send(bob, to, replacing("m1", "14 euros"), "m3")
    send(bob, to, replacing("m3", "15 euros"), "m4")  # a client that names the latest one
    for text in ("13 euros", "14 euros", "15 euros"):
        assert (await hooked.next("message.updated", message=text))["message_id"] == said
    send(bob, to, f"<body>each</body><reply xmlns='urn:xmpp:reply:0' id='{asked}'/>", "m5")
    reply = await hooked.next("message.created", message="each")
    assert reply["in_reply_to"] == {"message_id": "line-0001", "written_by": "visitor"}
    await api.http.patch("/chats/5/messages/line-0001", json={"message": "how much is that?"})
    corrected = (await bob.reads("how much is that?")).id
    for line, meant in (
        (asked, ("line-0001", "visitor")),
        (corrected, ("line-0001", "visitor")),
        ("o1", (said, "operator")),
        ("m5", (reply["message_id"], "operator")),
    ):
        send(bob, to, reacting(line), f"r-{line}")
        await hooked.next("message.reaction", message_id=meant[0], written_by=meant[1], chat_id="5")
    send(bob, to, retracting("m5"), "m6")
    await hooked.next("message.retracted", message_id=reply["message_id"])
    assert None not in [one["message_id"] for one in hooked.of("message.reaction")]
    # what is not known becomes a line, which is edited from then on
    send(bob, to, replacing("long-ago", "new words"), "m7")
    changed = await hooked.next("message.created", message="new words", is_correction=True)
    send(bob, to, replacing("long-ago", "newer words"), "m8")
    assert (await hooked.next("message.updated", message="newer words"))["message_id"] == changed["message_id"]
    kept = (await api.http.get("/chats/5/messages")).json()["messages"]
    suffix = f"bob.{api.tenant.name}"
    assert [one["body"] for one in kept if one["sender"] == suffix] == ["15 euros", None, "newer words"]
    assert not [message for message in bob.messages if message.error]


async def test_lhcs_lines_are_known_as_the_visitors(new_tenant: NewTenant) -> None:
    """Though it gives them no ids, and nothing is kept of them."""
    tenant = await new_tenant()
    bob = await tenant.operator_online("bob")
    url = f"http://{tenant.callback_host}:{tenant.receiver.port}/"
    wanted = {"callback_url": url, "routing": "lhc", "event_format": "webhook"}
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json=wanted)
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", "hello?")
    asked = (await bob.reads("hello?")).id
    to = f"{visitor_of(tenant, 1)}@{tenant.host}"
    for number, line in enumerate((asked, "of-nobody")):
        send(bob, to, reacting(line), f"m{number}")
    send(bob, to, f"<body>hi</body><reply xmlns='urn:xmpp:reply:0' id='{asked}'/>", "m2")

    def told(kind: str) -> list[dict[str, Any]]:
        events = [json.loads(one.raw) for one in tenant.callbacks()]
        return [one["data"] for one in events if one.get("type") == kind]

    await until(lambda: told("message.created"), "all is told")
    meant = [(one["message_id"], one["written_by"]) for one in told("message.reaction")]
    assert meant == [(None, "visitor"), (None, None)]
    assert told("message.created")[0]["in_reply_to"] == {"message_id": None, "written_by": "visitor"}


async def test_nobody_edits_what_another_said(api: TenantApi, hooked: Told) -> None:
    bob, eve = await login(api, hooked, "bob"), await login(api, hooked, "eve")
    chat = await api.chat("5", message="hello?")
    to = f"{chat['username']}@{api.tenant.host}"
    send(bob, to, "<body>from Bob</body>", "m1")
    await hooked.next("message.created", message="from Bob")
    assert (await api.http.put("/chats/5/owner", json={"operator": "eve"})).status_code == 200
    send(eve, to, retracting("m1"), "m2")
    assert (await hooked.next("message.retracted"))["message_id"] is None
    send(eve, to, replacing("m1", "from Eve"), "m3")
    assert (await hooked.next("message.created", message="from Eve"))["is_correction"]
    assert hooked.of("message.updated") == []


async def test_visitors_read_their_own_language(tenant: Tenant) -> None:
    changed = await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"language": "de-AT"})
    assert changed.json()["language"] == "de-AT"
    refused = await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"language": "no language"})
    assert refused.status_code == 422
    bob = await tenant.operator_online("bob")
    visitor = f"{tenant.lhc.name('visitor.1')}@{tenant.host}"
    send(bob, visitor, "<body xml:lang='en'>sure</body><body xml:lang='de'>gern</body>", "m1")
    send(bob, visitor, replacing("m1", "sehr gern"), "m2")
    send(bob, visitor, retracting("m1"), "m3")
    for line in ("gern", "Korrektur: sehr gern", "Eine frühere Nachricht wurde zurückgezogen."):
        await tenant.receiver.message(line)
    assert tenant.receiver.messages("sure") == []


async def test_a_browser_reads_each_row_as_lhc_is_posted_it(new_tenant: NewTenant) -> None:
    """One that is logged in itself: nothing that comes back, no fallbacks, corrections as such."""
    tenant = await new_tenant()
    bob = await tenant.operator_online("bob")
    async with await new_visitor(tenant) as browser:
        for number, sample in enumerate(SAMPLES, 1):
            send(bob, browser.jid, sample.xml + "<request xmlns='urn:xmpp:receipts'/>", f"s{number}", sample.kind)
        send(bob, browser.jid, f"<body>{END}</body>", "end")
        await browser.reads(END)
        assert browser.bodies() == [*(sample.line for sample in SAMPLES if sample.line), END]
        messages = [one for one in browser.stanzas if one.tag == "{jabber:client}message"]
        told = {child.tag for one in messages if one.find("{jabber:client}body") is not None for child in one}
        assert told == {"{jabber:client}body"}
        assert browser.errors() == []
        await tenant.receiver.message(END)


async def test_a_browser_reads_nothing_of_an_operator_whose_chat_it_is_not(api: TenantApi, hooked: Told) -> None:
    bob, eve = await login(api, hooked, "bob"), await login(api, hooked, "eve")
    async with await new_visitor(api.tenant, "visitor.5.chat") as browser:
        await api.chat("5", message="hello?")
        await bob.reads("hello?")
        bob.write(browser.jid, "from Bob")
        await browser.reads("from Bob")
        eve.write(browser.jid, "from Eve")
        await until(lambda: any("already accepted" in one.body for one in eve.messages), "Eve is told")
        bob.write(browser.jid, "the end")
        await browser.reads("the end")
        assert browser.bodies() == ["from Bob", "the end"]


async def test_a_room_is_no_visitor(api: TenantApi, hooked: Told) -> None:
    bob = await login(api, hooked, "bob")
    made = (await api.http.post("/rooms", json={"name": "Team"})).json()
    room = made["address"]
    await bob.join(room, "Bob")
    send(bob, room, ENCRYPTED[1][1] + "<body>encrypted</body>", "m1", "groupchat")
    send(bob, room, "<x xmlns='jabber:x:oob'><url>https://x.example/</url></x>", "m2", "groupchat")
    send(bob, room, replacing("m2", "other words"), "m3", "groupchat")
    send(bob, room, retracting("m2"), "m4", "groupchat")
    send(bob, room, "<something xmlns='urn:unheard:of'/>", "m5", "groupchat")
    send(bob, room, "<body>the end</body>", "m6", "groupchat")
    await hooked.next("room.message", message="the end")
    told = [(one["message"], one.get("is_correction")) for one in hooked.of("room.message")]
    assert told == [
        ("https://x.example/", None),
        ("other words", True),
        ("An earlier message was withdrawn.", None),
        ("the end", None),
    ]
    await bob.is_refused("m1")
    assert [message.id for message in bob.messages if message.error] == ["m1"]


async def test_a_visitor_is_no_room(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    visitor = f"{tenant.lhc.name('visitor.1')}@{tenant.host}"
    send(bob, visitor, "<body>to all</body>", "m1", "groupchat")
    send(bob, visitor, reacting("m1"), "m2", "groupchat")
    for stanza_id in ("m1", "m2"):
        await until(lambda stanza_id=stanza_id: bob.error_of(stanza_id), f"{stanza_id} comes back")  # type: ignore[misc]
    assert tenant.receiver.messages("to all") == []


async def test_what_was_read_is_bounded_however_long_its_ids_are(api: TenantApi, hooked: Told) -> None:
    bob = await login(api, hooked, "bob")
    chat = await api.chat("5", message="hello?")
    to = f"{chat['username']}@{api.tenant.host}"
    long = "m" * 5000
    send(bob, to, f"<body>words</body><origin-id xmlns='urn:xmpp:sid:0' id='o{long}'/>", long)
    said = await hooked.next("message.created", message="words")
    send(bob, to, replacing(long, "other words"), "m2")
    corrected = await hooked.next("message.created", message="other words", is_correction=True)
    assert corrected["message_id"] != said["message_id"]
