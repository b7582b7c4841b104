"""Visitors whose browser is logged in to ejabberd itself: operators see them, and both sides' messages arrive once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.testbed.browser import Browser
from bench.testbed.waiting import until
from tests.world.tenant import NewTenant, Tenant, rpc_of
from tests.world.visitors import HOST, PASSWORD, new_visitor

NICK = "xmlns='http://jabber.org/protocol/nick'"


@pytest.fixture
async def browser(tenant: Tenant) -> AsyncIterator[Browser]:
    """The browser of `visitor.1`, on a page."""
    async with await new_visitor(tenant) as browser:
        await browser.present("John", "on page 1")
        yield browser


async def test_operators_see_a_browser_come_and_go(tenant: Tenant) -> None:
    bob = await tenant.operator_online("bob")
    visitor = tenant.lhc.name("visitor.1")
    async with await new_visitor(tenant) as browser:
        await browser.present("John", "on <page> 1")
        await bob.sees(visitor, nick="John", status="on <page> 1")
        await browser.present("John Doe", "on page 2")
        await bob.sees(visitor, nick="John Doe", status="on page 2")
    await bob.sees(visitor, kind="unavailable")
    async with await new_visitor(tenant) as browser:
        await browser.present("John", "is back")
        await bob.sees(visitor, status="is back")
        browser.cut()
        await bob.sees(visitor, kind="unavailable")


async def test_who_comes_later_sees_it_too(tenant: Tenant, browser: Browser) -> None:
    visitor = tenant.lhc.name("visitor.1")
    bob = await tenant.operator_online("bob")
    await bob.sees(visitor, nick="John", status="on page 1")
    phone = await tenant.online("bob", resource="phone")
    await phone.sees(visitor, nick="John", status="on page 1")
    await browser.leave()
    for device in (bob, phone):
        await device.sees(visitor, kind="unavailable")


async def test_a_message_reaches_the_browser_and_lhc_once_each(tenant: Tenant, browser: Browser) -> None:
    bob = await tenant.operator_online("bob")
    visitor = tenant.lhc.name("visitor.1")
    await bob.sees(visitor)
    bob.write(visitor, "to whom it concerns")
    bob.write(browser.jid, "to the browser itself")
    bob.write(f"{visitor}@{HOST}/lhc", "to what it has become")
    for body in ("to whom it concerns", "to the browser itself", "to what it has become"):
        await browser.reads(body)
        await tenant.receiver.message(body)
    bob.write(visitor, "the last one")
    await browser.reads("the last one")
    await tenant.receiver.message("the last one")
    wanted = ["to whom it concerns", "to the browser itself", "to what it has become", "the last one"]
    assert browser.bodies() == wanted
    assert [len(tenant.receiver.messages(body)) for body in wanted] == [1, 1, 1, 1]


async def test_lhc_speaks_for_who_has_a_browser(tenant: Tenant, browser: Browser) -> None:
    """A chat begins: LHC changes nick and status of every session, and sends the first message."""
    bob = await tenant.operator_online("bob")
    visitor = tenant.lhc.name("visitor.1")
    rpc = rpc_of(tenant)
    info = await rpc.call("user_sessions_info", {"host": HOST, "user": visitor})
    ((session,),) = ([entry["session"]] for entry in info["sessions_info"])
    resource = next(field["resource"] for field in session if "resource" in field)
    assert resource == "browser"
    stanza = f"<presence><status>wants to talk</status><nick {NICK}>John #12</nick></presence>"
    answer = await rpc.call("send_stanza_c2s", {"host": HOST, "user": visitor, "resource": resource, "stanza": stanza})
    assert answer == {"res": 0}
    await bob.sees(visitor, nick="John #12", status="wants to talk")
    message = {"type": "chat", "from": f"{visitor}@{HOST}", "to": f"{tenant.lhc.name('bob')}@{HOST}", "subject": ""}
    assert await rpc.call("send_message", {**message, "body": "hello?"}) == {"res": 0}
    assert (await bob.reads("hello?")).username == visitor
    assert browser.bodies() == []


async def test_two_browsers_of_one_visitor(tenant: Tenant, browser: Browser) -> None:
    """One that closes does not take the other one with it."""
    bob = await tenant.operator_online("bob")
    visitor = tenant.lhc.name("visitor.1")
    async with Browser(tenant.system.endpoints["websocket"], visitor, HOST, PASSWORD, "second") as second:
        await second.present("John", "on page 2")
        await bob.sees(visitor, status="on page 2")
        bob.write(visitor, "which one?")
        await asyncio.gather(*(one.reads("which one?") for one in (browser, second)))
    await bob.sees(visitor, kind="unavailable")
    info = await rpc_of(tenant).call("user_sessions_info", {"host": HOST, "user": visitor})
    assert len(info["sessions_info"]) == 1
    bob.write(visitor, "and now?")
    await browser.reads("and now?")


async def test_a_browser_reaches_its_own_tenant_alone(tenant: Tenant, browser: Browser, new_tenant: NewTenant) -> None:
    other = await new_tenant()
    bob, eve = await tenant.operator_online("bob"), await other.operator_online("eve")
    async with await new_visitor(other) as foreign, await new_visitor(tenant, "visitor.2") as neighbour:
        await foreign.present("Jane", "-")
        await neighbour.present("Jim", "-")
        await eve.sees(other.lhc.name("visitor.1"))
        await bob.sees(tenant.lhc.name("visitor.2"))
        for to in (other.lhc.name("eve"), other.lhc.name("visitor.1"), tenant.lhc.name("visitor.2")):
            await browser.write(to, "psst")
        await until(lambda: browser.errors() == ["forbidden"] * 3, "all are refused")
        await browser.write(tenant.lhc.name("bob"), "hello")
        await bob.reads("hello")
        assert "psst" not in [message.body for message in eve.messages] + foreign.bodies() + neighbour.bodies()
    assert {seen.username for seen in bob.presences} <= {
        tenant.lhc.name(one) for one in ("bob", "visitor.1", "visitor.2")
    }
    assert {seen.username for seen in eve.presences} <= {other.lhc.name(one) for one in ("eve", "visitor.1")}


async def test_operators_of_two_tenants_do_not_reach_each_other(tenant: Tenant, new_tenant: NewTenant) -> None:
    """Not by any kind of stanza; and what is refused says nothing of whether there is such an account."""
    other = await new_tenant()
    bob, ann = await tenant.operator_online("bob"), await tenant.operator_online("ann")
    eve = await other.operator_online("eve")
    for name in ("eve", "nobody"):
        bob.write(other.lhc.name(name), "psst")
        bob.subscribe(other.lhc.name(name))
    await bob.taken()
    refused = [(message.username, message.error) for message in bob.messages]
    assert refused == [(other.lhc.name(name), "forbidden") for name in ("eve", "nobody")]
    bob.write(tenant.lhc.name("ann"), "hello")
    await ann.reads("hello")
    await eve.taken()
    assert (eve.messages, [one for one in eve.presences if one.username == tenant.lhc.name("bob")]) == ([], [])
