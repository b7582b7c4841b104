"""Operators' contacts: what an operator makes of them stays as long as they are there, and no longer."""

from tests.integration.system.test_reconcile import drift, reconcile
from tests.world.tenant import Tenant

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
