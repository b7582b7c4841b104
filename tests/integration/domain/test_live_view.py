"""What passes is shown to who listens, on both brokers; and nothing of it is kept."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from bench.testbed.system import System, migrate
from bench.testbed.waiting import DEADLINE
from orchestrator.console.conversation import together
from tenants.conversations import live_view
from tenants.conversations.live_view import Line, LiveViewPublisher, Way
from tenants.core.errors import UnavailableError
from tenants.lifecycle import registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tests.world.registry import World, make_world


@pytest.fixture(params=["system", "production"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """On Redis, then on RabbitMQ; with a database of its own."""
    system: System = request.getfixturevalue(request.param)
    url = f"sqlite+aiosqlite:///{tmp_path}/registry.db"
    await asyncio.to_thread(migrate, url)
    async with make_world(url, broker_url=system.endpoints["broker_url"]) as made:
        yield made


@asynccontextmanager
async def publishing(world: World) -> AsyncIterator[LiveViewPublisher]:
    publisher = LiveViewPublisher(world.services)
    await publisher.look()
    running = asyncio.create_task(publisher.run())
    yield publisher
    running.cancel()
    await asyncio.wait([running])


async def hear(heard: AsyncGenerator[list[Line]], count: int) -> list[str]:
    """The next so many lines."""
    bodies: list[str] = []
    async with asyncio.timeout(DEADLINE):
        while len(bodies) < count:
            bodies += [line.body for line in await anext(heard)]
    return bodies


def say(publisher: LiveViewPublisher, instance_name: str, body: str) -> None:
    publisher.show(instance_name, "visitor.1", "bob", body, Way.TO_OPERATOR)


async def switch(world: World, instance_name: str, *, on: bool) -> None:
    await registry.put(world.services, instance_name, TenantSpec({"live_view": on}), Cause("test"))


async def test_who_listens_hears_its_tenant_alone_in_order(world: World) -> None:
    for name, is_on in (("acme", True), ("other", True), ("quiet", False)):
        await world.open_tenant(name, live_view=is_on)
    async with (
        publishing(world) as publisher,
        aclosing(live_view.listen(world.services, "acme")) as acme,
        aclosing(live_view.listen(world.services, "acme")) as beside,
        aclosing(live_view.listen(world.services, "other")) as other,
        aclosing(live_view.listen(world.services, "quiet")) as quiet,
    ):
        assert [await anext(ear) for ear in (acme, beside, other, quiet)] == [[], [], [], []]
        for number in range(20):
            for name in ("quiet", "acme", "other"):
                say(publisher, name, f"{name} {number}")
        for ear, name in ((acme, "acme"), (beside, "acme"), (other, "other")):
            assert await hear(ear, 20) == [f"{name} {number}" for number in range(20)]
        assert await anext(quiet) == []


async def test_nothing_is_kept_for_who_comes_later(world: World) -> None:
    await world.open_tenant("acme", live_view=True)
    async with publishing(world) as publisher:
        async with aclosing(live_view.listen(world.services, "acme")) as early:
            await anext(early)
            say(publisher, "acme", "before")
            assert await hear(early, 1) == ["before"]
        async with aclosing(live_view.listen(world.services, "acme")) as late:
            await anext(late)
            say(publisher, "acme", "after")
            assert await hear(late, 1) == ["after"]


async def test_a_switch_that_is_put_off_is_obeyed(world: World) -> None:
    await world.open_tenant("acme", live_view=True)
    async with (
        publishing(world) as publisher,
        aclosing(live_view.listen(world.services, "acme")) as heard,
    ):
        await anext(heard)
        await switch(world, "acme", on=False)
        await publisher.look()
        say(publisher, "acme", "private")
        await switch(world, "acme", on=True)
        await publisher.look()
        say(publisher, "acme", "shown")
        assert await hear(heard, 1) == ["shown"]


async def test_without_a_broker_nobody_waits(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/registry.db"
    await asyncio.to_thread(migrate, url)
    async with make_world(url) as world:
        await world.open_tenant("acme", live_view=True)
        async with publishing(world) as publisher:
            for number in range(5000):  # many more than wait
                say(publisher, "acme", str(number))
            async with aclosing(live_view.listen(world.services, "acme")) as heard:
                with pytest.raises(UnavailableError):
                    await anext(heard)


def test_what_goes_to_several_operators_is_shown_once() -> None:
    lines = [
        Line("acme", 1.0, "visitor.1", "anna", "hello", Way.TO_OPERATOR),
        Line("acme", 1.0, "visitor.1", "bob", "hello", Way.TO_OPERATOR),
        Line("acme", 2.0, "visitor.1", "bob", "hello", Way.TO_OPERATOR),
        Line("acme", 3.0, "bob", "visitor.1", "hello", Way.TO_VISITOR),
    ]
    assert [(said.at, said.sender, said.receivers) for said in together(lines)] == [
        (1.0, "visitor.1", ["anna", "bob"]),
        (2.0, "visitor.1", ["bob"]),
        (3.0, "bob", ["visitor.1"]),
    ]
