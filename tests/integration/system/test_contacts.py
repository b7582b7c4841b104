"""Operators' contacts: called as the visitors are; what an operator makes of one stays as long as it is there."""

from bench.testbed.operator import Operator
from tests.integration.system.test_reconcile import drift, reconcile
from tests.world.tenant import NewTenant, Tenant, rpc_of
from tests.world.tenant_api import api_of
from tests.world.visitors import HOST, new_visitor

PASSWORD = "0123456789abcdef0123"


async def remove(tenant: Tenant, *visitors: str) -> None:
    """As LHC does it."""
    group = {"grouphost": tenant.host, "group": f"visitors.{tenant.name}"}
    for visitor in visitors:
        user = {"user": tenant.lhc.name(visitor), "host": tenant.host}
        await tenant.lhc.call("/xmpp-delete-user-from-roaster", **user, **group)
        assert (await tenant.lhc.call("/xmpp-unregister", **user)).json()["error"] is False


async def test_a_contact_that_was_changed_goes_with_the_visitor(tenant: Tenant) -> None:
    bob, visitors = await tenant.operator_online(), [f"visitor.{number}" for number in (1, 2, 3, 4)]
    for visitor in visitors:
        await tenant.lhc.new_visitor(visitor, PASSWORD, nick=f"Nick of {visitor}")
    renamed, grouped, removed, whole = map(tenant.lhc.name, visitors)
    await bob.has_contact(whole)
    label = (await bob.contacts())[whole][1]
    await bob.edit_contact(renamed, "VIP", *label)
    await bob.edit_contact(grouped, "Nick of visitor.2", "Mine")
    await bob.remove_contact(removed)
    bob.subscribe(whole)
    await bob.has_contact(renamed, "VIP")
    await bob.has_no_contact(removed)
    kept = {
        renamed: ("VIP", label),
        grouped: ("Nick of visitor.2", sorted(["Mine", *label])),
        whole: ("Nick of visitor.4", label),
    }
    phone = await tenant.online("bob", resource="phone")
    assert await phone.contacts() == kept
    # LHC may register a visitor who is there once more
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await tenant.lhc.new_visitor("visitor.3", PASSWORD)
    await bob.taken()
    await bob.has_contact(renamed, "VIP")
    assert await phone.contacts() == kept

    await remove(tenant, *visitors)
    await bob.has_no_contact(renamed)
    assert await bob.contacts() == await (await tenant.online("bob", resource="tablet")).contacts() == {}
    await bob.edit_contact(renamed, "a name for nobody")
    assert await bob.contacts() == {}
    # another visitor of the same number is nobody's VIP, and hidden from nobody
    for visitor in ("visitor.1", "visitor.3"):
        await tenant.lhc.new_visitor(visitor, PASSWORD, nick="Somebody else")
    assert await bob.contacts() == {renamed: ("Somebody else", label), removed: ("Somebody else", label)}


async def test_a_contact_that_was_removed_stays_away_until_the_visitor_writes(tenant: Tenant) -> None:
    bob, ann = await tenant.operator_online("bob"), await tenant.operator_online("ann")
    visitor, other = tenant.lhc.name("visitor.1"), tenant.lhc.name("visitor.2")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="page 1")
    await bob.sees(visitor, status="page 1")
    await bob.remove_contact(visitor)
    await bob.has_no_contact(visitor)
    phone = await tenant.online("bob", resource="phone")
    await tenant.lhc.page_view("visitor.1", PASSWORD, status="page 2")
    await ann.sees(visitor, status="page 2")
    # whoever comes after it comes after all that was to be shown before
    await tenant.lhc.new_visitor("visitor.2", PASSWORD)
    for device in (bob, phone):
        await device.sees(other)
        assert visitor not in await device.contacts()
    assert phone.latest(visitor) is None
    assert (await bob.sees(visitor)).status == "page 1"

    await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", "Is anybody there?", nick="John", status="page 3")
    for device in (bob, phone):
        await device.has_contact(visitor)
        await device.sees(visitor, status="page 3")
        await device.reads("Is anybody there?")
    assert visitor in await phone.contacts()
    await bob.remove_contact(visitor)
    await bob.edit_contact(visitor, "John again")
    assert (await phone.contacts())[visitor][0] == "John again"


async def test_a_colleague_who_is_gone_is_no_contact_any_more(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    await tenant.lhc.new_operator("ann", "operator-pw")
    ann = tenant.lhc.name("ann")
    await bob.has_contact(ann)
    await bob.edit_contact(ann, "Ann of sales", "Sales")
    assert (await bob.contacts())[ann][0] == "Ann of sales"
    async with tenant.operator("ann") as client:
        assert (await client.contacts())[tenant.lhc.name("bob")][0] == "", "what bob calls ann changes nothing for her"
    await tenant.lhc.call("/xmpp-unregister", user=ann, host=tenant.host)
    await bob.has_no_contact(ann)
    assert await bob.contacts() == {}


async def test_what_is_left_of_a_contact_is_drift(tenant: Tenant) -> None:
    """Two members without an account: the operator had renamed the one, and removed the other."""
    bob, members = await tenant.operator_online("bob"), [tenant.lhc.name(one) for one in ("visitor.8", "visitor.9")]
    await tenant.system.join(f"visitors.{tenant.name}", *members)
    await bob.has_contact(members[0])
    await bob.edit_contact(members[0], "VIP")
    await bob.remove_contact(members[1])
    await tenant.system.leave(f"visitors.{tenant.name}", *members)
    assert await bob.contacts() == {}
    path, expected = f"/tenants/{tenant.name}", {("contact_gone", member) for member in members}
    await reconcile(tenant.panel, path, dry_run=True)
    assert await drift(tenant.panel, path) == expected
    assert (await reconcile(tenant.panel, path))["mended"] == 2
    assert (await reconcile(tenant.panel, path, dry_run=True))["found"] == 0


def pushes(operator: Operator) -> int:
    """How often the operator's client was told of contacts."""
    told = (one for one in operator.stanzas if one.get("type") == "set")
    return sum(1 for one in told if one.find("{jabber:iq:roster}query") is not None)


async def test_a_contact_is_called_as_its_visitor(tenant: Tenant) -> None:
    bob, visitor = await tenant.operator_online(), tenant.lhc.name("visitor.8")
    await tenant.lhc.new_visitor("visitor.8", PASSWORD)
    await bob.has_contact(visitor, "")
    await tenant.lhc.page_view("visitor.8", PASSWORD, nick="John #12", status="page 1")
    await bob.has_contact(visitor, "John #12")
    phone = await tenant.online("bob", resource="phone")
    assert (await phone.contacts())[visitor][0] == "John #12"
    assert await phone.vcard(visitor) == {"FN": "John #12", "NICKNAME": "John #12"}

    # no churn: page views under the same nick, and what LHC says of who has no name
    await bob.edit_contact(visitor, "John #12", "Mine")
    before = pushes(bob)
    for number, nick in enumerate(["John #12", "Online visitor", "John #12"], 2):
        await tenant.lhc.page_view("visitor.8", PASSWORD, nick=nick, status=f"page {number}")
        await bob.sees(visitor, nick=nick, status=f"page {number}")
    assert pushes(bob) == before
    await tenant.lhc.visitor_writes("visitor.8", PASSWORD, "bob", "It is me", nick="Jane & <Jo>")
    await bob.reads("It is me")
    await bob.has_contact(visitor, "Jane & <Jo>")
    name, groups = (await phone.contacts())[visitor]
    assert (name, "Mine" in groups) == ("Jane & <Jo>", True), "the group's row follows"
    await bob.edit_contact(visitor, "VIP")
    await tenant.lhc.page_view("visitor.8", PASSWORD, nick="John", status="page 9")
    await bob.sees(visitor, nick="John")
    assert (await phone.contacts())[visitor][0] == "VIP", "the operator's own name stays"

    # what ejabberd has otherwise is put right
    other = tenant.lhc.name("visitor.9")
    await tenant.lhc.new_visitor("visitor.9", PASSWORD, nick="Ann")
    await bob.sees(other, nick="Ann")
    wrong = [{"user": other, "nick": "Wrong"}]
    await tenant.system.ejabberd("lhc_set_nicks", host=tenant.host, nicks=wrong)
    await bob.has_contact(other, "Wrong")
    await reconcile(tenant.panel, f"/tenants/{tenant.name}")
    await bob.has_contact(other, "Ann")


async def test_in_xml_rpc_mode_the_first_message_comes_with_name_and_status(tenant: Tenant) -> None:
    """As the extension does it: account and contact, then all sessions are told who it is, then the message."""
    bob, visitor, rpc = await tenant.operator_online(), tenant.lhc.name("visitor.8"), rpc_of(tenant)
    address = {"host": HOST, "user": visitor}
    await new_visitor(tenant, "visitor.8")
    await bob.has_contact(visitor)
    info = await rpc.call("user_sessions_info", address)
    stanza = "<presence><status>Cart</status><nick xmlns='http://jabber.org/protocol/nick'>John #12</nick></presence>"
    for entry in info["sessions_info"]:
        resource = next(field["resource"] for field in entry["session"] if "resource" in field)
        await rpc.call("send_stanza_c2s", {**address, "resource": resource, "stanza": stanza})
    message = {"type": "chat", "from": f"{visitor}@{HOST}", "to": f"{tenant.lhc.name('bob')}@{HOST}", "subject": ""}
    await rpc.call("send_message", {**message, "body": "hello?"})
    await bob.reads("hello?")
    assert (await bob.sees(visitor)).status == "Cart"
    assert [one.nick for one in bob.presences if one.username == visitor] == ["John #12"]
    assert (await bob.contacts())[visitor][0] == "John #12"
    # LHC calls the chat otherwise
    assert len((await rpc.call("user_sessions_info", address))["sessions_info"]) == 1
    stanza = stanza.replace("John #12", "John Smith #12")
    await rpc.call("send_stanza_c2s", {**address, "resource": "lhc", "stanza": stanza})
    await bob.has_contact(visitor, "John Smith #12")


async def test_a_browser_is_one_contact_with_one_resource(tenant: Tenant) -> None:
    bob, visitor, rpc = await tenant.operator_online(), tenant.lhc.name("visitor.8"), rpc_of(tenant)
    async with await new_visitor(tenant, "visitor.8") as browser:
        await browser.present("John", "page 1")
        await bob.has_contact(visitor, "John")
        await browser.present("John #12", "page 2")
        await bob.has_contact(visitor, "John #12")
        message = {"type": "chat", "from": f"{visitor}@{HOST}", "to": f"{tenant.lhc.name('bob')}@{HOST}", "subject": ""}
        await rpc.call("send_message", {**message, "body": "hello?"})
        await bob.reads("hello?")
    await bob.sees(visitor, kind="unavailable")
    assert {one.jid.partition("/")[2] for one in bob.presences if one.username == visitor} == {"browser"}


async def test_the_tenant_s_own_api_names_contacts(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(routing="orchestrator")
    async with api_of(tenant) as api:
        bob, visitor = await api.operator("bob"), tenant.lhc.name("visitor.7")
        await api.http.post("/visitors/7/pageviews", json={"page": "Prices"})
        await bob.has_contact(visitor, "")
        await api.chat("12", visitor_id="7", nick="John", message="hello?")
        await bob.has_contact(visitor, "John")
        assert (await api.http.patch("/chats/12", json={"nick": "John Doe"})).status_code == 200
        await bob.has_contact(visitor, "John Doe")
        await api.http.post("/visitors/7/pageviews", json={"page": "Prices", "nick": "Jane Doe"})
        await bob.has_contact(visitor, "Jane Doe")
        await api.chat("13", nick="Jim", message="hello?")
        await bob.has_contact(tenant.lhc.name("visitor.13.chat"), "Jim")
