"""Events as signed webhooks, from a real operator's client to a real receiver."""

import json
from base64 import b64encode

from standardwebhooks import Webhook, WebhookVerificationError

from bench.testbed.receiver import Callback
from bench.testbed.waiting import until
from tests.world.chats import ACCEPTED, read_by
from tests.world.tenant import NewTenant
from tests.world.tenant_api import TenantApi
from tests.world.told import Told, login
from xmpp_pool.stanzas import CHAT_STATES_NS, RECEIPTS_NS


async def test_a_chat_as_events(api: TenantApi, hooked: Told) -> None:
    tenant = api.tenant
    made = await api.http.put("/operators/bob", json={"password": "operator-pw", "nick": "Bob"})
    assert made.status_code == 201
    bob = await tenant.online("bob")
    about = {"instance_name": tenant.name, "operator": "bob"}
    assert await hooked.next("operator.connected") == about
    await api.http.post("/visitors/7/pageviews", json={"page": "Prices"})
    visitor = tenant.lhc.name("visitor.7")
    await bob.sees(visitor)
    bob.write(visitor, "may I <help> \N{GRINNING FACE} you?")
    invitation = await hooked.next("invitation.created")
    message_id = invitation.pop("message_id")
    assert invitation == {
        **about,
        "username": visitor,
        "visitor_id": "7",
        "message": "may I <help> \N{GRINNING FACE} you?",
    }
    assert message_id.startswith("evt_")
    await api.chat("8", visitor_id="7", message="yes, please")
    await bob.reads("yes, please")
    bob.write(visitor, "then listen")
    accepted = await hooked.next("chat.accepted")
    assert accepted == {**about, "username": visitor, "visitor_id": "7", "chat_id": "8"}
    assert (await hooked.next("message.created"))["chat_id"] == "8"
    order = [json.loads(one.raw)["type"] for one in hooked.all()]
    assert order.index("chat.accepted") < order.index("message.created")
    await api.http.put("/operators/eve", json={"password": "operator-pw"})
    given = await api.http.put("/chats/8/owner", json={"operator": "eve"})
    assert given.status_code == 200
    transferred = await hooked.next("chat.transferred", operator="eve")
    assert transferred["previous_owner"] == "bob"
    await bob.reads(ACCEPTED.format("eve"))
    assert read_by(bob) == ["yes, please", ACCEPTED.format("eve")]
    await hooked.next("operator.ping", connection=f"{tenant.lhc.name('bob')}@{tenant.host}/desk")
    # for webhooks, who is connected does not connect once more
    bob.set_presence("away")
    bob.set_presence()
    await bob.leave()
    assert await hooked.next("operator.disconnected") == about
    assert len(hooked.of("operator.connected")) == 1


async def test_webhooks_are_signed_and_keys_rotate(api: TenantApi, hooked: Told) -> None:
    first = (await api.http.post("/signing-key", json={"overlap_seconds": 0})).json()["signing_key"]
    await login(api, hooked, "bob")
    connected = await until(lambda: next(iter(hooked.all()), None), "an event")
    assert Webhook(first).verify(connected.raw, dict(connected.headers))
    second = (await api.http.post("/signing-key", json={"overlap_seconds": 600})).json()["signing_key"]
    assert second != first
    pinged = await until(
        lambda: next((one for one in hooked.all() if _verifies(second, one)), None), "an event signed with the new key"
    )
    assert _verifies(first, pinged), "both sign for a while"
    assert not _verifies(f"whsec_{b64encode(bytes(32)).decode()}", pinged)


def _verifies(key: str, callback: Callback) -> bool:
    try:
        Webhook(key).verify(callback.raw, dict(callback.headers))
    except WebhookVerificationError:
        return False
    return True


async def test_a_message_that_came_back_is_told(api: TenantApi, hooked: Told) -> None:
    """To an operator whose account went behind our back."""
    await login(api, hooked, "bob")
    await api.chat("5", message="hello?")
    given = await api.http.put("/chats/5/owner", json={"operator": "bob"})
    assert given.status_code == 200
    tenant = api.tenant
    await tenant.system.unregister(tenant.lhc.name("bob"))
    line = await api.write("5", "where are you?", message_id="line-0002")
    failed = await hooked.next("message.failed", message_id="line-0002")
    assert (failed["operator"], failed["condition"], failed["chat_id"]) == ("bob", "service-unavailable", "5")
    lines = (await api.http.get("/chats/5/messages")).json()["messages"]
    assert {one["id"]: one["state"] for one in lines}[line["id"]] == "failed"
    assert (await api.http.post("/returned-messages/replay")).json() == {"replayed": 1}
    await until(lambda: len(hooked.of("message.failed")) > 1, "it comes back once more")
    assert [one["message_id"] for one in hooked.of("message.failed")] == ["line-0002", "line-0002"]


async def test_only_what_the_tenant_said_is_told_to_have_come_back(api: TenantApi, hooked: Told) -> None:
    bob = await login(api, hooked, "bob")
    chat = await api.chat("5", message="hello?")
    await api.write("5", "one more", message_id="line-0002")
    said = await bob.reads("one more")

    def refuse(line: str, text: str) -> None:
        condition = "<not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        body = f"<body>{text}</body><error type='cancel'>{condition}</error>"
        bob.send_raw(f"<message type='error' to='{chat['username']}@{api.tenant.host}' id='{line}'>{body}</message>")

    refuse("made-up", "nobody said this")
    refuse(said.id, "one more")
    failed = await hooked.next("message.failed")
    assert (failed["message_id"], failed["condition"]) == ("line-0002", "not-acceptable")
    kept = (await api.http.get("/returned-messages")).json()["returned_messages"]
    assert [one["condition"] for one in kept] == ["not-acceptable"] * 2, "both are kept"
    assert [one["message_id"] for one in hooked.of("message.failed")] == ["line-0002"]


async def test_typing_and_receipts_both_ways(api: TenantApi, hooked: Told) -> None:
    bob = await login(api, hooked, "bob")
    await api.chat("5", message="hello?")
    visitor = api.tenant.lhc.name("visitor.5.chat")
    await bob.reads("hello?")
    bob.write(visitor, "yes?")
    await hooked.next("message.created")
    bob.sign(visitor, f"{{{CHAT_STATES_NS}}}composing")
    assert (await hooked.next("typing", composing=True))["chat_id"] == "5"
    bob.sign(visitor, f"{{{CHAT_STATES_NS}}}paused")
    await hooked.next("typing", composing=False)
    line = await api.write("5", "one more thing", message_id="line-0003")
    await bob.reads("one more thing")
    received = next(message for message in bob.messages if message.body == "one more thing")
    assert f"{{{RECEIPTS_NS}}}request" in received.children
    eve = await login(api, hooked, "eve")
    eve.sign(visitor, f"{{{RECEIPTS_NS}}}received", id=received.id)  # it was not sent to her
    await eve.taken()
    for _ in range(2):
        bob.sign(visitor, f"{{{RECEIPTS_NS}}}received", id=received.id)
    delivered = await hooked.next("message.delivered", message_id="line-0003")
    assert (delivered["operator"], delivered["chat_id"]) == ("bob", "5")
    lines = (await api.http.get("/chats/5/messages")).json()["messages"]
    kept = next(one for one in lines if one["id"] == line["id"])
    assert (kept["state"], kept["body"]) == ("delivered", None)

    assert (await api.http.post("/chats/5/typing", json={"composing": True})).status_code == 202
    await until(
        lambda: any(f"{{{CHAT_STATES_NS}}}composing" in message.children for message in bob.messages),
        "Bob sees that the visitor writes",
    )
    # the receipt says of the line before it that it has arrived, too
    assert [one["message_id"] for one in hooked.of("message.delivered")].count("line-0003") == 1


async def test_nobody_signs_for_a_visitor_of_another_tenant(
    api: TenantApi, hooked: Told, new_tenant: NewTenant
) -> None:
    other = await new_tenant()
    stranger = await other.operator_online("eve")
    bob = await login(api, hooked, "bob")
    await api.chat("5", message="hello?")
    await bob.reads("hello?")
    visitor = api.tenant.lhc.name("visitor.5.chat")
    stranger.sign(visitor, f"{{{RECEIPTS_NS}}}received", id=bob.messages[-1].id)
    stranger.sign(visitor, f"{{{CHAT_STATES_NS}}}composing")
    await stranger.taken()
    bob.sign(visitor, f"{{{CHAT_STATES_NS}}}composing")
    assert (await hooked.next("typing"))["operator"] == "bob"
    assert "eve" not in {one["operator"] for one in hooked.of("message.delivered")}
    assert len(hooked.of("typing")) == 1


async def test_a_room_as_events(api: TenantApi, hooked: Told) -> None:
    """Of every room: whether anybody writes in the tenant's page is a matter of LHC's."""
    bob = await login(api, hooked, "bob")
    made = (await api.http.post("/rooms", json={"name": "Team"})).json()
    await bob.join(made["address"], "Bob")
    bob.write(made["address"], "hello", kind="groupchat")
    said = await api.http.post("/rooms/team/messages", json={"operator": "bob", "message": "from the page"})
    assert said.status_code == 202, said.text
    await bob.hears(made["address"], "from the page")
    bob.leave_room(made["address"], "Bob")
    known = {"instance_name": api.tenant.name, "operator": "bob", "room": "team"}
    assert await hooked.next("room.left") == known
    assert await hooked.next("room.joined") == known
    (message,) = hooked.of("room.message")
    assert message == {**known, "message": "hello", "message_id": message["message_id"]}
    types = [json.loads(one.raw)["type"] for one in hooked.all()]
    assert [one for one in types if one.startswith("room.")] == ["room.joined", "room.message", "room.left"]
