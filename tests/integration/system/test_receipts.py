"""Receipts that operators' clients ask for (XEP-0184, XEP-0333): given when the tenant's server has the message."""

import asyncio

import pytest

from bench.testbed.operator import Operator
from bench.testbed.receiver import Callback
from bench.testbed.waiting import until
from tests.world.tenant import Tenant
from tests.world.visitors import new_visitor
from xmpp_pool.stanzas import MARKERS_NS, RECEIPTS_NS

REQUEST, MARKABLE = f"<request xmlns='{RECEIPTS_NS}'/>", f"<markable xmlns='{MARKERS_NS}'/>"
RECEIVED, MARKED = f"{{{RECEIPTS_NS}}}received", f"{{{MARKERS_NS}}}received"


def write(operator: Operator, to: str, message_id: str, asks: str) -> None:
    operator.send_raw(f"<message type='chat' to='{to}' id='{message_id}'><body>{message_id}</body>{asks}</message>")


def receipts(operator: Operator) -> list[tuple[str, str]]:
    """What the operator's client was told of its messages: the elements with their ids."""
    return [
        (child.tag, child.get("id", ""))
        for stanza in operator.stanzas
        if stanza.tag == "{jabber:client}message"
        for child in stanza
        if child.tag in {RECEIVED, MARKED}
    ]


@pytest.mark.parametrize("event_format", ["lhc", "webhook"])
async def test_a_receipt_follows_when_the_tenants_server_has_the_message(tenant: Tenant, event_format: str) -> None:
    bob = await tenant.operator_online("bob")
    phone = await tenant.online("bob", resource="phone")
    visitor = f"{tenant.lhc.name('visitor.1')}@{tenant.host}"
    if event_format == "webhook":
        url = f"http://{tenant.callback_host}:{tenant.receiver.port}/events"
        wanted = {"event_format": event_format, "callback_url": url}
        assert (await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json=wanted)).status_code == 200
    asked, has_it = asyncio.Event(), asyncio.Event()

    async def answer(callback: Callback) -> int:
        if b"first" in callback.raw:
            asked.set()
            await has_it.wait()
        return 200

    tenant.receiver.behaviours[tenant.callback_host] = answer
    write(bob, visitor, "first", REQUEST + MARKABLE)
    write(bob, visitor, "second", "")
    write(bob, visitor, "third", REQUEST)
    await until(asked.is_set, "the tenant's server is told of the first message")
    await bob.taken()
    assert receipts(bob) == []
    has_it.set()
    await until(lambda: (RECEIVED, "third") in receipts(bob), "the last message is confirmed")
    assert receipts(bob) == [(RECEIVED, "first"), (MARKED, "first"), (RECEIVED, "third")]
    told = [one for one in bob.stanzas if one.find(RECEIVED) is not None]
    assert {one.get("from") for one in told} == {f"{visitor}/lhc"}
    await phone.taken()
    assert receipts(phone) == [], "it goes to the device that asked"


async def test_a_browser_is_not_asked_in_the_place_of_lhc(tenant: Tenant) -> None:
    """It would answer though LHC has not got the message, and may never get it."""
    bob = await tenant.operator_online("bob")
    async with await new_visitor(tenant) as browser:
        await browser.present("John", "on page 1")
        await bob.sees(tenant.lhc.name("visitor.1"))
        write(bob, browser.jid, "first", f"{REQUEST}{MARKABLE}")
        await browser.reads("first")
        (message,) = [one for one in browser.stanzas if one.findtext("{jabber:client}body") == "first"]
        assert not {child.tag.rpartition("}")[2] for child in message} & {"request", "markable"}
        await until(lambda: len(receipts(bob)) == 2, "the message is confirmed")
