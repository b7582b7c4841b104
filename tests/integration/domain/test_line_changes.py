"""A line that is changed, taken back or given back while it is on its way: what came last holds."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import select

from tenants.conversations import bounces, line_changes, line_sender
from tenants.conversations.reports import Returned
from tenants.process.services import Services
from tenants.shards.commands import AnyCommand, SendMessage
from tenants.store.models import Chat, ChatLine, ChatState, LineState
from tests.world.kept import Kept
from tests.world.registry import World


class Meanwhile(Kept):
    """Does something when the first commands have gone, before that is noted."""

    change: Callable[[], Awaitable[object]] | None = None

    async def publish(self, *commands: AnyCommand) -> None:
        await super().publish(*commands)
        if commands and self.change is not None:
            change, self.change = self.change, None
            await change()


async def waiting_line(services: Services, now: float) -> int:
    """The chat of bob's that has it."""
    visitor = "visitor.7.chat.acme"
    async with services.database.write() as session:
        chat = Chat(
            instance_name="acme", chat_id="7", username=visitor, nick="John", state=ChatState.OWNED, owner="bob.acme",
            created_at=now, pending_since=now,
        )  # fmt: skip
        session.add(chat)
        await session.flush()
        session.add(
            ChatLine(
                instance_name="acme", chat_id=chat.id, message_id="line-0001", sender=visitor, body="old",
                state=LineState.WAITING, sent_to=[], created_at=now,
            )
        )  # fmt: skip
        return chat.id


@pytest.mark.parametrize("history_hours", [0, 24])
@pytest.mark.parametrize("retracts", [False, True])
async def test_a_line_is_changed_while_it_is_being_sent(world: World, history_hours: int, *, retracts: bool) -> None:
    kept = Meanwhile()
    services = replace(world.services, commands=kept)
    await world.open_tenant("acme", routing="orchestrator", history_hours=history_hours)
    chat_key = await waiting_line(services, world.clock())

    async def change() -> None:
        if retracts:
            await line_changes.retract(services, "acme", "7", "line-0001")
        else:
            await line_changes.edit(services, "acme", "7", "line-0001", "new")

    kept.change = change
    await line_sender.forward(services, chat_key)
    first, second = (one for one in kept.commands if isinstance(one, SendMessage))
    assert (first.body, first.replaces, first.retracts) == ("old", None, None)
    if retracts:
        assert (second.replaces, second.retracts) == (None, first.message_id)
    else:
        assert (second.body, second.replaces, second.retracts) == ("new", first.message_id, None)
    async with services.database.read() as session:
        (line,) = await session.scalars(select(ChatLine))
    assert (line.state, line.sent_to) == (LineState.RETRACTED if retracts else LineState.SENT, ["bob.acme"])
    assert line.body == ("new" if history_hours and not retracts else None)


async def test_a_line_comes_back_before_it_is_noted_as_sent(world: World) -> None:
    kept = Meanwhile()
    services = replace(world.services, commands=kept)
    await world.open_tenant("acme", routing="orchestrator", event_format="webhook", callback_url="http://127.0.0.1:9/")
    chat_key = await waiting_line(services, world.clock())
    bob = services.naming.parse_username("bob.acme")
    visitor = services.naming.parse_username("visitor.7.chat.acme")

    async def come_back() -> None:
        (sent,) = (one for one in kept.commands if isinstance(one, SendMessage))
        returned = Returned(
            "report-1", sent.message_id, visitor, bob, "old", "service-unavailable", None, host="localhost"
        )
        await bounces.store(services, [returned])

    kept.change = come_back
    await line_sender.forward(services, chat_key)
    async with services.database.read() as session:
        (line,) = await session.scalars(select(ChatLine))
    assert (line.state, line.sent_to) == (LineState.FAILED, ["bob.acme"])


async def test_what_comes_back_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ids an operator's client makes up: of the operator, and of the tenant."""
    monkeypatch.setattr(bounces, "_MOST_OF_OPERATOR", 3)
    monkeypatch.setattr(bounces, "_MOST_OF_TENANT", 5)
    for name in ("acme", "other"):
        await world.open_tenant(name)
    naming = world.services.naming

    async def comes_back(operator: str, *numbers: int) -> list[str]:
        instance = operator.rpartition(".")[2]
        visitor, of = naming.parse_username(f"visitor.7.{instance}"), naming.parse_username(operator)
        reports = [
            Returned(f"{operator}-{n}", f"made-up-{n}", visitor, of, f"{n}", "forbidden", None, host="localhost")
            for n in numbers
        ]
        await bounces.store(world.services, reports)
        found = await bounces.find(world.services.database, instance, after=0, limit=100)
        return [f"{one.operator.partition('.')[0]} {one.body}" for one in found]

    assert await comes_back("eve.other", 1) == ["eve 1"]
    assert await comes_back("bob.acme", 1, 2, 3, 4) == ["bob 2", "bob 3", "bob 4"]
    assert await comes_back("ann.acme", 1, 2) == ["bob 2", "bob 3", "bob 4", "ann 1", "ann 2"]
    assert await comes_back("ann.acme", 3) == ["bob 3", "bob 4", "ann 1", "ann 2", "ann 3"]
    assert await comes_back("eve.other", 2) == ["eve 1", "eve 2"]
