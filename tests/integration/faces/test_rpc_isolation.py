"""XML-RPC: with one tenant's credentials nothing of another tenant is told or changed, by whatever argument."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from orchestrator.api.lhc import rpc_calls, rpc_rooms
from tests.world.rpc import METHODS, Rpc, named
from tests.world.tenant import Tenant
from tests.world.tenant_state import HOST, PASSWORD, nothing_changes

OURS, THEIRS = "isolated", "isolated-2"
FOREIGN = {
    "host": ["xmpp.example", "conference.localhost"],
    "grouphost": ["xmpp.example"],
    "user": ["bob.NAME", "BOB.NAME", "visitor.1.NAME", f"bob.NAME@{HOST}", "bob.OWN@xmpp.example"],
    "group": ["operators.NAME", "visitors.NAME"],
    "display": ["visitors.NAME", "operators.OWN\\nvisitors.NAME"],
    "from": [f"visitor.1.NAME@{HOST}", f"VISITOR.1.NAME@{HOST}", "visitor.1.OWN@xmpp.example"],
    "to": [f"bob.NAME@{HOST}", f"bob.NAME@{HOST}/desk", "bob.OWN@xmpp.example"],
    "stanza": [
        f"<presence to='bob.NAME@{HOST}'><status>forged</status></presence>",
        f"<presence from='visitor.1.NAME@{HOST}'><status>forged</status></presence>",
    ],
}
"""By argument: values of the tenant NAME, or of nobody here, for who is the tenant OWN."""

CASES = [
    (method, argument, value)
    for method, arguments in METHODS.items()
    for argument in arguments
    for value in FOREIGN.get(argument, [])
]


@pytest.fixture(scope="module")
async def ours(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    return await furnished(Tenant(system, receiver, panel, await panel.create(OURS)))


@pytest.fixture(scope="module")
async def theirs(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    # the visitor is to stay while the tests look at it
    return await furnished(Tenant(system, receiver, panel, await panel.create(THEIRS, online_seconds=3600)))


@pytest.fixture(scope="module")
async def their_operator(theirs: Tenant) -> AsyncIterator[Operator]:
    """Online, and seeing the visitor, all the while."""
    async with theirs.operator("bob") as bob:
        await bob.sees(theirs.lhc.name("visitor.1"))
        await theirs.receiver.status(theirs.connect_body("bob"))
        yield bob


async def furnished(tenant: Tenant) -> Tenant:
    """With an operator's account and a visitor online."""
    await tenant.lhc.new_operator("bob", "operator-pw")
    shown = await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="on page 1")
    assert shown.text == '{"error":false,"msg":""}'
    return tenant


async def refusals(tenant: Tenant) -> list[tuple[str, str]]:
    """Who was refused what, newest first."""
    answer = await tenant.panel.http.get(f"/v1/tenants/{tenant.name}/audit", params={"limit": 500})
    entries = answer.json()["entries"]
    return [(entry["actor"], entry["reason"]) for entry in entries if entry["action"] == "rpc.refused"]


def test_every_method_is_here() -> None:
    # those about rooms are tested beside the rooms themselves
    assert set(METHODS) == set(rpc_calls._HANDLERS) - set(rpc_rooms.HANDLERS)  # noqa: SLF001 - nothing else knows them all
    assert {argument for arguments in METHODS.values() for argument in arguments} - set(FOREIGN) == {
        *("password", "newpass", "name", "description", "type", "subject", "body", "resource")
    }


async def test_the_arguments_are_right_for_their_own_tenant(tenant: Tenant) -> None:
    """So that what is refused below is refused for the one that is foreign."""
    await furnished(tenant)
    rpc = Rpc(f"{tenant.lhc_url}/rpc", tenant.name, HOST, tenant.key)
    last = ["unregister", "srg_delete"]
    for method in [*(method for method in METHODS if method not in last), *last]:
        await rpc.call(method, named(METHODS[method], tenant.name))
    assert await refusals(tenant) == []


@pytest.mark.parametrize("case", CASES, ids=" ".join)
async def test_a_foreign_name_is_refused_and_recorded(
    tenant: Tenant, theirs: Tenant, their_operator: Operator, case: tuple[str, str, str]
) -> None:
    method, argument, value = case
    foreign = value.replace("NAME", theirs.name).replace("OWN", tenant.name)
    arguments = {**named(METHODS[method], tenant.name), argument: foreign}
    heard = len(their_operator.messages), len(their_operator.presences)
    async with nothing_changes(theirs):
        for url in (f"{tenant.lhc_url}/rpc", tenant.system.endpoints["rpc"]):
            code, text = await Rpc(url, tenant.name, HOST, tenant.key).fault(method, arguments)
            assert code == -118
            assert text.startswith(f"Error -118\n{argument}: "), text
    await their_operator.taken()
    assert (len(their_operator.messages), len(their_operator.presences)) == heard
    reason = f"{method}: argument '{argument}' names what is not the tenant's"
    assert await refusals(tenant) == [(f"rpc {tenant.name}", reason)]
    assert await refusals(theirs) == []
    assert await tenant.system.users_of(tenant.name) == []


@pytest.mark.parametrize("method", METHODS)
async def test_all_names_of_another_are_refused(ours: Tenant, theirs: Tenant, method: str) -> None:
    async with nothing_changes(theirs):
        for url in (f"{ours.lhc_url}/rpc", ours.system.endpoints["rpc"]):
            rpc = Rpc(url, ours.name, HOST, ours.key)
            code, _ = await rpc.fault(method, named(METHODS[method], theirs.name))
            assert code == -118
    assert (f"rpc {ours.name}", method) in {(actor, reason.partition(":")[0]) for actor, reason in await refusals(ours)}


@pytest.mark.parametrize("method", METHODS)
async def test_on_a_tenants_address_the_hosting_wide_credentials_are_that_tenants(
    tenant: Tenant, theirs: Tenant, method: str
) -> None:
    rpc = Rpc.hosting(tenant.system)
    rpc.url = f"{tenant.lhc_url}/rpc"
    async with nothing_changes(theirs):
        code, _ = await rpc.fault(method, named(METHODS[method], theirs.name))
    assert code == -118
    assert [actor for actor, _ in await refusals(tenant)] == [f"rpc {rpc.credentials['user']}"]


@pytest.mark.parametrize("method", METHODS)
async def test_their_address_takes_no_credentials_of_ours(ours: Tenant, theirs: Tenant, method: str) -> None:
    rpc = Rpc(f"{theirs.lhc_url}/rpc", ours.name, HOST, ours.key)
    for name in (ours.name, theirs.name):
        async with nothing_changes(ours, theirs):
            fault = await rpc.fault(method, named(METHODS[method], name))
        assert fault == (-118, "Error -118\nInvalid authentication data")


async def test_refusals_do_not_fill_the_log(tenant: Tenant, theirs: Tenant) -> None:
    """At most one of a method in a minute, however many come at once, and whatever they name."""
    rpc = Rpc(f"{tenant.lhc_url}/rpc", tenant.name, HOST, tenant.key)
    calls = [
        rpc.fault(method, {**named(METHODS[method], tenant.name), "user": f"bob{number}.{theirs.name}"})
        for number in range(15)
        for method in ("unregister", "user_sessions_info")
    ]
    assert {code for code, _ in await asyncio.gather(*calls)} == {-118}
    assert sorted(reason.partition(":")[0] for _, reason in await refusals(tenant)) == [
        "unregister",
        "user_sessions_info",
    ]


async def test_a_record_holds_no_value(tenant: Tenant, theirs: Tenant) -> None:
    rpc = Rpc(f"{tenant.lhc_url}/rpc", tenant.name, HOST, tenant.key)
    await rpc.fault("register", {"host": HOST, "user": f"hush.{theirs.name}", "password": "hush"})
    assert "hush" not in (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}/audit")).text
    assert "hush" not in (tenant.system.state / "logs" / "api.log").read_text()
