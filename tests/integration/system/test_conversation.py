"""A visitor and an operator talk: presence, messages both ways, callbacks; with a real client and real servers."""

import asyncio
from collections.abc import Awaitable, Callable
from xmlrpc.client import Fault

import pytest

from bench.testbed.lhc import rpc
from bench.testbed.receiver import Callback
from bench.testbed.waiting import until
from tests.world.tenant import Tenant

NewTenant = Callable[..., Awaitable[Tenant]]
PASSWORD = "0123456789abcdef0123"


async def test_a_conversation_both_ways(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    lhc = tenant.lhc

    assert (await lhc.new_visitor("visitor.1", PASSWORD)).json() == {"error": False, "msg": ""}
    await bob.sees(lhc.name("visitor.1"), status="-", nick="Online visitor")
    await bob.has_contact(lhc.name("visitor.1"))

    status = "LT (Vilnius)\n| https://shop.example/?a=1&b=<2>\n| Visits - 3"
    assert (await lhc.page_view("visitor.1", PASSWORD, status=status)).text == "ok"
    await bob.sees(lhc.name("visitor.1"), status=status, nick="Online visitor")

    # line ends become line feeds, and what XML cannot carry is replaced: the message itself is not lost
    written = await lhc.visitor_writes("visitor.1", PASSWORD, "bob", "Hello <b>& you</b> 👋\r\nbye\x0b!")
    assert written.text == "ok"
    read = await bob.reads("Hello <b>& you</b> 👋\nbye\ufffd!")
    assert (read.username, read.type) == (lhc.name("visitor.1"), "chat")
    # neither nick nor status came with the message: the nick is the default, the status stays
    await bob.sees(lhc.name("visitor.1"), status=status)

    bob.write(lhc.name("visitor.1"), "How can I help? ąž ~&= 😀")
    callback = await tenant.receiver.message("How can I help? ąž ~&= 😀")
    assert callback.host == tenant.callback_host
    assert callback.content_type == "application/x-www-form-urlencoded"
    assert (
        callback.raw
        == (
            "body=How%20can%20I%20help%3F%20%C4%85%C5%BE%20%7E%26%3D%20%F0%9F%98%80"
            f"&sender={lhc.name('bob')}&receiver={lhc.name('visitor.1')}&server={tenant.host}&type=chat"
        ).encode()
    )


async def test_messages_of_a_conversation_keep_their_order(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    bodies = [f"message {number} of {tenant.name}" for number in range(50)]
    for body in bodies:
        bob.write(tenant.lhc.name("visitor.1"), body)
    await tenant.receiver.message(bodies[-1])
    assert [c.form["body"] for c in tenant.callbacks() if c.form.get("body") in bodies] == bodies

    for body in bodies:
        assert (await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", body)).text == "ok"
    await bob.reads(bodies[-1])
    assert [message.body for message in bob.messages] == bodies


async def test_an_operator_who_comes_online_sees_who_is_there(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    for number in range(1, 4):
        await tenant.lhc.new_visitor(f"visitor.{number}", PASSWORD, status=f"page {number}", nick=f"John #{number}")
    bob = await tenant.online("bob")
    for number in range(1, 4):
        await bob.sees(tenant.lhc.name(f"visitor.{number}"), status=f"page {number}", nick=f"John #{number}")
    # a nick of the visitor's own becomes the contact's name
    await bob.has_contact(tenant.lhc.name("visitor.1"), "John #1")
    # no second device, no second presence: and none that contradicts
    assert [seen.type for seen in bob.presences if seen.username.startswith("visitor")] == ["available"] * 3


async def test_a_visitor_leaves_when_the_window_is_over(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(online_seconds=2)
    bob = await tenant.operator_online()
    visitor = tenant.lhc.name("visitor.5")
    await tenant.lhc.new_visitor("visitor.5", PASSWORD)
    came = await bob.sees(visitor)
    # a page view prolongs the window without a word to the operator
    await asyncio.sleep(1.2)
    assert (await tenant.lhc.page_view("visitor.5", PASSWORD, status="-")).text == "ok"
    left = await bob.sees(visitor, kind="unavailable")
    assert 3.2 <= left.at - came.at <= 5
    assert [seen.type for seen in bob.presences if seen.username == visitor] == ["available", "unavailable"]


async def test_a_closed_chat_leaves_at_once(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    chat = tenant.lhc.name("visitor.7.chat")
    await tenant.lhc.new_visitor("visitor.7.chat", PASSWORD, nick="Ann #7")
    await bob.sees(chat, nick="Ann #7")
    group = f"visitors.{tenant.name}"
    for endpoint, keys in (
        ("/xmpp-delete-user-from-roaster", {"grouphost": tenant.host, "group": group}),
        ("/xmpp-unregister", {}),
    ):
        answer = await tenant.lhc.call(endpoint, user=chat, host=tenant.host, **keys)
        assert answer.json() == {"error": False, "msg": ""}
    await bob.sees(chat, kind="unavailable")
    await bob.has_no_contact(chat)
    assert chat not in await tenant.system.users_of(tenant.name)


async def test_the_chat_started_flow_of_the_json_mode(tenant: Tenant) -> None:
    """A chat account, then its nick and status by XML-RPC, then its first message: as the extension does it."""
    bob = await tenant.operator_online()
    chat = tenant.lhc.name("visitor.9.chat")
    url = f"{tenant.system.endpoints['api']}/t/{tenant.name}/rpc"
    credentials = {"user": tenant.name, "server": tenant.host, "password": tenant.key}
    await tenant.lhc.new_visitor("visitor.9.chat", PASSWORD)

    info = await rpc(url, credentials, "user_sessions_info", host=tenant.host, user=chat)
    (session,) = info["sessions_info"]
    fields = {name: value for field in session["session"] for name, value in field.items()}
    assert list(fields) == [
        "connection", "ip", "port", "priority", "node", "uptime", "status", "resource", "statustext",
    ]  # fmt: skip
    stanza = (
        "\n  <presence><status>Sales\n| Pending chat &amp; more</status>"
        "<nick xmlns='http://jabber.org/protocol/nick'>Zoë &lt;1&gt; #9</nick></presence>"
    )
    sent = await rpc(
        url, credentials, "send_stanza_c2s", host=tenant.host, user=chat, resource=fields["resource"], stanza=stanza
    )
    assert sent == {"res": 0}
    await bob.sees(chat, nick="Zoë <1> #9", status="Sales\n| Pending chat & more")
    await tenant.lhc.visitor_writes("visitor.9.chat", PASSWORD, "bob", "first", nick="Zoë <1> #9", status="x")
    await bob.reads("first")

    nobody = await rpc(url, credentials, "user_sessions_info", host=tenant.host, user=tenant.lhc.name("visitor.99"))
    assert nobody == {"sessions_info": []}
    with pytest.raises(Fault, match="no_session"):
        await rpc(
            url,
            credentials,
            "send_stanza_c2s",
            host=tenant.host,
            user=tenant.lhc.name("visitor.99"),
            resource="lhc",
            stanza="<presence/>",
        )


async def test_lhc_may_call_back_while_it_holds_a_callback_open(tenant: Tenant) -> None:
    """LHC answers an operator who writes to another's chat by a call of its own, before it answers ours."""
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    calls: list[str] = []

    async def call_back(callback: Callback) -> int:
        if callback.path.endswith("processmessage"):
            told = "[[System Assistant]] Chat was already accepted by Ann"
            answer = await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", told)
            calls.append(answer.text)
            await bob.reads(told)
        return 200

    tenant.receiver.behaviours[tenant.callback_host] = call_back
    bob.write(tenant.lhc.name("visitor.1"), f"mine? {tenant.name}")
    await tenant.receiver.message(f"mine? {tenant.name}")
    await until(lambda: calls == ["ok"], "LHC's call is answered while the callback is open")


async def test_a_failing_lhc_gets_the_message_again_in_order(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    answers = iter([500, 503])

    async def fail_twice(callback: Callback) -> int:
        return next(answers, 200) if callback.form.get("body") == f"one {tenant.name}" else 200

    tenant.receiver.behaviours[tenant.callback_host] = fail_twice
    for body in ("one", "two"):
        bob.write(tenant.lhc.name("visitor.1"), f"{body} {tenant.name}")
    await tenant.receiver.message(f"two {tenant.name}", seconds=30)
    bodies = [c.form["body"].split()[0] for c in tenant.callbacks() if tenant.name in c.form.get("body", "")]
    assert bodies == ["one", "one", "one", "two"]


async def test_a_message_to_an_operator_who_is_offline_waits_in_ejabberd(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    assert (await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", "anybody there?")).text == "ok"
    bob = await tenant.online("bob")
    await bob.reads("anybody there?")


async def test_a_wrong_password_changes_nothing(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="true")
    await bob.sees(tenant.lhc.name("visitor.1"), status="true")
    assert (await tenant.lhc.page_view("visitor.1", "wrong", status="forged")).text == "ok"
    assert (await tenant.lhc.visitor_writes("visitor.1", "wrong", "bob", "forged")).text == "ok"
    # what comes after shows that the forged ones had their chance
    await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", "real", status="true")
    await bob.reads("real")
    assert [message.body for message in bob.messages] == ["real"]
    assert "forged" not in {seen.status for seen in bob.presences}


async def test_an_account_that_lhc_believes_in_is_made_when_it_speaks(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    chat = tenant.lhc.name("visitor.3.chat")
    written = await tenant.lhc.visitor_writes("visitor.3.chat", PASSWORD, "bob", "hi", nick="Eve #3", status="s")
    assert written.text == "ok"
    assert (await bob.reads("hi")).username == chat
    assert chat in await tenant.system.users_of(tenant.name)
    await bob.has_contact(chat, "Eve #3")


async def test_tenants_do_not_hear_each_other(new_tenant: NewTenant) -> None:
    one, other = await new_tenant(), await new_tenant()
    bob, eve = await one.operator_online("bob"), await other.operator_online("eve")
    await one.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(one.lhc.name("visitor.1"))

    message_id = eve.write(one.lhc.name("visitor.1"), f"from next door {one.name}")
    refused = await until(lambda: next((m for m in eve.messages if m.id == message_id), None), "eve is refused")
    assert (refused.type, refused.error) == ("error", "forbidden")

    for answer in (
        await other.lhc.call("/xmpp", jid=f"{one.lhc.name('visitor.1')}@{one.host}", **{"pass": PASSWORD}),
        await other.lhc.call("/xmpp-unregister", user=one.lhc.name("visitor.1"), host=one.host),
        await other.lhc.call("/xmpp-delete-instance-roasters", group=f"visitors.{one.name}", host=one.host),
    ):
        assert answer.json()["error"] is True
        assert "tenant's own" in answer.json()["msg"]
    crossed = await other.lhc.call(
        "/xmpp-send-message",
        jid=f"{other.lhc.name('visitor.1')}@{one.host}",
        **{"pass": PASSWORD},
        operator_username=f"{one.lhc.name('bob')}@{one.host}",
        message="spam",
    )
    assert crossed.json()["error"] is True

    # a message that is theirs arrives after all of that would have
    bob.write(one.lhc.name("visitor.1"), f"at home {one.name}")
    await one.receiver.message(f"at home {one.name}")
    assert one.receiver.messages(f"from next door {one.name}") == []
    assert eve.latest(one.lhc.name("visitor.1")) is None
    assert bob.messages == []
    assert one.lhc.name("visitor.1") in await one.system.users_of(one.name)
