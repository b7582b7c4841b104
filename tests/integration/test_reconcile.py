"""Reconciliation and import on the running system: drift made by hand in ejabberd and in the registry."""

import itertools
import os
from typing import Any

import pytest
from sqlalchemy import update

from tenants.models import Account, AccountState
from tests.integration.conftest import NewTenant, Tenant
from tests.world.lhc import Lhc
from tests.world.panel import Panel
from tests.world.system import System, domain_of

PASSWORD = "0123456789abcdef0123"
_numbers = itertools.count(1)

Found = set[tuple[str, str]]


async def reconcile(panel: Panel, path: str, **params: Any) -> dict[str, Any]:
    """Run it to its end; what it found out."""
    started = await panel.http.post(f"/v1{path}/reconcile", params=params)
    assert started.status_code == 202, started.text
    return dict((await panel.finished(started.json()["id"]))["result"])


async def drift(panel: Panel, path: str, **params: Any) -> Found:
    """What differs, as (kind, subject)."""
    found = (await panel.http.get(f"/v1{path}/drift", params={"limit": 500, **params})).json()["drift"]
    return {(one["kind"], one["subject"]) for one in found}


async def holds(system: System, name: str) -> dict[str, Any]:
    """What ejabberd has of the tenant."""
    host = system.endpoints["xmpp_host"]
    rosters = {}
    for group in (f"visitors.{name}", f"operators.{name}"):
        info = await system.ejabberd("srg_get_info", group=group, host=host)
        displayed = [entry["value"] for entry in info if entry["key"] == "displayed_groups"]
        members = sorted(await system.ejabberd("srg_get_members", group=group, host=host)) if info else []
        rosters[group] = (displayed, members) if info else None
    return {"users": await system.users_of(name), "rosters": rosters}


async def spoil(tenant: Tenant) -> None:
    """One difference of each kind that a living tenant can have."""
    system, host, lhc = tenant.system, tenant.host, tenant.lhc
    for number in range(1, 5):
        await lhc.new_visitor(f"visitor.{number}", PASSWORD)
    await lhc.new_operator("bob", "operator-pw")
    await lhc.new_operator("lost", "operator-pw")
    visitors = {"group": f"visitors.{tenant.name}", "host": host}
    member = {"host": host, "group": f"visitors.{tenant.name}", "grouphost": host}
    await system.ejabberd("srg_user_del", user=lhc.name("visitor.1"), **member)
    await system.ejabberd("srg_user_add", user=lhc.name("visitor.77"), **member)
    await system.ejabberd("unregister", user=lhc.name("visitor.2"), host=host)
    await system.ejabberd("unregister", user=lhc.name("lost"), host=host)
    for user in ("visitor.88", "eve"):
        await system.ejabberd("register", user=lhc.name(user), host=host, password="x")
    await system.ejabberd("srg_create", **visitors, label="V", description="D", display=f"operators.{tenant.name}")
    await system.ejabberd("srg_delete", group=f"operators.{tenant.name}", host=host)
    async with domain_of(system) as services, services.database.write() as session:
        of_tenant = Account.instance_name == tenant.name
        await session.execute(update(Account).where(of_tenant).values(created_at=services.clock() - 1000))
        pending = Account.username.in_([lhc.name("visitor.3"), lhc.name("visitor.4")])
        await session.execute(update(Account).where(pending).values(state=AccountState.PENDING))
    await system.ejabberd("unregister", user=lhc.name("visitor.4"), host=host)


async def test_each_kind_of_drift_is_found_by_a_dry_run_and_mended_by_the_next(tenant: Tenant) -> None:
    await spoil(tenant)
    path, name, system = f"/tenants/{tenant.name}", tenant.lhc.name, tenant.system
    expected = {
        ("roster", f"visitors.{tenant.name}"),
        ("roster", f"operators.{tenant.name}"),
        ("member_missing", name("visitor.1")),
        ("member_missing", name("bob")),
        ("member_extra", name("visitor.77")),
        ("account_lost", name("visitor.2")),
        ("operator_lost", name("lost")),
        ("account_pending", name("visitor.3")),
        ("account_pending", name("visitor.4")),
        ("account_unknown", name("visitor.88")),
        ("operator_unknown", name("eve")),
    }
    before = await holds(system, tenant.name)
    result = await reconcile(tenant.panel, path, dry_run=True)
    assert result == {"compared": 1, "skipped": 0, "found": len(expected)}
    assert await drift(tenant.panel, path) == expected
    assert await holds(system, tenant.name) == before, "a dry run changes nothing"

    assert (await reconcile(tenant.panel, path))["mended"] == len(expected) - 2
    for_a_person = {("operator_lost", name("lost")), ("operator_unknown", name("eve"))}
    assert await drift(tenant.panel, path) == for_a_person
    after = await holds(system, tenant.name)
    host = tenant.host
    assert after["users"] == sorted(map(name, ("bob", "eve", "visitor.1", "visitor.3", "visitor.88")))
    assert after["rosters"][f"operators.{tenant.name}"] == (
        [f"operators.{tenant.name}\nvisitors.{tenant.name}"],
        [f"{name('bob')}@{host}"],
    )
    displayed, members = after["rosters"][f"visitors.{tenant.name}"]
    assert displayed in ([], [""])
    assert members == [f"{name(user)}@{host}" for user in ("visitor.1", "visitor.3")]

    # the one that was adopted becomes a member with the next run, and then there is nothing more to do
    assert (await reconcile(tenant.panel, path))["found"] in {2, 3}
    await reconcile(tenant.panel, path)
    assert await drift(tenant.panel, path) == for_a_person
    # the account that was lost is made anew by the next page view
    assert (await tenant.lhc.page_view("visitor.2", PASSWORD)).text == "ok"
    assert name("visitor.2") in await system.users_of(tenant.name)


async def test_all_tenants_are_compared_and_what_belongs_to_none_is_reported_alone(
    new_tenant: NewTenant, panel: Panel, system: System
) -> None:
    tenant, suspended = await new_tenant(), await new_tenant()
    host, stranger = tenant.host, f"stranger{next(_numbers)}-{os.getpid()}"
    await panel.finished((await panel.http.post(f"/v1/tenants/{suspended.name}/suspend")).json()["id"])
    for name in (tenant.name, suspended.name):
        await system.ejabberd("srg_delete", group=f"visitors.{name}", host=host)
    await system.ejabberd("register", user=f"bob.{stranger}", host=host, password="x")
    await system.ejabberd("register", user="of-nobody", host=host, password="x")
    gone = await new_tenant()
    await panel.destroy(gone.name)
    await system.ejabberd("register", user=f"visitor.1.{gone.name}", host=host, password="x")
    await system.ejabberd(
        "srg_create", group=f"visitors.{gone.name}", host=host, label="x", description="x", display=""
    )

    await reconcile(panel, "", dry_run=True)
    found = await drift(panel, "")
    expected = {
        ("roster", f"visitors.{tenant.name}"),
        ("roster", f"visitors.{suspended.name}"),
        ("unknown_tenant", stranger),
        ("unreadable", "of-nobody"),
        ("leftover", gone.name),
    }
    assert expected <= found
    await reconcile(panel, "")
    still = await drift(panel, "")
    assert {("unknown_tenant", stranger), ("unreadable", "of-nobody")} <= still
    assert not {one for one in still if one in expected and one[0] in {"roster", "leftover"}}
    assert await holds(system, gone.name) == {
        "users": [],
        "rosters": {f"visitors.{gone.name}": None, f"operators.{gone.name}": None},
    }
    assert await system.users_of(stranger) == [f"bob.{stranger}"], "nobody's, so not ours to touch"
    for user in (f"bob.{stranger}", "of-nobody"):
        await system.ejabberd("unregister", user=user, host=host)


async def test_a_tenant_with_a_longer_name_is_another_one(panel: Panel, system: System) -> None:
    short = f"acme{os.getpid()}"
    await panel.create(short)
    await panel.create(f"my-{short}")
    host = system.endpoints["xmpp_host"]
    await system.ejabberd("register", user=f"visitor.1.my-{short}", host=host, password="x")
    assert (await reconcile(panel, f"/tenants/{short}"))["found"] == 0
    await panel.destroy(short)
    assert await system.users_of(f"my-{short}") == [f"visitor.1.my-{short}"]
    assert (await reconcile(panel, f"/tenants/my-{short}"))["found"] == 1


async def old_tenant(system: System, name: str) -> None:
    """As the old system made it: rosters by ejabberdctl, with its way of writing what they display."""
    host = system.endpoints["xmpp_host"]
    for group, display in ((f"visitors.{name}", ""), (f"operators.{name}", f"operators.{name}\\nvisitors.{name}")):
        await system.ejabberd("srg_create", group=group, host=host, label="Old", description="Old", display=display)
    for user, password, group in (
        ("bob", "bobs-old-password", "operators"),
        ("visitor.7", PASSWORD, "visitors"),
        ("visitor.8.chat", PASSWORD, "visitors"),
        ("visitor.nine", PASSWORD, "visitors"),
    ):
        await system.ejabberd("register", user=f"{user}.{name}", host=host, password=password)
        await system.ejabberd("srg_user_add", user=f"{user}.{name}", host=host, group=f"{group}.{name}", grouphost=host)


@pytest.fixture
def old_name() -> str:
    return f"old{next(_numbers)}-{os.getpid()}"


async def test_a_tenant_of_the_old_system_is_imported(system: System, panel: Panel, old_name: str) -> None:
    await old_tenant(system, old_name)
    before = await holds(system, old_name)
    answer = await panel.http.post(f"/v1/tenants/{old_name}/import", json={"online_seconds": 120})
    assert answer.status_code == 202
    operation = await panel.finished(answer.json()["operation"]["id"])
    assert operation["result"] == {"accounts": 3, "skipped": 1, "skipped_names": [f"visitor.nine.{old_name}"]}
    assert (await holds(system, old_name)) == before, "nothing in ejabberd was taken away"
    tenant = (await panel.http.get(f"/v1/tenants/{old_name}")).json()
    assert (tenant["state"], tenant["online_seconds"]) == ("active", 120)
    assert tenant["accounts"] == {"operator": 1, "visitor": 1, "chat": 1}
    lhc = Lhc(
        old_name,
        base=f"{system.endpoints['api']}/t/{old_name}",
        secret_key=answer.json()["secret_key"],
        host=system.endpoints["xmpp_host"],
    )
    # LHC knows the visitor's password from before, and goes on with it
    assert (await lhc.page_view("visitor.7", PASSWORD)).text == "ok"
    assert (
        await system.ejabberd("check_password", user=f"bob.{old_name}", host=lhc.host, password="bobs-old-password")
        == 0
    )
    again = await panel.http.post(f"/v1/tenants/{old_name}/import")
    assert (again.status_code, again.json()["detail"]) == (409, f"there is a tenant '{old_name}' already")


async def test_nothing_cannot_be_imported(panel: Panel, old_name: str) -> None:
    answer = await panel.http.post(f"/v1/tenants/{old_name}/import")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "instance_name", "rule": "ejabberd has neither shared rosters nor accounts of that name"}
    ]
    assert (await panel.http.get(f"/v1/tenants/{old_name}")).status_code == 404


async def test_registrations_that_ejabberd_lost_are_made_again(tenant: Tenant) -> None:
    """As after kill -9 of ejabberd, whose tables are written to disk with a delay."""
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await tenant.system.ejabberd("unregister", user=tenant.lhc.name("visitor.1"), host=tenant.host)
    async with domain_of(tenant.system) as services, services.database.write() as session:
        await session.execute(
            update(Account).where(Account.instance_name == tenant.name).values(created_at=services.clock() - 1000)
        )
    assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["mended"] == 1
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("visitor.1")]


async def test_one_run_at_a_time(panel: Panel) -> None:
    first = await panel.http.post("/v1/reconcile", params={"dry_run": True})
    second = await panel.http.post("/v1/reconcile", params={"dry_run": True})
    assert second.status_code in {202, 409}
    await panel.finished(first.json()["id"])
