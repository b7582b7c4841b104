"""What needs attention, on both databases: each kind is told with tenant, cause, since when and what mends it."""

from typing import Any

import pytest

from tenants.core.naming import AccountKind
from tenants.process import heartbeats
from tenants.status import attention
from tenants.status.attention_items import SHOWN, Item, Kind
from tenants.status.diagnostics import Finding
from tenants.store.models import (
    Account,
    AccountState,
    Base,
    CallbackMessage,
    Chat,
    ChatLine,
    ChatState,
    Circuit,
    Conversation,
    Drift,
    Heartbeat,
    LineState,
    MessageState,
    Operation,
    OperationKind,
    OperationState,
    OperationStep,
    OperatorPresence,
    ReturnedMessage,
    StepState,
)
from tests.world.registry import World

HOUR, DAY = 3600.0, 86400.0


async def add(world: World, *rows: Base) -> None:
    async with world.services.database.write() as session:
        session.add_all(rows)


async def messages(world: World, name: str, number: int, state: MessageState, **values: Any) -> None:
    conversation = Conversation(instance_name=name, receiver=f"visitor.1.{name}")
    await add(world, conversation)
    at = {"created_at": world.clock() - HOUR, **values}
    await add(
        world,
        *(
            CallbackMessage(
                conversation_id=conversation.id,
                instance_name=name,
                stanza_id=f"{name}-{one}",
                sender=f"bob.{name}",
                receiver=conversation.receiver,
                server="localhost",
                body="what people say",
                state=state,
                attempts=3,
                **at,
            )
            for one in range(number)
        ),
    )


def operator(world: World, username: str, name: str, age: float = 2 * DAY) -> Account:
    made = world.clock() - age
    return Account(
        username=username,
        instance_name=name,
        kind=AccountKind.OPERATOR,
        state=AccountState.ACTIVE,
        created_at=made,
        last_active_at=made,
    )


def operation(world: World, id_: str, state: OperationState, age: float = HOUR, **values: Any) -> Operation:
    at = world.clock() - age
    defaults = {"instance_name": "acme", "kind": OperationKind.SUSPEND, "requested_by": "panel", "created_at": at}
    return Operation(
        id=id_, state=state, finished_at=at if state is OperationState.FAILED else None, **defaults | values
    )


async def look(world: World, instance_name: str | None = None) -> list[Item]:
    return (await attention.look(world.services, instance_name)).items


async def test_nothing_needs_attention_of_a_system_that_is_well(world: World) -> None:
    await world.open_tenant("acme", max_accounts=10)
    await add(world, operator(world, "bob.acme", "acme", age=HOUR), operator(world, "ann.acme", "acme"))
    await add(world, OperatorPresence(username="ann.acme", instance_name="acme", online=False))
    await messages(world, "acme", 3, MessageState.PENDING, created_at=world.clock() - 5)
    await add(world, Circuit(instance_name="acme", failures=2))
    found = await attention.look(world.services)
    assert (found.items, set(found.counts.values())) == ([], {0})


async def test_an_open_circuit_is_told_with_what_the_server_answered(world: World) -> None:
    await world.open_tenant("acme")
    opened = world.clock() - HOUR
    await add(world, Circuit(instance_name="acme", failures=5, openings=3, opened_at=opened, due_at=world.clock() + 60))
    await messages(world, "acme", 44, MessageState.PENDING, last_error="503 Service Unavailable")
    (item,) = await look(world)
    assert (item.kind, item.instance_name, item.since, item.is_problem) == (Kind.CIRCUIT, "acme", opened, True)
    assert item.cause == "Its server fails: 503 Service Unavailable. 44 messages wait for it."
    assert "orchestrator doctor --instance acme" in item.action
    assert "people say" not in item.cause


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        (MessageState.PENDING, Kind.LATE, "44 messages to its server wait for more than two minutes: timeout."),
        (MessageState.DEAD, Kind.DEAD_LETTERS, "44 messages to its server were given up: timeout."),
    ],
)
async def test_undelivered_messages(world: World, state: MessageState, kind: Kind, says: str) -> None:
    await world.open_tenant("acme")
    await messages(world, "acme", 44, state, last_error="timeout.\nmore of it")
    (item,) = await look(world)
    assert (item.kind, item.instance_name, item.cause) == (kind, "acme", says)
    assert item.since == world.clock() - HOUR
    assert await look(world, "another") == []
    assert [item] == await look(world, "acme")


async def test_quotas_that_are_reached_or_near(world: World) -> None:
    for name, number in (("full", 5), ("near", 4), ("roomy", 3)):
        await world.open_tenant(name, max_accounts=5)
        rows = [operator(world, f"o{one}.{name}", name) for one in range(number)]
        seen = [OperatorPresence(username=row.username, instance_name=name, online=True) for row in rows]
        await add(world, *rows, *seen)
    await world.open_tenant("waits", max_waiting_messages=10)
    await messages(world, "waits", 10, MessageState.PENDING)
    await add(world, Circuit(instance_name="waits", failures=5, opened_at=1.0, due_at=world.clock() + 60))
    told = {item.instance_name: item for item in await look(world) if item.kind is Kind.QUOTA}
    assert {name: (item.cause, item.is_problem) for name, item in told.items()} == {
        "full": ("5 of 5 accounts (100%): further ones are refused.", True),
        "near": ("4 of 5 accounts (80%): 1 left.", False),
        "waits": ("10 of 10 waiting messages (100%): further ones are refused.", True),
    }
    assert "`orchestrator tenant update full --set max_accounts=" in told["full"].action


async def test_what_a_restore_leaves_to_people(world: World) -> None:
    await world.open_tenant("acme")
    found_at = world.clock() - HOUR
    await add(
        world,
        Drift(instance_name="acme", kind="operator_lost", subject="bob.acme", found_at=found_at),
        Drift(instance_name="acme", kind="member_foreign", subject="eve.other", found_at=found_at + 1),
        Drift(instance_name="*", kind="unknown_tenant", subject="gone", found_at=found_at + 2),
        Drift(instance_name="acme", kind="roster", subject="x", found_at=found_at, mended_at=found_at),
    )
    items = await look(world)
    assert [(item.kind, item.instance_name) for item in items] == [
        (Kind.DRIFT, name) for name in ("acme", "acme", None)
    ]
    assert items[0].cause == "1 operator lost the account at ejabberd, and cannot log in (bob.acme)."
    assert items[1].action.startswith("`orchestrator drift acme`")
    assert len(await look(world, "acme")) == 2


async def test_operators_who_never_logged_in_are_only_to_be_looked_at(world: World) -> None:
    await world.open_tenant("acme")
    await add(world, operator(world, "ann.acme", "acme"), operator(world, "bob.acme", "acme"))
    (item,) = await look(world)
    assert (item.kind, item.is_problem) == (Kind.LOGIN, False)
    assert item.cause == "No login yet of 2 operators (ann.acme …)."


async def test_operations_that_failed_rest_or_do_not_get_on(world: World) -> None:
    await world.open_tenant("acme")
    stuck = OperationStep(operation_id="c", position=0, name="close_sessions", state=StepState.RUNNING, attempts=4)
    stuck.error = "no answer"
    await add(
        world,
        operation(world, "a", OperationState.FAILED, error="ejabberd is away"),
        operation(world, "b", OperationState.PAUSED, kind=OperationKind.RESUME),
        operation(world, "c", OperationState.RUNNING, kind=OperationKind.RECONCILE),
        operation(world, "d", OperationState.FAILED, kind=OperationKind.ROTATE_KEYS),
        operation(world, "e", OperationState.SUCCEEDED, age=1, kind=OperationKind.ROTATE_KEYS),
    )
    await add(world, stuck)
    told = {item.subject: item for item in await look(world)}
    assert told.keys() == {"a", "b", "c"}
    assert told["a"].cause == "suspend failed: ejabberd is away."
    assert told["a"].action == "`orchestrator operation retry a`"
    assert not told["b"].is_problem
    assert told["c"].cause == "reconcile does not get on: close_sessions has failed 4 times (no answer)."


async def test_messages_that_came_back_and_lines_that_nobody_takes(world: World) -> None:
    await world.open_tenant("acme")
    at = world.clock() - HOUR
    chat = Chat(instance_name="acme", chat_id="1", username="visitor.1.acme", nick="Maya", state=ChatState.PENDING)
    chat.created_at = chat.pending_since = at
    await add(world, chat)
    line = ChatLine(instance_name="acme", chat_id=chat.id, message_id="1", sender="visitor.1.acme", created_at=at)
    line.state = LineState.WAITING
    back = ReturnedMessage(instance_name="acme", stanza_id="1", message_id="1", visitor="visitor.1.acme")
    back.operator, back.body, back.condition, back.created_at = "bob.acme", "hello", "item-not-found", at
    await add(world, line, back)
    told = {item.kind: item for item in await look(world)}
    assert told.keys() == {Kind.RETURNED, Kind.UNTAKEN}
    assert told[Kind.RETURNED].cause == "1 message of visitors came back from ejabberd (item-not-found)."
    assert "orchestrator returned acme" in told[Kind.RETURNED].action
    assert all(item.since == at for item in told.values())


async def test_a_backup_that_is_too_old(world: World) -> None:
    row = Heartbeat(name=heartbeats.BACKUP, at=world.clock() - DAY)
    await add(world, row)
    assert await look(world) == []
    world.clock.now += 4 * DAY
    (item,) = await look(world)
    assert (item.kind, item.cause) == (Kind.BACKUP, "The latest backup was made 5 days ago.")
    assert await look(world, "acme") == []


async def test_parts_that_are_wrong_come_first_and_more_is_counted_than_told(world: World) -> None:
    names = [f"tenant{number:02}" for number in range(SHOWN + 5)]
    for name in names:
        await world.open_tenant(name)
        await add(world, operator(world, f"bob.{name}", name))
    parts = [Finding("nodes of ejabberd", False, "down: ejabberd@b", "start it"), Finding("keys", True, "all are set")]
    found = await attention.look(world.services, findings=parts)
    assert (found.items[0].kind, found.items[0].cause) == (Kind.NODE, "nodes of ejabberd: down: ejabberd@b.")
    assert (len(found.items), found.counts[Kind.LOGIN], found.untold) == (SHOWN + 1, SHOWN + 5, 5)
    assert found.problems == found.items[:1]
