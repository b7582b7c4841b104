"""Two operators answer a chat at once: one of them owns it, also when two processes hear them in the same moment."""

import asyncio
import multiprocessing
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from sqlalchemy import select

from bench.testbed.waiting import until, until_async
from tenants.conversations.operator_messages import store_messages
from tenants.conversations.reports import OperatorMessage
from tenants.core.chunks import chunks
from tenants.core.naming import AccountKind, AccountName
from tenants.shards.commands import SendMessage
from tenants.store.models import CallbackMessage, Chat, ChatState
from tests.world.chats import ACCEPTED
from tests.world.kept import Kept
from tests.world.registry import World, make_world
from tests.world.tenant_api import TenantApi

RACES = 200
INSTANCE = "race"
NUMBERS = [str(number) for number in range(1, RACES + 1)]


def answer_all(database_url: str, operator: str, start: Barrier, told: "Queue[list[str]]") -> None:
    """What a pool process does with an operator's answers; of each chat at the same moment as the other process."""
    told.put(asyncio.run(_answer_all(database_url, operator, start)))


async def _answer_all(database_url: str, operator: str, start: Barrier) -> list[str]:
    """Returns whom it told that a chat is another's, by the chat's account."""
    sender, kept = AccountName(AccountKind.OPERATOR, operator, INSTANCE), Kept()
    async with make_world(database_url) as world:
        services = replace(world.services, commands=kept)
        for number in NUMBERS:
            visitor = AccountName(AccountKind.CHAT, number, INSTANCE)
            message = OperatorMessage(
                f"{operator}-{number}", sender, visitor, f"{operator} takes {number}", host="localhost"
            )
            start.wait(60)
            assert (await store_messages(services, [message])).refused == {}
    notices = [command for command in kept.commands if isinstance(command, SendMessage)]
    assert len(notices) == len(kept.commands)
    return [f"{notice.username} {notice.operator}" for notice in notices]


async def test_two_processes_at_the_same_moment(world: World, database_url: str) -> None:
    await world.open_tenant(INSTANCE, routing="orchestrator")
    async with world.services.database.write() as session:
        session.add_all(
            Chat(
                instance_name=INSTANCE,
                chat_id=number,
                username=f"visitor.{number}.chat.{INSTANCE}",
                nick="John",
                state=ChatState.PENDING,
                created_at=world.clock(),
                pending_since=world.clock(),
            )
            for number in NUMBERS
        )
    spawn = multiprocessing.get_context("spawn")
    start, notices = spawn.Barrier(2), spawn.Queue()
    processes = [
        spawn.Process(target=answer_all, args=(database_url, operator, start, notices)) for operator in ("bob", "eve")
    ]
    for process in processes:
        process.start()
    told_operators = [one for _ in processes for one in await asyncio.to_thread(notices.get, timeout=120)]
    for process in processes:
        await asyncio.to_thread(process.join, 120)
    assert [process.exitcode for process in processes] == [0, 0]
    async with world.services.database.read() as session:
        owners = {chat.username: chat.owner for chat in await session.scalars(select(Chat))}
        told = [(one.event, one.receiver, one.sender) for one in await session.scalars(select(CallbackMessage))]
    assert set(owners.values()) == {f"bob.{INSTANCE}", f"eve.{INSTANCE}"}, "neither always comes first"
    assert sorted(told) == sorted(("message.created", *pair) for pair in owners.items())
    losers = {f"bob.{INSTANCE}": f"eve.{INSTANCE}", f"eve.{INSTANCE}": f"bob.{INSTANCE}"}
    assert sorted(told_operators) == sorted(f"{chat} {losers[owner]}" for chat, owner in owners.items() if owner)


async def test_two_clients_at_once(api: TenantApi) -> None:
    clients = {"bob": await api.operator("bob"), "eve": await api.operator("eve")}
    for numbers in chunks(NUMBERS, 10):
        await asyncio.gather(*(api.chat(number, message=f"hello {number}") for number in numbers))
    for operator in clients.values():
        await asyncio.gather(*(operator.reads(f"hello {number}", seconds=60) for number in NUMBERS))
    for number in NUMBERS:
        for name, operator in clients.items():
            operator.write(api.tenant.lhc.name(f"visitor.{number}.chat"), f"{name} takes {number}")

    async def all_are_owned() -> bool:
        pending = (await api.http.get("/chats", params={"state": "pending"})).json()["chats"]
        return len(pending) == 0

    await until_async(all_are_owned, "each chat has an owner", 60)
    owners = {number: await api.owner(number) for number in NUMBERS}
    for number, owner in owners.items():
        assert owner in clients
        await api.tenant.receiver.message(f"{owner} takes {number}", seconds=60)
        notice = api.tenant.lhc.name(f"visitor.{number}.chat"), ACCEPTED.format(owner)
        loser = clients["eve" if owner == "bob" else "bob"]
        await until(
            lambda notice=notice, loser=loser: notice in {(one.username, one.body) for one in loser.messages},  # type: ignore[misc]
            f"the other is told of chat {number}",
            60,
        )
    told = [callback.raw for callback in api.tenant.callbacks() if b"takes" in callback.raw]
    assert len(told) == RACES
