"""XML-RPC's sessions of clients: an operator's, and a visitor's whose browser is logged in to ejabberd itself."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from bench.testbed.operator import Operator
from bench.testbed.waiting import until_async
from tests.world.frozen import frozen
from tests.world.tenant import Tenant, rpc_of

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
DONE = {"res": 0}
NICK = "xmlns='http://jabber.org/protocol/nick'"


async def sessions(tenant: Tenant, local: str) -> list[dict[str, Any]]:
    told = await rpc_of(tenant).call("user_sessions_info", {"host": HOST, "user": tenant.lhc.name(local)})
    assert all(list(field) == [key] for one in told["sessions_info"] for field in one["session"] for key in field)
    return [{key: value for field in one["session"] for key, value in field.items()} for one in told["sessions_info"]]


async def present(tenant: Tenant, local: str, resource: str, stanza: str) -> Any:
    arguments = {"host": HOST, "user": tenant.lhc.name(local), "resource": resource, "stanza": stanza}
    return await rpc_of(tenant).call("send_stanza_c2s", arguments)


@pytest.fixture
async def browser(tenant: Tenant) -> AsyncIterator[Operator]:
    """The client of a visitor, registered over XML-RPC, and logged in to ejabberd."""
    await rpc_of(tenant).call("register", {"host": HOST, "user": tenant.lhc.name("visitor.1"), "password": PASSWORD})
    member = {"group": f"visitors.{tenant.name}", "grouphost": HOST}
    await rpc_of(tenant).call("srg_user_add", {"host": HOST, "user": tenant.lhc.name("visitor.1"), **member})
    async with tenant.operator("visitor.1", resource="browser", password=PASSWORD) as client:
        await client.taken()
        yield client


async def test_a_client_is_told_as_ejabberd_knows_it(tenant: Tenant) -> None:
    await tenant.operator_online("bob", resource="desk")
    (session,) = await sessions(tenant, "bob")
    assert list(session) == [
        *("connection", "ip", "port", "priority", "node", "uptime", "status", "resource", "statustext")
    ]
    (known,) = await tenant.system.ejabberd("user_sessions_info", host=HOST, user=tenant.lhc.name("bob"))
    assert {**session, "uptime": 0} == {**known, "uptime": 0}
    assert (session["connection"], session["resource"], session["status"]) == ("c2s", "desk", "available")


async def test_all_devices_of_an_operator_are_told(tenant: Tenant) -> None:
    await tenant.operator_online("bob", resource="desk")
    await tenant.online("bob", resource="phone")

    async def both() -> bool:
        return {session["resource"] for session in await sessions(tenant, "bob")} == {"desk", "phone"}

    await until_async(both, "both devices are told")


async def test_a_visitor_may_have_a_virtual_session_and_a_browser(tenant: Tenant, browser: Operator) -> None:
    assert [session["resource"] for session in await sessions(tenant, "visitor.1")] == ["browser"]
    await tenant.lhc.page_view("visitor.1", PASSWORD, status="on page 1")
    told = {session["resource"]: session for session in await sessions(tenant, "visitor.1")}
    assert set(told) == {"browser", "lhc"}
    assert (told["lhc"]["connection"], told["lhc"]["statustext"]) == ("component", "on page 1")
    await browser.leave()

    async def alone() -> bool:
        return [session["resource"] for session in await sessions(tenant, "visitor.1")] == ["lhc"]

    await until_async(alone, "the browser's session is gone")


async def test_an_ejabberd_that_hangs_keeps_no_chat_from_beginning(tenant: Tenant) -> None:
    """LHC asks before it begins a chat, and does not begin it when there is no answer in 5 s."""
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    pid = tenant.system.pid("ejabberd")
    async with frozen(pid):
        assert [session["resource"] for session in await sessions(tenant, "visitor.1")] == ["lhc"]
        assert await sessions(tenant, "bob") == []


async def test_a_browser_presents_the_status_it_is_given(tenant: Tenant, browser: Operator) -> None:
    browser.set_presence("away")
    await browser.taken()
    for stanza, statustext in (
        (f"\n <presence><status>Žalia &amp; &lt;1&gt;</status><nick {NICK}>John #1</nick></presence>\n", "Žalia & <1>"),
        (f"<presence><nick {NICK}>Ann</nick></presence>", "Žalia & <1>"),
        ("<presence><status/></presence>", ""),
    ):
        assert await present(tenant, "visitor.1", "browser", stanza) == DONE
        await browser.taken()
        (session,) = await sessions(tenant, "visitor.1")
        # what the presence does not say is as the client said it
        assert (session["status"], session["statustext"]) == ("away", statustext)


async def test_an_operators_client_presents_what_it_is_given(tenant: Tenant) -> None:
    """As if it had sent it: colleagues hear of it."""
    await tenant.operator_online("bob")
    ann = await tenant.operator_online("ann")
    name = tenant.lhc.name("bob")
    await ann.sees(name)
    both = f"<presence><status>in a meeting</status><nick {NICK}>Bob &amp; &lt;co&gt;</nick></presence>"
    for stanza, nick, status in (
        (both, "Bob & <co>", "in a meeting"),
        ("<presence><status>back</status></presence>", "Bob & <co>", "back"),
        (f"<presence><nick {NICK}>Robert</nick></presence>", "Robert", "back"),
    ):
        assert await present(tenant, "bob", "desk", stanza) == DONE
        await ann.sees(name, nick=nick, status=status)


@pytest.mark.parametrize("resource", ["", "desk", "browser/x"])
async def test_what_is_for_no_session_is_a_fault(tenant: Tenant, browser: Operator, resource: str) -> None:
    await browser.taken()
    arguments = {"host": HOST, "user": tenant.lhc.name("visitor.1"), "resource": resource, "stanza": "<presence/>"}
    assert await rpc_of(tenant).fault("send_stanza_c2s", arguments) == (-118, "Error -118\nno_session")
