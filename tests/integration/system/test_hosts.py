"""Several XMPP hosts in one system: each tenant lives on one, and on another one its name is nobody's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench.testbed.operator import Operator
from bench.testbed.waiting import until, until_async
from tests.world.rpc import Rpc
from tests.world.settings import SECOND_HOST
from tests.world.tenant import NewTenant, Tenant

PASSWORD = "0123456789abcdef0123"
BOB = "bob"
VISITOR = "visitor.1"


@pytest.fixture
async def second(new_tenant: NewTenant) -> Tenant:
    """A tenant of the second host."""
    tenant = await new_tenant(xmpp_host=SECOND_HOST)
    assert tenant.host == SECOND_HOST
    return tenant


@pytest.fixture
async def impostor(second: Tenant) -> AsyncIterator[Operator]:
    """The account of the same name on the other host, even in a shared roster of the same name."""
    system, name, other = second.system, second.lhc.name(BOB), second.system.endpoints["xmpp_host"]
    group = f"operators.{second.name}"
    await system.ejabberd("register", user=name, host=other, password="impostors-pw")
    await system.ejabberd("srg_create", group=group, host=other, label="O", description="", display=group)
    await system.join(group, name)
    address = (system.endpoints["c2s_host"], system.endpoints["c2s_port"])
    async with Operator(name, other, "impostors-pw", address) as made:
        yield made
    await system.unregister(name)
    await system.ejabberd("srg_delete", group=group, host=other)


def rpc_at(tenant: Tenant, host: str) -> Rpc:
    """XML-RPC with the tenant's own key, which calls that host its own."""
    return Rpc(f"{tenant.lhc_url}/rpc", tenant.name, host, tenant.key)


async def left(tenant: Tenant, host: str) -> list[dict[str, Any]]:
    """What ejabberd holds of the tenant's name on the host."""
    groups = [f"operators.{tenant.name}", f"visitors.{tenant.name}"]
    found: list[dict[str, Any]] = await tenant.system.ejabberd(
        "lhc_tenant_left", host=host, suffix=f".{tenant.name}", groups=groups
    )
    return [one for one in found if one["count"]]


async def test_a_tenant_lives_on_its_host_from_beginning_to_end(second: Tenant) -> None:
    lhc, other = second.lhc, second.system.endpoints["xmpp_host"]
    # its LHC is told of the host with the operator
    bob = await second.operator_online()
    assert (await lhc.new_visitor(VISITOR, PASSWORD, nick="Ann")).json()["error"] is False
    seen = await bob.sees(lhc.name(VISITOR), nick="Ann")
    assert seen.jid == f"{lhc.name(VISITOR)}@{SECOND_HOST}/lhc"
    await bob.has_contact(lhc.name(VISITOR), "Ann")
    assert (await lhc.page_view(VISITOR, PASSWORD, status="a page")).text == "ok"
    await bob.sees(lhc.name(VISITOR), status="a page")
    assert (await lhc.visitor_writes(VISITOR, PASSWORD, BOB, "hello")).text == "ok"
    await bob.reads("hello")
    bob.write(lhc.name(VISITOR), f"good day from {second.name}")
    told = await second.receiver.message(f"good day from {second.name}")
    assert told.form["server"] == SECOND_HOST

    rooms = f"/v1/tenants/{second.name}/rooms"
    room = (await second.panel.http.post(rooms, json={"name": "team"})).json()["address"]
    assert room == f"team.{second.name}@conference.{SECOND_HOST}"
    await bob.join(room, "Bob")
    said = await second.panel.http.post(f"{rooms}/team/messages", json={"operator": BOB, "message": "from the page"})
    assert said.status_code == 202, said.text
    await bob.hears(room, "from the page")

    assert await left(second, other) == []
    assert await left(second, SECOND_HOST) != []
    await second.panel.destroy(second.name)
    assert await left(second, SECOND_HOST) == []


async def test_suspended_on_its_host_and_compared_there(second: Tenant) -> None:
    await second.operator_online()
    http, path = second.panel.http, f"/v1/tenants/{second.name}"
    await second.panel.finished((await http.post(f"{path}/suspend")).json()["id"])
    assert second.name in await second.system.ejabberd("lhc_shut_tenants", host=SECOND_HOST)
    with pytest.raises(PermissionError):
        await second.operator(BOB).connect()
    await second.panel.finished((await http.post(f"{path}/resume")).json()["id"])
    compared = await second.panel.finished((await http.post(f"{path}/reconcile")).json()["id"])
    assert (compared["result"]["found"], compared["result"]["mended"]) == (0, 0)
    assert {one["kind"] for one in await left(second, SECOND_HOST)} >= {"accounts", "rosters", "members"}


async def test_the_same_name_on_another_host_is_nobody(second: Tenant, impostor: Operator) -> None:
    lhc, other = second.lhc, second.system.endpoints["xmpp_host"]
    await lhc.new_visitor(VISITOR, PASSWORD)
    bob = await second.operator_online()
    room = (await second.panel.http.post(f"/v1/tenants/{second.name}/rooms", json={"name": "team"})).json()["address"]
    # to nobody of the tenant, in its own name or in the tenant's
    for to in (f"{lhc.name(BOB)}@{SECOND_HOST}", f"{lhc.name(VISITOR)}@{SECOND_HOST}", room):
        await impostor.is_refused(impostor.write(to, "let me in"))
    with pytest.raises(PermissionError, match="forbidden"):
        await impostor.join(room, "Bob")
    await impostor.is_refused(impostor.write(f"{lhc.name(VISITOR)}@{other}", "I am your operator"))
    # and is no operator: neither shown visitors nor told of
    assert (await lhc.visitor_writes(VISITOR, PASSWORD, BOB, "to the right one")).text == "ok"
    await bob.reads("to the right one")
    await impostor.taken()
    assert [one.body for one in impostor.messages if not one.error] == []
    assert impostor.latest(lhc.name(VISITOR)) is None
    await impostor.leave()
    bob.write(lhc.name(VISITOR), f"still here at {second.name}")
    await second.receiver.message(f"still here at {second.name}")
    assert second.receiver.statuses(second.connect_body(BOB, "disconnect")) == []
    assert second.receiver.messages("I am your operator") == []


async def test_what_bears_its_name_elsewhere_is_reported_and_left(second: Tenant, impostor: Operator) -> None:
    http, path = second.panel.http, f"/v1/tenants/{second.name}"
    await second.panel.finished((await http.post(f"{path}/reconcile")).json()["id"])
    found = (await http.get(f"{path}/drift")).json()["drift"]
    assert [(one["kind"], one["subject"]) for one in found] == [("other_host", second.system.endpoints["xmpp_host"])]
    await impostor.taken()


async def test_a_call_names_the_tenants_host_or_none(second: Tenant) -> None:
    lhc, other = second.lhc, second.system.endpoints["xmpp_host"]
    await lhc.new_operator(BOB, "operator-pw")
    await lhc.new_visitor(VISITOR, PASSWORD)
    page = {"jid": f"{lhc.name(VISITOR)}@{other}", "pass": PASSWORD, "nick": "x", "status": "y"}
    for _ in range(2):
        answer = await lhc.call("/xmpp", **page)
        assert answer.json() == {"error": True, "msg": f"jid: must be an address at {SECOND_HOST}"}
    written = {**page, "jid": lhc.name(VISITOR), "operator_username": f"{lhc.name(BOB)}@{other}", "message": "hello"}
    assert (await lhc.call("/xmpp-send-message", **written)).json()["error"] is True
    assert (await lhc.call("/xmpp", **{**page, "jid": lhc.name(VISITOR)})).text == "ok"
    new = {"user": lhc.name("eve"), "host": other, "password": "operator-pw"}
    assert "Unknown virtual host" in (await lhc.call("/xmpp-register", **new)).json()["msg"]
    asked = {"user": lhc.name(BOB), "host": SECOND_HOST}
    assert "sessions_info" in await rpc_at(second, SECOND_HOST).call("user_sessions_info", asked)
    fault = (-118, "Error -118\nInvalid authentication data")
    assert await rpc_at(second, other).fault("user_sessions_info", asked) == fault


async def test_lhc_begins_a_tenant_on_the_host_that_it_names(second: Tenant) -> None:
    name, system = f"{second.name}-b", second.system
    rpc = Rpc.hosting(system)
    rpc.credentials["server"] = SECOND_HOST
    group = {"host": SECOND_HOST, "group": f"visitors.{name}"}
    assert await rpc.call("srg_create", {**group, "name": "V", "description": "D", "display": ""}) == {"res": 0}
    await second.panel.comes_alive(name)
    assert (await second.panel.http.get(f"/v1/tenants/{name}")).json()["xmpp_host"] == SECOND_HOST
    assert await rpc.call("srg_delete", group) == {"res": 0}


async def arrange(tenant: Tenant) -> Operator:
    """Data of each kind: names and groups of contacts, a hidden one, a room, what waits for who is away."""
    lhc = tenant.lhc
    await lhc.new_operator("ann", "operator-pw")
    bob = await tenant.operator_online()
    for visitor in (VISITOR, "visitor.2"):
        await lhc.new_visitor(visitor, PASSWORD, nick=f"Nick of {visitor}")
        await bob.has_contact(lhc.name(visitor))
    await bob.edit_contact(lhc.name(VISITOR), "VIP", "Mine")
    await bob.remove_contact(lhc.name("visitor.2"))
    await bob.has_no_contact(lhc.name("visitor.2"))
    made = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/rooms", json={"name": "team", "title": "The team"})
    assert made.status_code == 201, made.text
    for text in ("first", "second"):
        assert (await lhc.visitor_writes(VISITOR, PASSWORD, "ann", text)).text == "ok"
    return bob


async def waits(tenant: Tenant, host: str) -> bool:
    return "offline_messages" in {one["kind"] for one in await left(tenant, host)}


async def move(tenant: Tenant, host: str, *, killed_in: str = "") -> dict[str, Any]:
    """Move the tenant; with the worker killed when that step runs."""
    http = tenant.panel.http
    asked = await http.post(f"/v1/tenants/{tenant.name}/host", json={"xmpp_host": host})
    assert asked.status_code == 202, asked.text
    operation = f"/v1/operations/{asked.json()['id']}"

    async def runs() -> bool:
        steps = (await http.get(operation)).json()["steps"]
        return any(step["name"] == killed_in and step["state"] == "running" for step in steps)

    if killed_in:
        await until_async(runs, f"{killed_in} runs")
        await tenant.system.kill("lifecycle")
    ended = await tenant.panel.finished(asked.json()["id"], seconds=90)
    assert ended["state"] == "succeeded", ended
    tenant.host = tenant.lhc.host = host
    return ended


async def test_a_tenant_moves_with_all_that_it_has(second: Tenant) -> None:
    lhc, http, old = second.lhc, second.panel.http, SECOND_HOST
    host = second.system.endpoints["xmpp_host"]
    bob = await arrange(second)
    await until_async(lambda: waits(second, old), "a message waits for ann")
    before = await bob.contacts()
    bob.write(lhc.name(VISITOR), "the last before the move")
    await move(second, host, killed_in="settle")
    # operators are told, and logged out; LHC is told where they were
    await bob.reads(
        "This live chat moves to another address. In a moment this connection ends; then log in as"
        f" {lhc.name(BOB)}@{host}, with the same password."
    )
    assert bob.disconnected.is_set()
    await second.receiver.message("the last before the move")
    await second.receiver.status(f'{{"action":"disconnect","user":"{lhc.name(BOB)}","server":"{old}"}}')
    assert await left(second, old) == []
    assert second.name not in await second.system.ejabberd("lhc_shut_tenants", host=old)

    bob = await second.online(BOB)
    await second.receiver.status(second.connect_body(BOB))
    # names and groups, and who was removed, as they were
    assert await bob.contacts() == before
    assert (await lhc.page_view(VISITOR, PASSWORD, status="a page")).text == "ok"
    assert (await bob.sees(lhc.name(VISITOR), status="a page")).jid == f"{lhc.name(VISITOR)}@{host}/lhc"
    assert "Nick of visitor.1" in (await bob.vcard(lhc.name(VISITOR))).values()
    ann = await second.online("ann")
    assert [(await ann.reads(text)).username for text in ("first", "second")] == [lhc.name(VISITOR)] * 2
    ann.write(lhc.name(VISITOR), "from the new host")
    assert (await second.receiver.message("from the new host")).form["server"] == host
    (room,) = (await http.get(f"/v1/tenants/{second.name}/rooms")).json()["rooms"]
    assert room["address"] == f"team.{second.name}@conference.{host}"
    await bob.join(room["address"], "Bob")
    compared = await second.panel.finished((await http.post(f"/v1/tenants/{second.name}/reconcile")).json()["id"])
    assert (compared["result"]["found"], compared["result"]["mended"]) == (0, 0)
    again = await http.post(f"/v1/tenants/{second.name}/host", json={"xmpp_host": host})
    assert (again.status_code, again.json()["xmpp_host"]) == (200, host)


async def test_a_move_that_ended_halfway_ends_with_the_tenant_or_with_another_try(second: Tenant) -> None:
    http, path, old = second.panel.http, f"/v1/tenants/{second.name}", SECOND_HOST
    host = second.system.endpoints["xmpp_host"]
    await second.lhc.new_operator(BOB, "operator-pw")
    refused = await http.post(f"{path}/host", json={"xmpp_host": "no.example"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "xmpp_host")
    asked = (await http.post(f"{path}/host", json={"xmpp_host": host})).json()
    assert (await http.post(f"{path}/suspend")).status_code == 409
    operation = f"/v1/operations/{asked['id']}"

    async def is_halfway() -> bool:
        steps = (await http.get(operation)).json()["steps"]
        return any(step["name"] == "settle_again" and step["state"] == "running" for step in steps)

    await until_async(is_halfway, "the accounts are at the new host")
    await http.post(f"{operation}/cancel")

    async def is_cancelled() -> bool:
        return bool((await http.get(operation)).json()["state"] == "cancelled")

    await until_async(is_cancelled, "the move is cancelled")
    refused = await http.post(f"{path}/resume")
    assert (refused.status_code, asked["id"] in refused.json()["detail"]) == (409, True)
    assert (await http.delete(f"/v1/hosts/{old}")).status_code == 409
    await second.panel.destroy(second.name)
    assert await left(second, old) == await left(second, host) == []


async def test_a_name_that_bears_something_there_does_not_move_there(second: Tenant, impostor: Operator) -> None:
    path, host = f"/v1/tenants/{second.name}/host", second.system.endpoints["xmpp_host"]
    assert impostor.username == second.lhc.name(BOB)
    refused = await second.panel.http.post(path, json={"xmpp_host": host})
    assert (refused.status_code, "accounts" in refused.json()["detail"]) == (409, True)


async def test_a_host_is_one_that_is_served_and_stays(second: Tenant) -> None:
    http, path = second.panel.http, f"/v1/tenants/{second.name}"
    refused = await http.post("/v1/tenants", json={"instance_name": f"{second.name}-c", "xmpp_host": "no.example"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "xmpp_host")
    moved = await http.put(path, json={"xmpp_host": second.system.endpoints["xmpp_host"]})
    assert (moved.status_code, moved.json()["errors"][0]["field"]) == (422, "xmpp_host")
    assert (await http.put(path, json={"xmpp_host": SECOND_HOST, "idle_hours": 3})).json()["idle_hours"] == 3


async def test_a_customers_domain_comes_and_goes_while_everything_runs(second: Tenant, new_tenant: NewTenant) -> None:
    http, system, host = second.panel.http, second.system, f"chat.{second.name}.example"
    ejabberd = system.pids()["ejabberd"]
    bob = await second.operator_online()
    added = await http.put(f"/v1/hosts/{host}")
    assert added.status_code == 200, added.text
    dns = [f"_{kind}-client._tcp.{host}. SRV 0 5 {port} localhost." for kind, port in (("xmpp", 5222), ("xmpps", 5223))]
    about = {"certificate": None, "is_fixed": False, "tenants": 0, "is_up": True}
    assert added.json() == {"name": host, **about, "dns": dns}
    assert (await http.put(f"/v1/hosts/{host}")).json() == added.json()
    tenant = await new_tenant(xmpp_host=host)
    ann = await tenant.operator_online("ann")
    await tenant.lhc.new_visitor(VISITOR, PASSWORD)
    assert (await ann.sees(tenant.lhc.name(VISITOR))).jid == f"{tenant.lhc.name(VISITOR)}@{host}/lhc"
    ann.write(tenant.lhc.name(VISITOR), f"from {host}")
    assert (await tenant.receiver.message(f"from {host}")).form["server"] == host
    # nothing reaches the other hosts, and nobody there noticed
    await ann.is_refused(ann.write(f"{second.lhc.name(BOB)}@{SECOND_HOST}", "hello"))
    await bob.taken()
    assert not bob.disconnected.is_set()
    refused = await http.delete(f"/v1/hosts/{host}")
    assert (refused.status_code, tenant.name in refused.json()["detail"]) == (409, True)

    await second.panel.destroy(tenant.name)
    assert (await http.delete(f"/v1/hosts/{host}")).status_code == 204
    assert host not in {one["name"] for one in (await http.get("/v1/hosts")).json()["hosts"]}
    assert host not in await system.ejabberd("registered_vhosts")
    assert (await http.delete(f"/v1/hosts/{host}")).status_code == 404
    assert system.pids()["ejabberd"] == ejabberd
    await bob.taken()


@pytest.mark.parametrize(
    "name", ["Chat.example", "chat", "chat..example", f"conference.{SECOND_HOST}", "lhc.localhost"]
)
async def test_what_is_no_domain_of_its_own_is_no_host(second: Tenant, name: str) -> None:
    refused = await second.panel.http.put(f"/v1/hosts/{name}")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "name")


async def test_a_host_of_the_settings_stays(second: Tenant) -> None:
    for change in (second.panel.http.put, second.panel.http.delete):
        assert (await change(f"/v1/hosts/{SECOND_HOST}")).status_code == 409


async def test_operators_of_two_hosts_are_known_after_a_pool_came_anew(second: Tenant, new_tenant: NewTenant) -> None:
    first = await new_tenant()
    bobs = await asyncio.gather(second.operator_online(), first.operator_online())
    await second.system.kill_pools()
    await second.system.ready()
    for tenant, bob in zip((second, first), bobs, strict=True):
        await tenant.lhc.new_visitor(VISITOR, PASSWORD)
        seen = await bob.sees(tenant.lhc.name(VISITOR), seconds=60)
        assert seen.jid.partition("@")[2] == f"{tenant.host}/lhc"
    await until(lambda: all(bob.latest(bob.username) for bob in bobs), "nobody has gone")
