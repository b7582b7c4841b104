"""Reconciliation and import on the running system: drift made by hand in ejabberd and in the registry."""

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.system import System, domain_of
from bench.testbed.waiting import until_async
from tenants.accounts import rows
from tenants.core.errors import ConflictError
from tenants.core.naming import AccountKind, AccountName
from tenants.core.scram import make_verifier
from tenants.lifecycle import registry
from tenants.process.services import Services
from tenants.store.models import Account, AccountState
from tenants.workflows.reconcile import start
from tests.world.registry import World
from tests.world.rehearsal import PANEL
from tests.world.tenant import NewTenant, Tenant

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
        roster = await system.roster(group)
        members = sorted(await system.ejabberd("srg_get_members", group=group, host=host)) if roster else []
        rosters[group] = (roster.displayed, members) if roster else None
    return {"users": await system.users_of(name), "rosters": rosters}


async def spoil(tenant: Tenant) -> None:
    """One difference of each kind that a living tenant can have."""
    system, host, lhc = tenant.system, tenant.host, tenant.lhc
    for number in range(1, 5):
        await lhc.new_visitor(f"visitor.{number}", PASSWORD)
    await lhc.new_operator("bob", "operator-pw")
    await lhc.new_operator("lost", "operator-pw")
    visitors = f"visitors.{tenant.name}"
    await system.leave(visitors, lhc.name("visitor.1"))
    await system.join(visitors, lhc.name("visitor.77"), "visitor.1.another", "admin", lhc.name("bob"))
    await system.unregister(lhc.name("visitor.2"), lhc.name("lost"))
    for user in ("visitor.88", "eve"):
        await system.ejabberd("register", user=lhc.name(user), host=host, password="x")
    await system.make_roster(visitors, f"operators.{tenant.name}", label="V", description="D")
    await system.ejabberd("srg_delete", group=f"operators.{tenant.name}", host=host)
    await grow_old(tenant, pending=("visitor.3", "visitor.4"))
    await system.unregister(lhc.name("visitor.4"))


async def grow_old(tenant: Tenant, pending: Sequence[str] = ()) -> None:
    """Make the tenant's rows older than what is left alone; some as of registrations that ended half way."""
    async with domain_of(tenant.system) as services, services.database.write() as session:
        of_tenant = Account.instance_name == tenant.name
        times = {"created_at": services.clock() - 1000, "last_active_at": services.clock() - 1000}
        await session.execute(update(Account).where(of_tenant).values(**times))
        usernames = [tenant.lhc.name(user) for user in pending]
        await session.execute(update(Account).where(Account.username.in_(usernames)).values(state=AccountState.PENDING))


async def views_until_there(tenant: Tenant, visitors: list[str]) -> None:
    """Page views, as browsers go on with them: the first after a removal may still be answered from memory."""

    async def are_there() -> bool:
        for visitor in visitors:
            assert (await tenant.lhc.page_view(visitor, PASSWORD)).text == "ok"
        return {*map(tenant.lhc.name, visitors)} <= {*await tenant.system.users_of(tenant.name)}

    await until_async(are_there, "the accounts are made anew")


async def test_each_kind_of_drift_is_found_by_a_dry_run_and_mended_by_the_next(tenant: Tenant) -> None:
    await spoil(tenant)
    path, name, system = f"/tenants/{tenant.name}", tenant.lhc.name, tenant.system
    expected = {
        ("roster", f"visitors.{tenant.name}"),
        ("roster", f"operators.{tenant.name}"),
        ("member_missing", name("visitor.1")),
        ("member_missing", name("bob")),
        ("member_extra", name("bob")),
        ("member_foreign", "visitor.1.another"),
        ("unreadable", "admin"),
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

    for_a_person = {
        ("operator_lost", name("lost")),
        ("operator_unknown", name("eve")),
        ("member_foreign", "visitor.1.another"),
        ("unreadable", "admin"),
    }
    result = await reconcile(tenant.panel, path)
    assert (result["mended"], result["left"]) == (len(expected - for_a_person), 0)
    assert await drift(tenant.panel, path) == for_a_person
    after = await holds(system, tenant.name)
    host = tenant.host
    assert after["users"] == sorted(map(name, ("bob", "eve", "visitor.1", "visitor.3", "visitor.88")))
    assert after["rosters"][f"operators.{tenant.name}"] == (
        (f"operators.{tenant.name}", f"visitors.{tenant.name}"),
        [f"{name('bob')}@{host}"],
    )
    displayed, members = after["rosters"][f"visitors.{tenant.name}"]
    assert displayed == ()
    ours = {f"{name(user)}@{host}" for user in ("visitor.1", "visitor.3", "visitor.88")}
    assert set(members) == ours | {f"visitor.1.another@{host}", f"admin@{host}"}

    result = await reconcile(tenant.panel, path)
    assert (result["found"], result["mended"]) == (len(for_a_person), 0), "the second run finds nothing more"
    # the account that was lost is made anew by the next page view
    await views_until_there(tenant, ["visitor.2"])


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
    await system.make_roster(f"visitors.{gone.name}")

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
    assert not {one for one in still if one in expected and one[0] == "roster"}
    # what is left of a destroyed tenant goes in a run of its own, which whoever creates it anew waits for
    own = (await panel.http.get("/v1/operations", params={"instance_name": gone.name})).json()["operations"][0]
    assert own["kind"] == "reconcile"
    await panel.finished(own["id"])
    assert await drift(panel, f"/tenants/{gone.name}") == set()
    assert await holds(system, gone.name) == {
        "users": [],
        "rosters": {f"visitors.{gone.name}": None, f"operators.{gone.name}": None},
    }
    assert await system.users_of(stranger) == [f"bob.{stranger}"], "nobody's, so not ours to touch"
    await system.unregister(f"bob.{stranger}", "of-nobody")


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
    """As the old system made it."""
    host = system.endpoints["xmpp_host"]
    visitors, operators = f"visitors.{name}", f"operators.{name}"
    for group, displayed in ((visitors, ()), (operators, (operators, visitors))):
        await system.make_roster(group, *displayed, label="Old", description="Old")
    for user, password, group in (
        ("bob", "bobs-old-password", "operators"),
        ("visitor.7", PASSWORD, "visitors"),
        ("visitor.8.chat", PASSWORD, "visitors"),
        ("visitor.nine", PASSWORD, "visitors"),
    ):
        await system.ejabberd("register", user=f"{user}.{name}", host=host, password=password)
        await system.join(f"{group}.{name}", f"{user}.{name}")


@pytest.fixture
def old_name() -> str:
    return f"old{next(_numbers)}-{os.getpid()}"


async def test_a_tenant_of_the_old_system_is_imported(system: System, panel: Panel, old_name: str) -> None:
    await old_tenant(system, old_name)
    # somebody took her out of the roster
    await system.ejabberd(
        "register", user=f"eve.{old_name}", host=system.endpoints["xmpp_host"], password="eves-password"
    )
    before = await holds(system, old_name)
    answer = await panel.http.post(f"/v1/tenants/{old_name}/import", json={"online_seconds": 120})
    assert answer.status_code == 202
    operation = await panel.finished(answer.json()["operation"]["id"])
    skipped = [f"eve.{old_name}", f"visitor.nine.{old_name}"]
    assert operation["result"] == {"accounts": 3, "skipped": 2, "skipped_names": skipped}
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
    endpoints = system.endpoints
    address = (endpoints["c2s_host"], endpoints["c2s_port"])
    async with Operator(lhc.name("bob"), lhc.host, "bobs-old-password", address) as bob:
        await bob.has_contact(lhc.name("visitor.7"))
        # a wrong password shows nobody; the one that LHC knows from before does
        assert (await lhc.page_view("visitor.8.chat", "wrong", status="wrong")).text == "ok"
        assert (await lhc.page_view("visitor.7", PASSWORD, status="right")).text == "ok"
        await bob.sees(lhc.name("visitor.7"), status="right")
        assert (await lhc.page_view("visitor.8.chat", PASSWORD, status="right")).text == "ok"
        await bob.sees(lhc.name("visitor.8.chat"), status="right")
        assert "wrong" not in {presence.status for presence in bob.presences}
    again = await panel.http.post(f"/v1/tenants/{old_name}/import")
    assert (again.status_code, again.json()["detail"]) == (409, f"there is a tenant '{old_name}' already")


async def test_an_import_that_is_asked_for_twice_runs_once(system: System, panel: Panel, old_name: str) -> None:
    await old_tenant(system, old_name)
    asked = [panel.http.post(f"/v1/tenants/{old_name}/import") for _ in range(5)]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    ids = {answer["operation"]["id"] for answer in answers if "operation" in answer}
    assert len(ids) == 1
    assert sum(bool(answer.get("secret_key")) for answer in answers) == 1, "a key is shown once"
    await panel.finished(ids.pop())
    others = [answer for answer in answers if "operation" not in answer]
    assert all(answer["status"] == 409 for answer in others), "who came when it was over"


async def test_a_name_of_which_only_a_roster_is_there_is_imported(system: System, panel: Panel, old_name: str) -> None:
    await system.make_roster(f"operators.{old_name}")
    answer = await panel.http.post(f"/v1/tenants/{old_name}/import")
    assert (await panel.finished(answer.json()["operation"]["id"]))["result"]["accounts"] == 0
    assert (await reconcile(panel, f"/tenants/{old_name}"))["found"] == 0


async def test_nothing_cannot_be_imported(panel: Panel, old_name: str) -> None:
    answer = await panel.http.post(f"/v1/tenants/{old_name}/import")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "instance_name", "rule": "ejabberd has neither shared rosters nor accounts of that name"}
    ]
    assert (await panel.http.get(f"/v1/tenants/{old_name}")).status_code == 404


async def test_registrations_that_ejabberd_lost_are_made_again(tenant: Tenant) -> None:
    """By kill -9: its tables are written to disk with a delay."""
    system, visitors = tenant.system, [f"visitor.{number}" for number in range(1, 9)]
    for visitor in visitors:
        await tenant.lhc.new_visitor(visitor, PASSWORD)
    await system.kill("ejabberd")
    await until_async(lambda: answers(system), "ejabberd answers again", 60)
    await system.ready()
    # whatever the disk has kept, of one we know that it is gone
    await system.unregister(tenant.lhc.name("visitor.1"))
    await grow_old(tenant)
    result = await reconcile(tenant.panel, f"/tenants/{tenant.name}")
    assert result["mended"] == result["found"] >= 1
    assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["found"] == 0
    await views_until_there(tenant, visitors)
    there = await holds(system, tenant.name)
    names = sorted(map(tenant.lhc.name, visitors))
    assert there["users"] == names
    assert there["rosters"][f"visitors.{tenant.name}"][1] == [f"{name}@{tenant.host}" for name in names]


async def answers(system: System) -> bool:
    try:
        await system.ejabberd("status")
    except httpx.HTTPError:
        return False
    return True


async def test_what_is_young_is_left_alone(tenant: Tenant) -> None:
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await tenant.system.unregister(tenant.lhc.name("visitor.1"))
    assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["found"] == 0


async def test_a_large_roster_that_was_deleted_is_filled_again(tenant: Tenant) -> None:
    """More members than are mended, or asked for, one by one."""
    usernames = [tenant.lhc.name(f"visitor.{number}") for number in range(1, 251)]
    async with domain_of(tenant.system) as services:
        verifier = await make_verifier(PASSWORD)
        await services.ejabberd.bulk.register(dict.fromkeys(usernames, verifier))
        names = [services.naming.parse_username(username) for username in usernames]
        await rows.adopt(services, tenant.name, names[:230])
        await grow_old(tenant)
        await services.ejabberd.delete_roster(f"visitors.{tenant.name}")
        assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["mended"] == 1 + 230 + 20
        assert await services.ejabberd.roster_members(f"visitors.{tenant.name}") == sorted(usernames)
        await services.ejabberd.bulk.remove_users(usernames[5:])
        await grow_old(tenant)
        # of each both the account and the membership
        assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["mended"] == 245
        assert await rows_of_tenant(services, tenant.name) == 5
    assert (await reconcile(tenant.panel, f"/tenants/{tenant.name}"))["found"] == 0


async def test_a_loss_beyond_all_measure_is_mended_by_nobody_but_a_person(tenant: Tenant) -> None:
    """As when ejabberd has lost its data, or answers of another's."""
    async with domain_of(tenant.system) as services:
        names = [AccountName(AccountKind.VISITOR, str(number), tenant.name) for number in range(1, 1002)]
        await rows.adopt(services, tenant.name, names)
        await grow_old(tenant)
        path = f"/tenants/{tenant.name}"
        result = await reconcile(tenant.panel, path)
        assert (result["held"], result["mended"]) == (1001, 0)
        assert await rows_of_tenant(services, tenant.name) == 1001
        result = await reconcile(tenant.panel, path, anyway=True)
        assert ("held" in result, result["mended"]) == (False, 1001)
        assert await rows_of_tenant(services, tenant.name) == 0


async def rows_of_tenant(services: Services, instance_name: str) -> int:
    async with services.database.read() as session:
        return sum((await registry.count_accounts(session, instance_name)).values())


async def test_one_run_at_a_time(world: World) -> None:
    """On both databases, however many ask at once."""
    started = await asyncio.gather(*(start(world.services, PANEL) for _ in range(20)))
    assert len({operation.id for operation in started}) == 1
    with pytest.raises(ConflictError, match="is under way with another input"):
        await start(world.services, PANEL, dry_run=True)
