"""Delivery in the running system: no tenant delays another, a killed worker loses nothing, panel and CLI replay."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from dotenv import dotenv_values
from sqlalchemy import update

from bench.testbed.operator import Operator
from bench.testbed.receiver import Callback
from bench.testbed.system import PROJECT
from bench.testbed.waiting import until, until_async
from tenants.delivery.refusals import MAX_ATTEMPTS
from tenants.store.database import Database
from tenants.store.models import CallbackMessage, Circuit, Conversation, MessageState
from tests.world.tenant import Tenant

NewTenant = Callable[..., Awaitable[Tenant]]
PASSWORD = "0123456789abcdef0123"


@pytest.fixture
async def let_go() -> AsyncIterator[asyncio.Event]:
    """Ends all hanging; set at the latest when the test ends."""
    event = asyncio.Event()
    yield event
    event.set()


def hang(tenant: Tenant, let_go: asyncio.Event) -> list[Callback]:
    """Let the tenant's LHC answer nothing until it is let go. Returns the callbacks it holds."""
    held: list[Callback] = []

    async def behaviour(callback: Callback) -> int:
        held.append(callback)
        await let_go.wait()
        held.remove(callback)
        return 200

    tenant.receiver.behaviours[tenant.callback_host] = behaviour
    return held


async def write_to_visitors(tenant: Tenant, bob: Operator, visitors: int, each: int = 1) -> list[str]:
    """The operator writes to each visitor. Returns the bodies."""
    for visitor in range(1, visitors + 1):
        await tenant.lhc.new_visitor(f"visitor.{visitor}", PASSWORD)
    bodies = []
    for number in range(each):
        for visitor in range(1, visitors + 1):
            bodies.append(f"{number} to {visitor} {tenant.name}")
            bob.write(tenant.lhc.name(f"visitor.{visitor}"), bodies[-1])
    return bodies


def bodies_of(tenant: Tenant) -> list[str]:
    """The bodies of all messages that the tenant's LHC was sent, in order."""
    callbacks = tenant.callbacks()
    return [callback.form["body"] for callback in callbacks if "body" in callback.form]


async def test_a_hanging_lhc_delays_nobody_else(new_tenant: NewTenant, let_go: asyncio.Event) -> None:
    dead, alive = await new_tenant(), await new_tenant()
    ann, bob = await dead.operator_online("ann"), await alive.operator_online("bob")
    held = hang(dead, let_go)
    bodies = await write_to_visitors(dead, ann, visitors=50)
    await until(lambda: held, "the dead one hangs")
    for body in await write_to_visitors(alive, bob, visitors=2, each=20):
        await alive.receiver.message(body)
    assert held, "the dead one hangs still"
    assert len(held) <= 4
    let_go.set()
    for body in bodies:
        await dead.receiver.message(body, seconds=60)


async def test_a_killed_worker_loses_nothing_and_keeps_the_order(tenant: Tenant, let_go: asyncio.Event) -> None:
    bob = await tenant.operator_online()
    held = hang(tenant, let_go)
    bodies = await write_to_visitors(tenant, bob, visitors=3, each=3)
    await until(lambda: len(held) >= 3, "a request of each conversation is under way")
    await tenant.system.kill("worker")
    let_go.set()
    await until(lambda: set(bodies) <= set(bodies_of(tenant)), "all arrive", 45)
    for visitor in range(1, 4):
        own = [body for body in bodies_of(tenant) if f"to {visitor} " in body]
        # the one that was under way is sent again; nothing overtakes
        assert sorted(own) == own
        assert len(set(own)) == 3
    await tenant.system.ready()


async def test_a_worker_that_is_stopped_finishes_what_is_under_way(tenant: Tenant, let_go: asyncio.Event) -> None:
    bob = await tenant.operator_online()
    held = hang(tenant, let_go)
    (first, second) = await write_to_visitors(tenant, bob, visitors=1, each=2)
    await until(lambda: held, "a request is under way")
    old = tenant.system.pid("worker")
    os.kill(old, signal.SIGTERM)
    log = tenant.system.state / "logs"
    await until(lambda: "Warm shutdown" in "".join(path.read_text() for path in log.glob("worker*")), "it shuts down")
    let_go.set()
    await tenant.receiver.message(second, seconds=45)
    assert bodies_of(tenant) == [first, second], "what was under way is not sent again"
    await until(lambda: tenant.system.pid("worker") not in {0, old}, "the worker is started again", 30)
    await tenant.system.ready()


async def get(tenant: Tenant, path: str, **params: Any) -> Any:
    answer = await tenant.panel.http.get(f"/v1/tenants/{tenant.name}{path}", params=params)
    assert answer.is_success, answer.text
    return answer.json()


async def test_the_panel_sees_deliveries_and_their_attempts(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    (first, _) = await write_to_visitors(tenant, bob, visitors=1, each=2)

    async def refuse(_callback: Callback) -> int:
        return 418

    async def delivered() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await get(tenant, "/deliveries", state="delivered"))["deliveries"]
        return found if len(found) == 2 else None

    found = await until_async(delivered, "both are delivered")
    assert found[0]["sender"] == tenant.lhc.name("bob")
    assert found[0]["receiver"] == tenant.lhc.name("visitor.1")
    assert (found[0]["state"], found[0]["attempts"], found[0]["last_error"]) == ("delivered", 1, None)
    page = await get(tenant, "/deliveries", limit=1)
    assert page == {"deliveries": found[:1], "next": found[0]["id"]}
    assert await get(tenant, "/deliveries", after=page["next"]) == {"deliveries": found[1:], "next": None}

    tenant.receiver.behaviours[tenant.callback_host] = refuse
    bob.write(tenant.lhc.name("visitor.1"), f"refused {tenant.name}")

    async def refused() -> dict[str, Any] | None:
        pending = (await get(tenant, "/deliveries", state="pending"))["deliveries"]
        return pending[0] if pending and pending[0]["attempts"] >= 1 else None

    seen = await until_async(refused, "an attempt was made")
    detail = await get(tenant, f"/deliveries/{seen['id']}")
    assert detail["last_error"] == "HTTP 418"
    assert [attempt["http_status"] for attempt in detail["history"]] == [418] * len(detail["history"])
    assert tenant.name not in str({**detail, "sender": "", "receiver": ""}), "no body is shown"
    assert first not in str(found)
    circuit = await get(tenant, "/circuit")
    assert circuit["state"] in {"closed", "open", "half-open"}
    assert circuit["failures"] >= 1

    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/deliveries/{seen['id']}/replay")
    assert answer.status_code == 409
    assert "not dead" in answer.json()["detail"]


async def give_up(tenant: Tenant) -> None:
    """Let the tenant's pending messages be at their last attempt, and due, as if ten hours had passed."""
    settings = dotenv_values(tenant.system.state / "settings.env")
    database = Database(str(settings["ORCHESTRATOR_DATABASE_URL"]))
    pending = CallbackMessage.instance_name == tenant.name, CallbackMessage.state == MessageState.PENDING
    async with database.write() as session:
        await session.execute(update(CallbackMessage).where(*pending).values(attempts=MAX_ATTEMPTS - 1))
        for model in (Conversation, Circuit):
            due = model.instance_name == tenant.name, model.due_at.is_not(None)
            await session.execute(update(model).where(*due).values(due_at=0))
    await database.close()


async def dead_of(tenant: Tenant) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await get(tenant, "/deliveries", state="dead"))["deliveries"]
    return found


async def command(tenant: Tenant, *words: str) -> str:
    """Run a command of the CLI on the system. Returns what it printed, of both kinds, and its exit status first."""
    program = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "orchestrator",
        *words,
        env={**tenant.system.env, "ORCHESTRATOR_STATE_DIR": str(tenant.system.state), "COLUMNS": "200"},
        cwd=PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(program.communicate(), 30)
    return f"{program.returncode} {printed.decode()}"


async def test_dead_letters_are_replayed_by_panel_and_command_line(new_tenant: NewTenant) -> None:
    tenant, other = await new_tenant(), await new_tenant()
    bob = await tenant.operator_online()

    async def refuse(callback: Callback) -> int:
        return 500 if callback.path.endswith("processmessage") else 200

    tenant.receiver.behaviours[tenant.callback_host] = refuse
    bodies = await write_to_visitors(tenant, bob, visitors=1, each=3)
    await until(lambda: bodies_of(tenant), "the first is refused")

    async def all_dead() -> list[dict[str, Any]] | None:
        dead = await dead_of(tenant)
        if len(dead) == len(bodies):
            return dead
        await give_up(tenant)
        await asyncio.sleep(0.5)
        return None

    dead = await until_async(all_dead, "all are given up", 45)
    assert [message["attempts"] for message in dead] == [MAX_ATTEMPTS] * 3
    listed = await command(tenant, "deliveries", tenant.name, "--state", "dead")
    assert listed.startswith("0 ")
    assert all(str(message["id"]) in listed for message in dead)
    assert "HTTP 500" in listed
    assert bodies[0] not in listed

    url = f"/v1/tenants/{tenant.name}/deliveries/{dead[1]['id']}/replay"
    crossed = await tenant.panel.http.post(url.replace(tenant.name, other.name))
    assert crossed.status_code == 404
    async with httpx.AsyncClient(base_url=tenant.system.endpoints["api"]) as stranger:
        assert (await stranger.post(url)).status_code == 401
    assert len(await dead_of(tenant)) == 3

    del tenant.receiver.behaviours[tenant.callback_host]
    tenant.receiver.callbacks.clear()
    answer = await tenant.panel.http.post(url)
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    await tenant.receiver.message(bodies[1])
    assert (await get(tenant, "/circuit"))["state"] == "closed"
    assert (await tenant.panel.http.post(url)).status_code == 409

    assert (await command(tenant, "replay", tenant.name)).startswith("2 ")
    assert (await command(tenant, "replay", tenant.name, "--message", str(dead[1]["id"]))).startswith("4 ")
    replayed = await command(tenant, "replay", tenant.name, "--message", str(dead[2]["id"]))
    assert replayed.startswith("0 1 to be delivered again")
    await tenant.receiver.message(bodies[2])
    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/deliveries/replay")
    assert (answer.status_code, answer.json()) == (202, {"replayed": 1})
    await tenant.receiver.message(bodies[0])
    assert bodies_of(tenant) == [bodies[1], bodies[2], bodies[0]]
    assert (await command(tenant, "replay", tenant.name, "--all")).startswith("0 0 to be delivered again")
    unknown = await tenant.panel.http.get("/v1/tenants/nobody/deliveries")
    assert unknown.status_code == 404
