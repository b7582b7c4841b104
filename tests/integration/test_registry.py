"""The registry on both of its databases: SQLite as in development, PostgreSQL as in production."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import select

from config.settings import Settings
from orchestrator.launcher import postgresql as server
from tenants import callbacks, claims, operations, registry
from tenants.callbacks import OperatorMessage
from tenants.errors import ConflictError
from tenants.models import CallbackMessage, Conversation, MessageState, Operation, OperatorPresence, TenantState
from tenants.naming import AccountKind, AccountName
from tenants.operations import Next, Progress, Step, Workflow
from tenants.registry import TenantSpec
from tenants.services import Services, open_services
from tests.world.receiver import Receiver
from tests.world.waiting import until

BOB = AccountName(AccountKind.OPERATOR, "bob", "acme")
VISITOR = AccountName(AccountKind.VISITOR, "1", "acme")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A private PostgreSQL as the launcher runs it; gives the URL of its database."""
    folder = Path(tempfile.mkdtemp(prefix="lhc-pg-"))
    store = folder / "postgresql"
    server.create(store)
    process = subprocess.Popen(
        server.command(store), user=int(server.user()), cwd=store, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not server.answers(store):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    yield server.url(store)
    process.send_signal(signal.SIGINT)
    process.wait(30)
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"], scope="session")
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('registry')}/registry.db"
    else:
        url = request.getfixturevalue("postgresql")
    migrate(url)
    return url


def migrate(url: str) -> None:
    env = {**os.environ, "ORCHESTRATOR_DATABASE_URL": url}
    subprocess.run([Path(sys.executable).parent / "orchestrator", "migrate"], env=env, check=True, timeout=60)


@dataclass
class Clock:
    """A clock that stands still until it is told otherwise."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """The services on one database, with a clock of ours and every wake-up kept."""

    services: Services
    clock: Clock
    woken: list[tuple[str, dict[str, str | int]]] = field(default_factory=list)


@asynccontextmanager
async def make_world(database_url: str, **settings: object) -> AsyncIterator[World]:
    clock = Clock()
    woken: list[tuple[str, dict[str, str | int]]] = []

    async def wake(task: str, **arguments: str | int) -> None:
        woken.append((task, arguments))

    # nothing here talks to ejabberd or the broker
    configured = Settings(database_url=database_url, broker_url="redis://127.0.0.1:1/0", **settings)  # type: ignore[arg-type]
    async with open_services(configured, wake, clock) as services:
        yield World(services, clock, woken)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with make_world(database_url) as made:
        yield made
        # each test begins with nothing
        async with made.services.database.write() as session:
            for table in ("operation_steps", "operations"):
                await session.execute(Operation.metadata.tables[table].delete())
        await registry.forget(made.services, "acme")
        async with made.services.database.write() as session:
            await session.execute(Operation.metadata.tables["tenants"].delete())


def test_migrating_again_changes_nothing(database_url: str) -> None:
    migrate(database_url)


async def test_twenty_creations_at_once_are_one_tenant_and_one_operation(world: World) -> None:
    created = await asyncio.gather(
        *(registry.put(world.services, "acme", TenantSpec(), requested_by=f"panel {n}") for n in range(20))
    )
    assert len({result.operation.id for result in created if result.operation}) == 1
    assert len([result for result in created if result.secret_key]) == 1
    assert {task for task, _ in world.woken} == {"operations.advance"}


async def test_a_claim_has_one_holder_and_ends_by_itself(world: World) -> None:
    created = await registry.put(world.services, "acme", TenantSpec(), requested_by="panel")
    assert created.operation is not None
    key, services = created.operation.id, world.services

    async def take() -> str | None:
        async with services.database.write() as session:
            return await claims.claim(session, Operation, key, world.clock())

    tokens = [token for token in await asyncio.gather(*(take() for _ in range(10))) if token]
    assert len(tokens) == 1
    assert await take() is None
    world.clock.now += claims.CLAIM_TERM
    successor = await take()
    assert successor not in {None, tokens[0]}
    async with services.database.write() as session:
        assert not await claims.renew(session, Operation, key, tokens[0], world.clock())
        assert not await claims.release(session, Operation, key, tokens[0], world.clock())
        assert await claims.release(session, Operation, key, str(successor), world.clock())


async def test_a_workflow_goes_on_where_it_failed_and_ends_after_its_last_attempt(world: World) -> None:
    created = await registry.put(world.services, "acme", TenantSpec(), requested_by="panel")
    assert created.operation is not None
    ran: list[str] = []
    failures = iter([True, False])

    async def first(_services: Services, _instance: str, progress: Progress) -> None:
        await progress.report(3, 7)
        ran.append("first")

    async def second(_services: Services, _instance: str, _progress: Progress) -> None:
        ran.append("second")
        if next(failures, True):
            raise RuntimeError("ejabberd is away")

    failed: list[str] = []

    async def on_failure(_services: Services, instance_name: str) -> None:
        failed.append(instance_name)

    workflow = Workflow((Step("first", first), Step("second", second), Step("third", second)), on_failure)

    async def advance() -> Next:
        assert created.operation is not None
        return await operations.advance(world.services, {created.operation.kind: workflow}, created.operation.id)

    assert await advance() is Next.STEP
    assert await advance() is Next.LATER
    assert await advance() is Next.NOTHING, "it is not due yet"
    world.clock.now += 60
    assert await advance() is Next.STEP
    for _ in range(operations.MAX_ATTEMPTS - 1):
        assert await advance() is Next.LATER
        world.clock.now += 60
    assert await advance() is Next.NOTHING
    assert ran == ["first", "second", "second", *["second"] * operations.MAX_ATTEMPTS]
    assert failed == ["acme"]
    operation = await operations.get(world.services, created.operation.id)
    assert (operation.state, operation.error) == ("failed", "third: RuntimeError: ejabberd is away")
    assert [(step.state, step.attempts, step.done, step.total) for step in operation.steps] == [
        ("succeeded", 1, 7, 7),
        ("succeeded", 2, 1, 1),
        ("failed", operations.MAX_ATTEMPTS, 0, 1),
    ]


async def test_transitions_are_compare_and_swap(world: World) -> None:
    await registry.put(world.services, "acme", TenantSpec(), requested_by="panel")
    pending, active = (TenantState.PENDING,), TenantState.ACTIVE
    await registry.set_state(world.services, "acme", pending, active)
    await registry.set_state(world.services, "acme", pending, active)
    with pytest.raises(ConflictError, match="cannot become provisioning"):
        await registry.set_state(world.services, "acme", pending, TenantState.PROVISIONING)
    await registry.begin_destroying(world.services, "acme")
    with pytest.raises(ConflictError, match="is being destroyed"):
        await registry.put(world.services, "acme", TenantSpec(), requested_by="panel")


def message(number: int, receiver: AccountName = VISITOR) -> OperatorMessage:
    return OperatorMessage(f"id-{receiver.ident}-{number}", BOB, receiver, f"body {number}")


async def test_messages_are_kept_once_and_in_order(world: World) -> None:
    await callbacks.store_messages(world.services, [message(1), message(2), message(1)])
    await callbacks.store_messages(world.services, [message(2), message(3)])
    async with world.services.database.read() as session:
        stored = list(await session.scalars(select(CallbackMessage).order_by(CallbackMessage.id)))
        (conversation,) = await session.scalars(select(Conversation))
    assert [kept.body for kept in stored] == ["body 1", "body 2", "body 3"]
    assert conversation.due_at == world.clock.now
    wake = ("callbacks.deliver_messages", {"conversation_id": conversation.id, "instance_name": "acme"})
    assert world.woken == [wake, wake]


async def test_delivery_in_order_with_retries_until_dead(world: World, free_port: int) -> None:
    """One message is refused until it is dead: the next of its conversation waits so long, others do not."""
    other = replace(VISITOR, ident="2")
    services = world.services
    await registry.put(services, "acme", TenantSpec(callback_url=f"http://127.0.0.1:{free_port}"), requested_by="panel")
    await callbacks.store_messages(services, [message(1), message(2), message(3, other)])
    async with Receiver(free_port) as receiver:

        async def refuse(callback: object) -> int:
            return 500 if callback.form["body"] == "body 1" else 200  # type: ignore[attr-defined]

        receiver.behaviours["127.0.0.1"] = refuse
        for _ in range(callbacks.MAX_ATTEMPTS):
            await sweep_and_deliver(world)
            world.clock.now += 4 * 3600
        bodies = [callback.form["body"] for callback in receiver.callbacks]
    assert bodies[:2] in (["body 1", "body 3"], ["body 3", "body 1"])
    assert [body for body in bodies if body != "body 3"] == ["body 1"] * callbacks.MAX_ATTEMPTS + ["body 2"]
    async with services.database.read() as session:
        rows = list(await session.scalars(select(CallbackMessage).order_by(CallbackMessage.id)))
        due = await claims.due(session, Conversation, world.clock(), 10)
    assert [(row.state, row.attempts, row.body) for row in rows] == [
        (MessageState.DEAD, callbacks.MAX_ATTEMPTS, "body 1"),
        (MessageState.DELIVERED, 1, None),
        (MessageState.DELIVERED, 1, None),
    ]
    assert rows[0].last_error == "HTTP 500"
    assert due == []


async def sweep_and_deliver(world: World) -> None:
    """What beat and the workers do: wake all that is due, and do it, each piece twice at once."""
    world.woken.clear()
    await callbacks.sweep(world.services)
    for task, arguments in list(world.woken):
        if task == "callbacks.deliver_messages":
            number = int(arguments["conversation_id"])
            await asyncio.gather(*(callbacks.deliver_messages(world.services, number) for _ in range(2)))
        else:
            await callbacks.deliver_presence(world.services, str(arguments["username"]))


async def test_only_the_latest_presence_is_told(world: World, free_port: int) -> None:
    services = world.services
    await registry.put(services, "acme", TenantSpec(callback_url=f"http://127.0.0.1:{free_port}"), requested_by="panel")
    for online in (True, True, False, True, False):
        await callbacks.operator_changed(services, BOB, online=online)
    await callbacks.operator_answered(services, BOB, "bob.acme@localhost/desk")
    async with Receiver(free_port) as receiver:
        await sweep_and_deliver(world)
        await until(lambda: receiver.callbacks, "a callback")
        assert [callback.raw for callback in receiver.callbacks] == [
            b'{"action":"disconnect","user":"bob.acme","server":"localhost"}'
        ]
        await sweep_and_deliver(world)
        assert len(receiver.callbacks) == 1
    async with services.database.read() as session:
        presence = await session.get_one(OperatorPresence, "bob.acme")
    assert (presence.online, presence.pending, presence.due_at) == (False, None, None)
