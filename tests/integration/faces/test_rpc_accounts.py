"""XML-RPC's accounts and shared rosters, method by method: answers, faults, repeats, and what each does in ejabberd."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.rpc import Rpc
from tests.world.tenant import NewTenant, Tenant, rpc_of, tenants_of

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
DONE = {"res": 0}


@pytest.fixture(scope="module")
async def acme(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[Tenant]:
    """The tenant of the tests that leave no accounts."""
    async with tenants_of(system, receiver, panel) as make:
        yield await make()


def account(tenant: Tenant, local: str, **more: str) -> dict[str, str]:
    return {"host": HOST, "user": tenant.lhc.name(local), **more}


def member(tenant: Tenant, local: str, kind: str) -> dict[str, str]:
    return {"user": tenant.lhc.name(local), "host": HOST, "group": f"{kind}.{tenant.name}", "grouphost": HOST}


def roster(instance_name: str, kind: str) -> dict[str, str]:
    """The arguments of `srg_create`, as the extension sends them for a new instance."""
    groups = [f"operators.{instance_name}", f"visitors.{instance_name}"] if kind == "operators" else []
    return {
        "host": HOST,
        "group": f"{kind}.{instance_name}",
        "name": kind.capitalize(),
        "description": f"{kind.capitalize()} of LHC",
        "display": "\\n".join(groups),
    }


def asked(instance_name: str, kind: str) -> dict[str, str]:
    return {"host": HOST, "group": f"{kind}.{instance_name}"}


async def has_password(tenant: Tenant, local: str, password: str) -> bool:
    """Whether ejabberd itself lets the user in with it."""
    user = tenant.lhc.name(local)
    return bool(await tenant.system.ejabberd("check_password", user=user, host=HOST, password=password) == 0)


async def members(tenant: Tenant, kind: str) -> list[str]:
    return sorted(await tenant.system.ejabberd("srg_get_members", group=f"{kind}.{tenant.name}", host=HOST))


async def registry_accounts(tenant: Tenant) -> dict[str, int]:
    counts: dict[str, int] = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"]
    return counts


# register, change_password, unregister


async def test_an_account_exists_when_register_answers(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    for local in ("bob", "visitor.1", "visitor.2.chat"):
        registered = await rpc.call("register", account(tenant, local, password=PASSWORD))
        assert registered == {"res": 0, "text": f"User {tenant.lhc.name(local)}@{HOST} successfully registered"}
        assert await has_password(tenant, local, PASSWORD)
    assert await registry_accounts(tenant) == {"operator": 1, "visitor": 1, "chat": 1}


async def test_registering_an_operator_again_is_a_success_or_a_fault(tenant: Tenant) -> None:
    """Every call may come twice; with another password it is another person's form."""
    rpc, user = rpc_of(tenant), tenant.lhc.name("bob")
    for _ in range(2):
        assert (await rpc.call("register", account(tenant, "bob", password=PASSWORD)))["res"] == 0
    fault = await rpc.fault("register", account(tenant, "bob", password="another"))
    assert fault == (-118, f"Error -118\nUser {user}@{HOST} already registered")
    assert await has_password(tenant, "bob", PASSWORD)
    assert (await registry_accounts(tenant))["operator"] == 1


async def test_registering_a_visitor_again_sets_the_password(tenant: Tenant) -> None:
    """LHC has forgotten the account, or its row of one that it could not register."""
    rpc = rpc_of(tenant)
    for password in (PASSWORD, PASSWORD, "another"):
        assert (await rpc.call("register", account(tenant, "visitor.1", password=password)))["res"] == 0
        assert await has_password(tenant, "visitor.1", password)
    assert (await registry_accounts(tenant))["visitor"] == 1


async def test_an_account_that_the_registry_does_not_know_is_taken(tenant: Tenant) -> None:
    user = tenant.lhc.name("old")
    await tenant.system.ejabberd("register", user=user, host=HOST, password="its-own")
    code, text = await rpc_of(tenant).fault("register", account(tenant, "old", password=PASSWORD))
    assert (code, text) == (-118, f"Error -118\nUser {user}@{HOST} already registered")
    assert await has_password(tenant, "old", "its-own")


async def test_capitals_are_folded(tenant: Tenant) -> None:
    rpc, user = rpc_of(tenant), f"AutoUser1.{tenant.name}"
    registered = await rpc.call("register", {"host": HOST.upper(), "user": user, "password": PASSWORD})
    assert registered["text"] == f"User {user.lower()}@{HOST} successfully registered"
    assert await rpc.call("srg_user_add", {**member(tenant, "", "operators"), "user": user}) == DONE
    assert await members(tenant, "operators") == [f"{user.lower()}@{HOST}"]
    assert await rpc.call("change_password", {"host": HOST, "user": user, "newpass": "pw2"}) == DONE
    assert await has_password(tenant, "autouser1", "pw2")
    assert await rpc.call("unregister", {"host": HOST, "user": user}) == {"res": 0, "text": ""}
    assert await tenant.system.users_of(tenant.name) == []


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"user": "bo b.NAME"}, "user: must be of a-z, 0-9, _, +, - and single dots between them"),
        ({"user": ""}, "user: must end in .[instance_name]"),
        (
            {"user": "visitor.x.NAME"},
            "user: a visitor's or chat's id must be a positive whole number of at most 19 digits",
        ),
        ({"password": ""}, "password: must not be empty"),
        ({"host": "xmpp.example"}, f"host: must be {HOST}"),
        ({"host": ""}, f"host: must be {HOST}"),
    ],
)
async def test_what_cannot_be_registered_is_told_the_rule(acme: Tenant, wrong: dict[str, str], text: str) -> None:
    wrong = {key: value.replace("NAME", acme.name) for key, value in wrong.items()}
    arguments = {**account(acme, "bob", password=PASSWORD), **wrong}
    assert await rpc_of(acme).fault("register", arguments) == (-118, f"Error -118\n{text}")
    assert await acme.system.users_of(acme.name) == []


async def test_a_tenant_that_is_full_is_a_fault(new_tenant: NewTenant) -> None:
    tenant = await new_tenant(max_accounts=1)
    rpc = rpc_of(tenant)
    await rpc.call("register", account(tenant, "bob", password=PASSWORD))
    code, text = await rpc.fault("register", account(tenant, "ann", password=PASSWORD))
    assert (code, text) == (-118, f"Error -118\ntenant '{tenant.name}' may have 1 accounts")
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("bob")]


async def test_a_changed_password_opens_and_the_old_one_does_not(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    await rpc.call("register", account(tenant, "bob", password="operator-pw"))
    for _ in range(2):
        assert await rpc.call("change_password", account(tenant, "bob", newpass="new & <better>")) == DONE
    assert not await has_password(tenant, "bob", "operator-pw")
    async with tenant.operator("bob", password="new & <better>") as bob:
        await bob.taken()


async def test_a_visitor_whose_password_changed_is_let_in_by_the_json_face(tenant: Tenant) -> None:
    """The two faces are of one registry."""
    rpc = rpc_of(tenant)
    bob = await tenant.operator_online()
    await rpc.call("register", account(tenant, "visitor.1", password="before"))
    await rpc.call("srg_user_add", member(tenant, "visitor.1", "visitors"))
    await rpc.call("change_password", account(tenant, "visitor.1", newpass=PASSWORD))
    await tenant.lhc.page_view("visitor.1", "before", status="forged")
    await tenant.lhc.page_view("visitor.1", PASSWORD, status="on page 1")
    await bob.sees(tenant.lhc.name("visitor.1"), status="on page 1")
    assert "forged" not in {seen.status for seen in bob.presences}


@pytest.mark.parametrize("local", ["nobody", "visitor.99", "visitor.99.chat"])
async def test_the_password_of_nobody_is_a_fault(acme: Tenant, local: str) -> None:
    fault = await rpc_of(acme).fault("change_password", account(acme, local, newpass=PASSWORD))
    assert fault == (-118, "Error -118\nunknown_user")


async def test_an_empty_password_is_a_fault_and_changes_nothing(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    await rpc.call("register", account(tenant, "bob", password=PASSWORD))
    fault = await rpc.fault("change_password", account(tenant, "bob", newpass=""))
    assert fault == (-118, "Error -118\npassword: must not be empty")
    assert await has_password(tenant, "bob", PASSWORD)


async def test_an_account_that_ends_is_gone_everywhere(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    bob = await tenant.operator_online()
    for local, kind in (("ann", "operators"), ("visitor.1", "visitors")):
        await rpc.call("register", account(tenant, local, password="operator-pw"))
        await rpc.call("srg_user_add", member(tenant, local, kind))
        await bob.has_contact(tenant.lhc.name(local))
    ann = await tenant.online("ann")
    for local in ("ann", "visitor.1"):
        for _ in range(2):
            assert await rpc.call("unregister", account(tenant, local)) == {"res": 0, "text": ""}
        await bob.has_no_contact(tenant.lhc.name(local))
    await asyncio.wait_for(ann.disconnected.wait(), 10)
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("bob")]
    assert await registry_accounts(tenant) == {"operator": 1, "visitor": 0, "chat": 0}


@pytest.mark.parametrize("local", ["nobody", "visitor.99", "visitor.99.chat"])
async def test_who_never_was_can_be_unregistered(acme: Tenant, local: str) -> None:
    assert await rpc_of(acme).call("unregister", account(acme, local)) == {"res": 0, "text": ""}


# srg_user_add, srg_user_del


@pytest.mark.parametrize(
    ("local", "kind"), [("ann", "operators"), ("visitor.1", "visitors"), ("visitor.2.chat", "visitors")]
)
async def test_a_member_comes_into_the_operators_roster_and_goes(tenant: Tenant, local: str, kind: str) -> None:
    rpc = rpc_of(tenant)
    bob = await tenant.operator_online()
    await rpc.call("register", account(tenant, local, password=PASSWORD))
    for _ in range(2):
        assert await rpc.call("srg_user_add", member(tenant, local, kind)) == DONE
    await bob.has_contact(tenant.lhc.name(local))
    for _ in range(2):
        assert await rpc.call("srg_user_del", member(tenant, local, kind)) == DONE
    await bob.has_no_contact(tenant.lhc.name(local))
    assert tenant.lhc.name(local) in await tenant.system.users_of(tenant.name)


async def test_nobody_becomes_no_member(acme: Tenant) -> None:
    """A success without effect, as for ejabberd, which lets somebody who is not there be a member."""
    for method in ("srg_user_add", "srg_user_del"):
        for local, kind in (("nobody", "operators"), ("visitor.99", "visitors")):
            assert await rpc_of(acme).call(method, member(acme, local, kind)) == DONE
    assert await members(acme, "operators") == []
    assert await members(acme, "visitors") == []


async def test_visitors_are_no_operators(tenant: Tenant) -> None:
    """A visitor among the operators would see them all, and write as one of them."""
    rpc = rpc_of(tenant)
    await rpc.call("register", account(tenant, "visitor.1", password=PASSWORD))
    fault = await rpc.fault("srg_user_add", member(tenant, "visitor.1", "operators"))
    assert fault == (-118, "Error -118\ngroup: must be the visitors roster of the user's own instance")
    assert await members(tenant, "operators") == []


# srg_create, srg_get_info, srg_delete


def info(**fields: str) -> dict[str, Any]:
    return {"informations": [{"information": [{"key": key}, {"value": value}]} for key, value in fields.items()]}


async def test_a_roster_is_told_field_by_field(acme: Tenant) -> None:
    rpc = rpc_of(acme)
    displayed = f'["operators.{acme.name}","visitors.{acme.name}"]'
    assert await rpc.call("srg_get_info", asked(acme.name, "operators")) == info(
        label="Operators", displayed_groups=displayed, description=f"Operators of {acme.name}"
    )
    assert await rpc.call("srg_get_info", asked(acme.name, "visitors")) == info(
        label="Visitors", displayed_groups="[]", description=f"Visitors of {acme.name}"
    )


@pytest.mark.parametrize("kind", ["visitors", "operators"])
async def test_an_absent_roster_is_no_fault(system: System, kind: str) -> None:
    assert await Rpc.hosting(system).call("srg_get_info", asked("never-was", kind)) == {"informations": []}


async def test_a_known_tenants_roster_is_written_again(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    for _ in range(2):
        wanted = {**roster(tenant.name, "operators"), "name": "Operators ąž", "description": '24/7 "sales" & <more>'}
        assert await rpc.call("srg_create", wanted) == DONE
        assert await rpc.call("srg_get_info", asked(tenant.name, "operators")) == info(
            label="Operators ąž",
            displayed_groups=f'["operators.{tenant.name}","visitors.{tenant.name}"]',
            description='24/7 "sales" & <more>',
        )


@pytest.mark.parametrize("display", ["", '""', "visitors.NAME", "operators.NAME\nvisitors.NAME"])
async def test_whatever_it_asks_to_show_the_roster_shows_both(acme: Tenant, display: str) -> None:
    wanted = {**roster(acme.name, "operators"), "display": display.replace("NAME", acme.name)}
    assert await rpc_of(acme).call("srg_create", wanted) == DONE
    told = await rpc_of(acme).call("srg_get_info", asked(acme.name, "operators"))
    assert told["informations"][1]["information"][1] == {"value": f'["operators.{acme.name}","visitors.{acme.name}"]'}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"group": "staff.NAME"}, "group: a shared roster is named 'visitors' or 'operators', then the instance"),
        ({"group": "operators"}, "group: must end in .[instance_name]"),
        ({"group": ""}, "group: must end in .[instance_name]"),
        ({"display": "x"}, "display: must end in .[instance_name]"),
        (
            {"group": "visitors.NAME", "display": "visitors.NAME"},
            "display: operators may show the instance's own two rosters, visitors show none",
        ),
        ({"host": "xmpp.example"}, f"host: must be {HOST}"),
    ],
)
async def test_what_is_no_roster_of_a_tenant_is_told_the_rule(acme: Tenant, changed: dict[str, str], text: str) -> None:
    changed = {key: value.replace("NAME", acme.name) for key, value in changed.items()}
    arguments = {**roster(acme.name, "operators"), **changed}
    assert await rpc_of(acme).fault("srg_create", arguments) == (-118, f"Error -118\n{text}")


async def test_lhc_begins_a_tenant_and_ends_it(system: System, panel: Panel) -> None:
    """With the hosting-wide credentials. Each call comes twice."""
    rpc, name = Rpc.hosting(system), "by-rpc"
    for kind in ("visitors", "operators"):
        for _ in range(2):
            assert await rpc.call("srg_create", roster(name, kind)) == DONE
    assert (await panel.http.get(f"/v1/tenants/{name}")).json()["state"] == "active"
    assert (await rpc.call("srg_get_info", asked(name, "operators"))) == info(
        label="Operators",
        displayed_groups=f'["operators.{name}","visitors.{name}"]',
        description="Operators of LHC",
    )
    user = {"host": HOST, "user": f"visitor.1.{name}"}
    await rpc.call("register", {**user, "password": PASSWORD})

    for kind in ("visitors", "operators"):
        for _ in range(2):
            assert await rpc.call("srg_delete", asked(name, kind)) == DONE
    assert await system.users_of(name) == []
    assert (await panel.http.get(f"/v1/tenants/{name}")).status_code == 404
    for kind in ("visitors", "operators"):
        assert await rpc.call("srg_get_info", asked(name, kind)) == {"informations": []}
        gone = {**user, "group": f"{kind}.{name}", "grouphost": HOST}
        assert await rpc.call("srg_user_del", gone) == DONE
    assert await rpc.call("unregister", user) == {"res": 0, "text": ""}
    assert await rpc.fault("change_password", {**user, "newpass": PASSWORD}) == (-118, "Error -118\nunknown_user")

    # and anew, at the tenant's own address
    own = Rpc(f"{system.endpoints['api']}/t/{name}/rpc", rpc.credentials["user"], HOST, rpc.credentials["password"])
    assert await own.call("srg_create", roster(name, "visitors")) == DONE
    # a name rests for some seconds before another tenant bears it
    await panel.comes_alive(name)


async def test_a_tenants_own_key_ends_it_and_begins_nothing(tenant: Tenant) -> None:
    rpc = rpc_of(tenant)
    await rpc.call("register", account(tenant, "visitor.1", password=PASSWORD))
    for kind in ("visitors", "operators"):
        for _ in range(2):
            assert await rpc.call("srg_delete", asked(tenant.name, kind)) == DONE
    assert await tenant.system.users_of(tenant.name) == []
    assert await rpc.call("unregister", account(tenant, "visitor.1")) == {"res": 0, "text": ""}
    code, _ = await rpc.fault("srg_create", roster(tenant.name, "visitors"))
    assert code == -118
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).status_code == 404


async def test_ending_a_tenant_that_never_was_is_a_success(system: System) -> None:
    assert await Rpc.hosting(system).call("srg_delete", asked("never-was", "visitors")) == DONE
