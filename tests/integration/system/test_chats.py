"""The rules of a chat, with real operators: who is offered it, whose it becomes, and what the others are told."""

import pytest

from bench.testbed.waiting import until
from orchestrator.client import ApiError, TenantClient
from tests.world.chats import ACCEPTED, read_by
from tests.world.tenant import NewTenant
from tests.world.tenant_api import OPERATOR_PASSWORD, TenantApi


async def test_the_first_who_answers_owns_the_chat(api: TenantApi) -> None:
    bob = await api.operator("bob", nick="Bob B.")
    eve = await api.operator("eve", departments=["sales"])
    ann = await api.operator("ann", departments=["support"])
    sid = await api.operator("sid", receives_new_chats=False)
    chat = await api.chat("12", department="sales", message="hello?")
    visitor = api.tenant.lhc.name("visitor.12.chat")
    assert (chat["state"], chat["owner"], chat["username"]) == ("pending", None, visitor)
    for operator in (bob, eve):
        await operator.reads("hello?")
        assert operator.messages[0].username == visitor
    bob.write(visitor, "hello, I am Bob")
    await api.tenant.receiver.message("hello, I am Bob")
    await eve.reads(ACCEPTED.format("Bob B."))
    assert await api.owner("12") == "bob"

    # from now on the chat is Bob's: what others write to it is not sent on
    eve.write(visitor, "and I am Eve")
    await until(lambda: read_by(eve).count(ACCEPTED.format("Bob B.")) == 2, "Eve is told again")
    await api.write("12", "for Bob alone")
    await bob.reads("for Bob alone")
    bob.write(visitor, "the last word")
    await api.tenant.receiver.message("the last word")
    assert read_by(bob) == ["hello?", "for Bob alone"]
    assert read_by(eve) == ["hello?", ACCEPTED.format("Bob B."), ACCEPTED.format("Bob B.")]
    assert (read_by(ann), read_by(sid)) == ([], [])
    told = [callback.raw for callback in api.tenant.callbacks() if b"body=" in callback.raw]
    assert not [body for body in told if b"Eve" in body]


async def test_a_chat_waits_for_an_operator_who_may_take_it(api: TenantApi) -> None:
    await api.chat("3", department="sales", message="is anybody there?")
    line = await api.write("3", "hello?", message_id="line-0001")
    assert line["state"] == "waiting"
    assert (await api.write("3", "hello?", message_id="line-0001"))["id"] == line["id"], "repeated"
    bob = await api.operator("bob", departments=["sales"])
    await bob.reads("hello?")
    assert read_by(bob) == ["is anybody there?", "hello?"]
    eve = await api.operator("eve")
    await eve.reads("hello?")
    assert read_by(eve) == ["is anybody there?", "hello?"], "nobody has it yet"


async def test_a_product_that_counts_anew_loses_nothing(api: TenantApi) -> None:
    """Numbers of its chats or messages come again: at a visitor whom the operator knows, and in a chat that is open."""
    bob = await api.operator("bob")
    assert (await api.http.post("/visitors/7/pageviews", json={"page": "Prices"})).status_code == 202
    for number in ("1", "2"):
        await api.chat(number, visitor_id="7")
        line = await api.write(number, f"in chat {number}", message_id="line-0001")
        await bob.reads(f"in chat {number}")
        again = await api.write(number, f"in chat {number}", message_id="line-0001")
        assert (again["id"], line["state"]) == (line["id"], "sent")
        assert (await api.http.delete(f"/chats/{number}")).status_code == 204
    for message in ("first words", "first words", "of another visitor"):
        await api.chat("3", message=message)
    await bob.reads("of another visitor")
    assert read_by(bob) == ["in chat 1", "in chat 2", "first words", "of another visitor"]


async def test_a_message_to_a_visitor_without_a_chat_is_an_invitation(api: TenantApi) -> None:
    bob = await api.operator("bob")
    seen = await api.http.post("/visitors/7/pageviews", json={"page": "Prices", "city": "Berlin", "country": "Germany"})
    assert seen.status_code == 202, seen.text
    await bob.sees(api.tenant.lhc.name("visitor.7"), status="Page: Prices\n| Location: Berlin, Germany")
    bob.write(api.tenant.lhc.name("visitor.7"), "may I help you?")
    await api.tenant.receiver.message("may I help you?")
    # with a chat it is a message of that chat, which comes from the visitor's own account
    chat = await api.chat("8", visitor_id="7", message="yes, please")
    assert chat["username"] == api.tenant.lhc.name("visitor.7")
    await bob.reads("yes, please")
    assert (await api.chat("9", visitor_id="7"))["username"] == api.tenant.lhc.name("visitor.9.chat"), "a second one"


async def test_a_chat_is_given_to_another(api: TenantApi) -> None:
    bob, eve = await api.operator("bob"), await api.operator("eve")
    await api.chat("5", message="hello?")
    visitor = api.tenant.lhc.name("visitor.5.chat")
    await bob.reads("hello?")
    bob.write(visitor, "yes?")
    await eve.reads(ACCEPTED.format("bob"))
    given = await api.http.put("/chats/5/owner", json={"operator": "eve"})
    assert (given.status_code, given.json()["owner"]) == (200, "eve")
    await bob.reads(ACCEPTED.format("eve"))
    await api.write("5", "who are you?")
    await eve.reads("who are you?")
    assert "who are you?" not in read_by(bob)
    assert (await api.http.put("/chats/5/owner", json={"operator": "nobody"})).status_code == 404

    assert (await api.http.delete("/chats/5")).status_code == 204
    await eve.sees(visitor, kind="unavailable")
    assert visitor not in await api.tenant.system.users_of(api.tenant.name)
    assert (await api.http.post("/chats/5/messages", json={"message": "too late"})).status_code == 409
    assert (await api.http.delete("/chats/5")).status_code == 204, "closed already"
    assert (await api.http.post("/chats", json={"chat_id": "5"})).status_code == 409
    assert visitor not in await api.tenant.system.users_of(api.tenant.name), "nothing was made for it"
    assert (await api.http.delete("/chats/6")).status_code == 404


@pytest.mark.parametrize("setting", ["store", "release"])
async def test_an_owner_who_left(api: TenantApi, setting: str) -> None:
    tenant = api.tenant
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"owner_offline": setting})
    bob, eve = await api.operator("bob"), await api.operator("eve")
    await api.chat("5", message="hello?")
    visitor = tenant.lhc.name("visitor.5.chat")
    await bob.reads("hello?")
    bob.write(visitor, "yes?")
    await eve.reads(ACCEPTED.format("bob"))
    await bob.leave()
    await tenant.receiver.status(tenant.connect_body("bob", "disconnect"))
    await api.write("5", "are you there?")
    if setting == "release":
        await eve.reads("are you there?")
        eve.write(visitor, "I am")
        await tenant.receiver.message("I am")
        assert await api.owner("5") == "eve"
    else:
        assert await api.owner("5") == "bob"
        again = await tenant.online("bob", resource="phone")
        await again.reads("are you there?")
        assert "are you there?" not in read_by(eve)


async def test_operators_are_managed_by_their_tenant(api: TenantApi) -> None:
    bob = await api.operator("bob", nick="Bob", lhc_user_id=4)
    view = (await api.http.get("/operators/bob")).json()
    assert (view["nick"], view["lhc_user_id"], view["online"], view["departments"]) == ("Bob", 4, True, None)
    assert [one["resource"] for one in view["connections"]] == ["desk"]
    changed = await api.http.put("/operators/bob", json={"departments": ["sales"]})
    assert (changed.status_code, changed.json()["departments"], changed.json()["nick"]) == (200, ["sales"], "Bob")
    assert [one["username"] for one in (await api.http.get("/operators")).json()["operators"]] == ["bob"]
    assert (await api.http.post("/operators/bob/kick")).json() == {"connections": 1}
    await until(bob.disconnected.is_set, "Bob is disconnected")
    audit = (await api.tenant.panel.http.get(f"/v1/tenants/{api.tenant.name}/audit")).json()["entries"]
    assert [entry["reason"] for entry in audit if entry["action"] == "operator disconnected"] == ["bob"]
    assert (await api.http.put("/operators/eve", json={})).status_code == 404
    refused = await api.http.put("/operators/visitor.1", json={"password": "operator-pw"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "username")
    assert (await api.http.delete("/operators/bob")).status_code == 204
    assert (await api.http.get("/operators/bob")).status_code == 404
    assert await api.tenant.system.users_of(api.tenant.name) == []


async def test_a_token_opens_its_own_tenant_alone(api: TenantApi, new_tenant: NewTenant) -> None:
    other = await new_tenant(routing="orchestrator")
    base = f"{other.system.endpoints['api']}/v1/tenants/{other.name}"
    for method, path, body in (
        ("PUT", "/operators/bob", {"password": "operator-pw"}),
        ("GET", "/operators", None),
        ("POST", "/visitors/1/pageviews", {}),
        ("POST", "/chats", {"chat_id": "1"}),
        ("POST", "/chats/1/messages", {"message": "x"}),
        ("DELETE", "/chats/1", None),
    ):
        assert (await api.http.request(method, base + path, json=body)).status_code == 404
    assert await other.system.users_of(other.name) == []


async def test_the_python_client(api: TenantApi) -> None:
    bob = await api.operator("bob")
    async with TenantClient(api.tenant.system.endpoints["api"], api.tenant.name, api.token) as client:
        await client.put_operator("eve", password=OPERATOR_PASSWORD, nick="Eve", departments=["sales"])
        assert [(one.username, one.online) async for one in client.operators()] == [("bob", True), ("eve", False)]
        seen = await client.view_page("7", nick="John", page="Prices", visits=3)
        assert seen.status == "Page: Prices\n| Visits: 3"
        await bob.sees(seen.username, nick="John")
        chat = await client.start_chat("12", nick="John #12", visitor_id="7", message="hello?")
        await client.write(chat.chat_id, "it is me", message_id="line-0001")
        await bob.reads("it is me")
        await client.change_chat("12", nick="John Doe")
        await bob.sees(chat.username, nick="John Doe")
        await client.show_typing("12", composing=True)
        assert (await client.assign_chat("12", "bob")).owner == "bob"
        assert [line.state async for line in client.messages("12")] == ["sent", "sent"]
        bob.write(chat.username, "good morning")
        await api.tenant.receiver.message("good morning")
        assert [one.sender async for one in client.deliveries()] == [api.tenant.lhc.name("bob")]
        assert await client.replay_deliveries() == 0
        await client.close_chat("12")
        assert [one.chat_id async for one in client.chats("closed")] == ["12"]
        assert await client.kick_operator("bob") == 1
        await client.delete_operator("eve")
        with pytest.raises(ApiError) as refused:
            await client.chat("13")
        assert (refused.value.status, refused.value.problem and refused.value.problem.title) == (404, "Not Found")


async def test_a_tenant_that_routes_itself_has_no_chats_here(new_tenant: NewTenant) -> None:
    tenant = await new_tenant()
    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/chats", json={"chat_id": "1"})
    assert (answer.status_code, "routes its chats itself" in answer.json()["detail"]) == (409, True)
