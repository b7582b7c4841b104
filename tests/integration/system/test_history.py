"""What is kept of a chat: what has not arrived, and as much more as the tenant wants."""

from typing import Any

from sqlalchemy import select

from bench.testbed.waiting import until_async
from tenants.conversations import chats
from tenants.store.models import Chat, ChatLine, ChatState, LineState
from tests.world.registry import World
from tests.world.tenant_api import TenantApi

HOUR = 3600.0


async def lines(api: TenantApi, chat_id: str) -> list[dict[str, Any]]:
    answer = await api.http.get(f"/chats/{chat_id}/messages")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["messages"])


async def said(api: TenantApi, chat_id: str) -> list[tuple[str, str | None]]:
    """Who said what; the sender without the instance."""
    suffix = f".{api.tenant.name}"
    return [(line["sender"].removesuffix(suffix), line["body"]) for line in await lines(api, chat_id)]


async def converse(api: TenantApi) -> None:
    """Two questions, one of them while nobody has the chat, and an answer between."""
    bob = await api.operator("bob")
    visitor = (await api.chat("5", message="hello?"))["username"]
    await bob.reads("hello?")
    bob.write(visitor, "yes?")
    await api.tenant.receiver.message("yes?")
    await api.write("5", "what is it?", message_id="line-0001")
    await bob.reads("what is it?")


async def test_a_tenant_may_keep_what_was_said(api: TenantApi) -> None:
    changed = await api.tenant.panel.http.put(f"/v1/tenants/{api.tenant.name}", json={"history_hours": 24})
    assert changed.json()["history_hours"] == 24
    await converse(api)
    assert await said(api, "5") == [("visitor.5.chat", "hello?"), ("bob", "yes?"), ("visitor.5.chat", "what is it?")]
    first = (await api.http.get("/chats/5/messages", params={"limit": 2})).json()
    rest = (await api.http.get("/chats/5/messages", params={"after": first["next"]})).json()
    assert [line["body"] for page in (first, rest) for line in page["messages"]] == ["hello?", "yes?", "what is it?"]
    await api.http.delete("/chats/5")
    assert len(await said(api, "5")) == 3, "also when it is closed"


async def test_nothing_is_kept_of_what_its_owner_was_sent(api: TenantApi) -> None:
    await converse(api)

    async def nothing_is_left() -> bool:
        return await said(api, "5") == [("visitor.5.chat", None), ("visitor.5.chat", None)]

    await until_async(nothing_is_left, "the words are gone")
    assert {line["state"] for line in await lines(api, "5")} <= {"sent", "delivered"}


async def test_what_nobody_was_sent_is_kept(api: TenantApi) -> None:
    await api.chat("5", message="hello?")
    assert [(line["state"], line["body"]) for line in await lines(api, "5")] == [("waiting", "hello?")]


async def test_who_is_given_a_chat_reads_what_was_said_in_it(api: TenantApi) -> None:
    """Also who may not have been offered it."""
    bob = await api.operator("bob", departments=["sales"])
    ann = await api.operator("ann", departments=["support"])
    await api.chat("5", department="sales", message="hello?")
    await bob.reads("hello?")
    assert (await api.http.put("/chats/5/owner", json={"operator": "ann"})).status_code == 200
    await ann.reads("hello?")

    async def nothing_is_left() -> bool:
        return await said(api, "5") == [("visitor.5.chat", None)]

    await until_async(nothing_is_left, "the words are gone")
    assert [message.body for message in ann.messages] == ["hello?"]


async def test_what_is_kept_is_forgotten_in_time(world: World) -> None:
    for name, hours in (("keeps", 48), ("forgets", 0)):
        await world.open_tenant(name, routing="orchestrator", history_hours=hours)
        async with world.services.database.write() as session:
            chat = Chat(
                instance_name=name,
                chat_id="5",
                username=f"visitor.5.chat.{name}",
                nick="John",
                state=ChatState.OWNED,
                owner=f"bob.{name}",
                created_at=world.clock(),
                pending_since=world.clock(),
            )
            session.add(chat)
            await session.flush()
            session.add_all(
                ChatLine(
                    instance_name=name,
                    chat_id=chat.id,
                    message_id=f"line-{state}",
                    sender=chat.username,
                    body="hello?",
                    state=state,
                    created_at=world.clock(),
                )
                for state in (LineState.SENT, LineState.WAITING)
            )

    async def kept() -> list[tuple[str, LineState]]:
        await chats.purge(world.services)
        async with world.services.database.read() as session:
            found = await session.scalars(select(ChatLine).order_by(ChatLine.instance_name, ChatLine.id))
            return [(line.instance_name, line.state) for line in found]

    waiting = [("forgets", LineState.WAITING), ("keeps", LineState.WAITING)]
    assert len(await kept()) == 4
    world.clock.now += 25 * HOUR
    assert await kept() == [waiting[0], ("keeps", LineState.SENT), waiting[1]]
    world.clock.now += 24 * HOUR
    assert await kept() == waiting, "what has not arrived is kept"
