"""What a visitor's side says without words, from the shard's queue to an operator's client."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from config.settings import Settings
from tenants.shards.commands import SendMessage, ShowTyping
from tenants.shards.queues import CommandPublisher, open_publisher
from tests.world.tenant import Tenant
from xmpp_pool.stanzas import CHAT_STATES_NS


@pytest.fixture
async def publisher(tenant: Tenant) -> AsyncIterator[CommandPublisher]:
    publisher = open_publisher(tenant.system.endpoints["broker_url"], Settings().shard_count)
    yield publisher
    await publisher.close()


def typing(tenant: Tenant, operator: str, *, composing: bool, told_until: float | None = None) -> ShowTyping:
    return ShowTyping(
        instance_name=tenant.name,
        username=tenant.lhc.name("visitor.1"),
        operator=tenant.lhc.name(operator),
        composing=composing,
        told_until=told_until or time.time() + 60,
    )


def message(tenant: Tenant, operator: str, body: str) -> SendMessage:
    visitor, name = tenant.lhc.name("visitor.1"), tenant.lhc.name(operator)
    return SendMessage(
        instance_name=tenant.name, username=visitor, operator=name, body=body, message_id=f"{body}.{operator}"
    )


def states(operator: Operator) -> list[tuple[str, str]]:
    """The chat states that the operator's client saw, each with whose it was."""
    return [
        (seen.username, child.rpartition("}")[2])
        for seen in operator.messages
        for child in seen.children
        if child.startswith(f"{{{CHAT_STATES_NS}}}")
    ]


async def test_an_operator_sees_a_visitor_write(tenant: Tenant, publisher: CommandPublisher) -> None:
    bob, ann = await asyncio.gather(tenant.operator_online("bob"), tenant.operator_online("ann"))
    visitor = tenant.lhc.name("visitor.1")
    await publisher.publish(typing(tenant, "bob", composing=True), typing(tenant, "bob", composing=False))
    await until(lambda: len(states(bob)) >= 2, "Bob sees both")
    assert states(bob) == [(visitor, "composing"), (visitor, "paused")]
    # had she been shown it, it would have come before this
    await publisher.publish(message(tenant, "ann", "hello"))
    await ann.reads("hello")
    assert states(ann) == []


async def test_who_was_offline_sees_nothing_of_it(tenant: Tenant, publisher: CommandPublisher) -> None:
    ann = await tenant.operator_online("ann")
    await tenant.lhc.new_operator("bob", "operator-pw")
    commands = typing(tenant, "bob", composing=True), message(tenant, "bob", "hello"), message(tenant, "ann", "hello")
    await publisher.publish(*commands)
    # a tenant's commands are carried out in order: those for Bob are done while he is away
    await ann.reads("hello")
    bob = await tenant.online("bob")
    await bob.reads("hello")
    await bob.taken()
    assert states(bob) == []


async def test_what_comes_late_is_not_shown(tenant: Tenant, publisher: CommandPublisher) -> None:
    bob = await tenant.operator_online("bob")
    await publisher.publish(
        typing(tenant, "bob", composing=True, told_until=time.time() - 1), message(tenant, "bob", "hello")
    )
    await bob.reads("hello")
    assert states(bob) == []
