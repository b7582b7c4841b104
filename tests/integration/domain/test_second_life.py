"""What comes again under another tenant, or in another life of a name, is told by ids of its own."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from sqlalchemy import select

from tenants.conversations import signals, stanza_ids
from tenants.conversations.reports import Receipt
from tenants.core.naming import AccountKind, AccountName
from tenants.delivery import send
from tenants.lifecycle import registry
from tenants.outbound.lhc import status_body
from tenants.outbound.poster import Answer
from tenants.outbound.webhooks import WebhookClient
from tenants.store.models import CallbackMessage, Chat, ChatLine, ChatState, LineState, OperatorPresence, Tenant
from tests.world.registry import World

SETTINGS = {"routing": "orchestrator", "event_format": "webhook", "callback_url": "https://shop.example/events"}


async def test_two_tenants_call_a_message_the_same(world: World) -> None:
    lines = [await _sent_line(world, instance_name) for instance_name in ("acme", "other")]
    for line in lines:
        receipt = Receipt(
            AccountName(AccountKind.OPERATOR, "bob", line.instance_name),
            AccountName(AccountKind.CHAT, "7", line.instance_name),
            stanza_ids.of_line(line, f"bob.{line.instance_name}"),
            host="localhost",
        )
        await signals.receipt(world.services, [receipt, receipt])
    async with world.services.database.read() as session:
        told = list(await session.scalars(select(CallbackMessage).order_by(CallbackMessage.id)))
    assert [(one.instance_name, one.event, one.detail) for one in told] == [
        (name, "message.delivered", {"message_id": "line-0001"}) for name in ("acme", "other")
    ]


async def test_a_receipt_of_anything_else_is_none(world: World) -> None:
    line = await _sent_line(world, "acme")
    bob, visitor = AccountName(AccountKind.OPERATOR, "bob", "acme"), AccountName(AccountKind.CHAT, "7", "acme")
    right = stanza_ids.of_line(line, "bob.acme")
    wrong = [
        Receipt(replace(bob, ident="eve"), visitor, right, host="localhost"),
        Receipt(bob, replace(visitor, ident="8"), right, host="localhost"),
        *(
            Receipt(bob, visitor, one, host="localhost")
            for one in ("", "-", f"{line.id}", f"{line.id}-", f"9{right}", "9" * 10 + "-", "x" * 500)
        ),
    ]
    await signals.receipt(world.services, wrong)
    assert (await _state(world, line)) is LineState.SENT
    await signals.receipt(world.services, [Receipt(bob, visitor, right, host="localhost")])
    assert (await _state(world, line)) is LineState.DELIVERED


class _Told:
    """In the place of the client of webhooks: keeps the ids."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def post(self, url: str, *, event_id: str, body: bytes, keys: Sequence[str]) -> Answer:
        assert url
        assert body
        assert not keys
        self.ids.append(event_id)
        return Answer(None, 0.0, 204)


async def test_an_operator_who_comes_in_the_next_life_is_another_event(world: World) -> None:
    told = _Told()
    services = replace(world.services, webhooks=cast(WebhookClient, told))
    await world.open_tenant("acme", **SETTINGS)
    tenant = await registry.get(services, "acme")
    pending = status_body(action="connect", user="bob.acme", server="localhost")
    presence = OperatorPresence(username="bob.acme", instance_name="acme", online=True, version=1, pending=pending)
    for incarnation in ("former", "former", "present"):
        tenant.incarnation = incarnation
        await send.tell_presence(services, tenant, presence, pending)
    first, repeated, next_life = told.ids
    assert first == repeated != next_life


async def _sent_line(world: World, instance_name: str) -> ChatLine:
    await world.open_tenant(instance_name, **SETTINGS)
    now, username = world.clock(), f"visitor.7.chat.{instance_name}"
    async with world.services.database.write() as session:
        assert await session.get(Tenant, instance_name)
        chat = Chat(
            instance_name=instance_name, chat_id="7", username=username, nick="John", state=ChatState.PENDING,
            created_at=now, pending_since=now,
        )  # fmt: skip
        session.add(chat)
        await session.flush()
        line = ChatLine(
            instance_name=instance_name, chat_id=chat.id, message_id="line-0001", sender=username, body="hello",
            state=LineState.SENT, sent_to=[f"bob.{instance_name}"], created_at=now,
        )  # fmt: skip
        session.add(line)
    return line


async def _state(world: World, line: ChatLine) -> LineState:
    async with world.services.database.read() as session:
        return (await session.get_one(ChatLine, line.id)).state
