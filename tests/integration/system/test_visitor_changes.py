"""What a visitor does by the tenant's API with lines and messages, as an operator's client is told of it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from sqlalchemy import select

from bench.testbed.operator import Operator
from bench.testbed.system import domain_of
from bench.testbed.waiting import until
from orchestrator.client import ApiError, TenantClient
from tenants.outbound.webhooks import event_id
from tenants.store.models import CallbackMessage
from tests.world.chats import ACCEPTED, read_by
from tests.world.tenant_api import TenantApi
from xmpp_pool.stanzas import CORRECTION_NS, MARKERS_NS, REACTIONS_NS, RECEIPTS_NS, RETRACTION_NS

REPLACE, RETRACT, REACTIONS = (
    f"{{{CORRECTION_NS}}}replace",
    f"{{{RETRACTION_NS}}}retract",
    f"{{{REACTIONS_NS}}}reactions",
)
RECEIVED, DISPLAYED = f"{{{RECEIPTS_NS}}}received", f"{{{MARKERS_NS}}}displayed"
ASKS = f"<request xmlns='{RECEIPTS_NS}'/><markable xmlns='{MARKERS_NS}'/>"


@dataclass
class Product:
    """What the tenant's product has: its API, its client, and an operator who is online."""

    api: TenantApi
    client: TenantClient
    bob: Operator

    async def refused(self, status: int, call: Any) -> None:
        with pytest.raises(ApiError) as refused:
            await call
        assert refused.value.status == status, refused.value


@pytest.fixture
async def product(api: TenantApi) -> AsyncIterator[Product]:
    bob = await api.operator("bob")
    async with TenantClient(api.tenant.system.endpoints["api"], api.tenant.name, api.token) as client:
        yield Product(api, client, bob)


def stanza_of(operator: Operator, body: str) -> ET.Element:
    return next(one for one in operator.stanzas if one.findtext("{jabber:client}body") == body)


def told(operator: Operator, tag: str) -> list[ET.Element]:
    """The elements of that name that the operator's client was sent, in messages."""
    return [
        child for one in operator.stanzas if one.tag == "{jabber:client}message" for child in one if child.tag == tag
    ]


async def test_a_visitor_edits_and_takes_back(product: Product) -> None:
    client, bob, api = product.client, product.bob, product.api
    visitor = api.tenant.lhc.name("visitor.5.chat")
    await client.start_chat("5", nick="John")
    for message_id, text in (("line-0001", "I take tow"), ("line-0002", "forget this")):
        await client.write("5", text, message_id=message_id)
        await bob.reads(text)
    edited = await client.edit("5", "line-0001", "I take two <b>")
    assert (edited.message_id, edited.body) == ("line-0001", "I take two <b>")
    await bob.reads("I take two <b>")
    assert stanza_of(bob, "I take two <b>").find(REPLACE).get("id") == stanza_of(bob, "I take tow").get("id")  # type: ignore[union-attr]

    # who comes later is offered what it says now; the owner is told of what comes then
    eve = await api.operator("eve")
    await eve.reads("I take two <b>")
    assert told(eve, REPLACE) == []
    bob.write(visitor, "two what?")
    await eve.reads(ACCEPTED.format("bob"))
    await client.edit("5", "line-0001", "I take two of these")
    await bob.reads("I take two of these")
    # reactions to the visitor's own line, for who has it
    await client.react("5", "line-0001", "\N{THUMBS UP SIGN}")
    await until(lambda: told(bob, REACTIONS), "the owner sees the reaction")
    assert told(bob, REACTIONS)[0].get("id") == stanza_of(bob, "I take tow").get("id")
    await product.refused(404, client.react("5", "line-9999", "x"))
    await client.retract("5", "line-0002")
    await client.retract("5", "line-0002")
    for operator in (bob, eve):
        await until(lambda operator=operator: told(operator, RETRACT), "the operator sees that it was taken back")  # type: ignore[misc]
        assert told(operator, RETRACT)[0].get("id") == stanza_of(operator, "forget this").get("id")
    await product.refused(409, client.react("5", "line-0002", "x"))
    assert (told(eve, REACTIONS), "I take two of these" in read_by(eve)) == ([], False)
    assert {line.message_id: line.state async for line in client.messages("5")}["line-0002"] == "retracted"

    # an owner who was not sent the line has nothing to replace
    await client.assign_chat("5", "eve")
    ann = await api.operator("ann")
    await client.assign_chat("5", "ann")
    await product.refused(409, client.react("5", "line-0001", "x"))
    await client.edit("5", "line-0001", "I take three")
    await ann.reads("I take three")
    assert told(ann, REPLACE) == []
    await product.refused(404, client.edit("5", "line-9999", "x"))
    await product.refused(404, client.edit("6", "line-0001", "x"))
    await product.refused(409, client.edit("5", "line-0002", "x"))
    await product.refused(422, client.edit("5", "line-0001", ""))
    await client.close_chat("5")
    await product.refused(409, client.edit("5", "line-0001", "x"))
    await product.refused(409, client.retract("5", "line-0001"))


async def test_what_waits_is_changed_before_it_is_sent(product: Product) -> None:
    client, bob, api = product.client, product.bob, product.api
    await api.http.put("/operators/bob", json={"departments": ["sales"]})
    await client.start_chat("5", nick="John", department="support")
    for message_id in ("line-0001", "line-0002", "line-0003"):
        assert (await client.write("5", message_id, message_id=message_id)).state == "waiting"
    await client.edit("5", "line-0001", "first, corrected")
    await client.retract("5", "line-0002")
    again = await client.write("5", "line-0002", message_id="line-0002")
    assert (again.state, again.body) == ("retracted", None)
    eve = await api.operator("eve", departments=["support"])
    await eve.reads("line-0003")
    assert read_by(eve) == ["first, corrected", "line-0003"]
    assert (told(eve, REPLACE), told(eve, RETRACT), read_by(bob)) == ([], [], [])


async def test_receipts_and_reactions_reach_the_operators_client(product: Product) -> None:
    client, bob, api = product.client, product.bob, product.api
    to = f"{api.tenant.lhc.name('visitor.5.chat')}@{api.tenant.host}"
    await client.start_chat("5", nick="John", message="hello?")
    await bob.reads("hello?")
    for message_id, asks in (("asks", ASKS), ("silent", "")):
        bob.send_raw(f"<message type='chat' to='{to}' id='{message_id}'><body>{message_id}</body>{asks}</message>")
        await api.tenant.receiver.message(message_id)
    bob.send_raw(f"<message type='chat' to='{to}'><body>nameless</body></message>")
    await api.tenant.receiver.message("nameless")
    ids = await _event_ids(product)
    await client.confirm("5", ids["asks"], "delivered")
    await client.confirm("5", ids["silent"], "read")
    await client.confirm("5", ids["asks"], "read")
    await until(lambda: told(bob, DISPLAYED), "the operator sees that it was read")
    assert [one.get("id") for one in told(bob, RECEIVED)] == ["asks"], "once, also by the delivery itself"
    assert [one.get("id") for one in told(bob, DISPLAYED)] == ["asks"]

    await client.react("5", ids["silent"], "\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f")
    await client.react("5", ids["silent"])
    await until(lambda: len(told(bob, REACTIONS)) == 2, "the operator sees the reactions")
    given, taken_back = told(bob, REACTIONS)
    assert [one.text for one in given] == ["\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\ufe0f"]
    assert ({one.get("id") for one in (given, taken_back)}, list(taken_back)) == ({"silent"}, [])
    await product.refused(409, client.react("5", ids["nameless"], "x"))
    await product.refused(404, client.react("5", event_id("of nobody"), "x"))
    await product.refused(404, client.confirm("5", "line-0001", "read"))
    await product.refused(422, client.confirm("5", ids["asks"], "failed"))
    await product.refused(422, client.react("5", ids["silent"], *map(str, range(21))))
    await product.refused(422, client.react("5", ids["silent"], "two words"))


async def _event_ids(product: Product) -> dict[str, str]:
    """The ids that a receiver of webhooks is told, by the texts of the messages."""
    async with domain_of(product.api.tenant.system) as services, services.database.read() as session:
        rows = list(
            await session.scalars(
                select(CallbackMessage)
                .where(CallbackMessage.instance_name == product.api.tenant.name)
                .where(CallbackMessage.event == "message.created")
                .order_by(CallbackMessage.id)
            )
        )
    return dict(zip(("asks", "silent", "nameless"), (event_id(row.stanza_id) for row in rows), strict=True))
