"""`orchestrator doctor`: what it says of a system that is well, and of one in which anything is wrong."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bench.testbed.system import System, domain_of, migrate
from bench.testbed.waiting import until
from config.ejabberd_versions import TESTED, shown
from config.settings import Settings
from tenants.core.naming import AccountKind
from tenants.ejabberd import fitness
from tenants.ejabberd.client import BRIDGE_VERSION, Ejabberd
from tenants.lifecycle import registry
from tenants.status import diagnostics
from tenants.status.diagnostics import Finding, WrongError
from tenants.store.models import (
    Account,
    AccountState,
    Base,
    CallbackMessage,
    Conversation,
    Drift,
    MessageState,
)
from tests.world.registry import World, make_world
from tests.world.tenant import NewTenant, Tenant
from xmpp_pool import handshake
from xmpp_pool.pool import Pool

ORCHESTRATOR = str(Path(sys.executable).parent / "orchestrator")
FAILED = 1


async def doctor(system: System, *words: str, **settings: object) -> "subprocess.CompletedProcess[str]":
    changed = {f"ORCHESTRATOR_{name.upper()}": str(value) for name, value in settings.items()}
    env = {**os.environ, "ORCHESTRATOR_STATE_DIR": str(system.state), "COLUMNS": "200", **changed}
    # in a thread: it may ask a receiver that runs here
    return await asyncio.to_thread(
        subprocess.run,
        [ORCHESTRATOR, "doctor", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def found(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    return {one["part"]: one for one in json.loads(done.stdout)["parts"]}


async def test_all_is_well_with_a_running_system(tenant: Tenant) -> None:
    told = await doctor(tenant.system, "--instance", tenant.name)
    assert (told.returncode, told.stderr.strip()) == (0, "All is well."), told.stdout
    parts = found(await doctor(tenant.system, "--instance", tenant.name, "--json"))
    assert {part["ok"] for part in parts.values()} == {True}
    async with domain_of(tenant.system) as services:
        made_for = shown(await services.ejabberd.version())
    assert parts["bridge module"]["found"] == f"version {BRIDGE_VERSION}, compiled for ejabberd {made_for}"
    assert parts["component"]["found"] == f"lhc.{tenant.host} is connected"
    assert tenant.callback_host in parts[f"tenant {tenant.name}"]["found"]
    # it asked, and told nothing
    assert [callback.raw for callback in tenant.callbacks()] == []


def undelivered(state: MessageState, instance_name: str, now: float) -> list[Base]:
    conversation = Conversation(id=10**6, instance_name=instance_name, receiver=f"visitor.1.{instance_name}")
    waiting = [
        CallbackMessage(
            conversation_id=conversation.id, instance_name=instance_name, stanza_id=f"{instance_name}-{one}"
        )
        for one in range(44)
    ]
    for message in waiting:
        message.sender, message.receiver, message.server = f"bob.{instance_name}", conversation.receiver, "localhost"
        message.state, message.last_error, message.created_at = state, "503 Service Unavailable", now - 600
    return [conversation, *waiting]


def full(instance_name: str, now: float) -> list[Base]:
    account = Account(username=f"bob.{instance_name}", instance_name=instance_name, kind=AccountKind.OPERATOR)
    account.state, account.created_at, account.last_active_at = AccountState.ACTIVE, now, now
    return [account]


def left_by_a_restore(instance_name: str, now: float) -> list[Base]:
    kinds = ("operator_lost", "member_foreign", "operator_unknown")
    return [Drift(instance_name=instance_name, kind=kind, subject=f"bob.{kind}", found_at=now - 60) for kind in kinds]


@pytest.mark.parametrize(
    ("make", "says", "action"),
    [
        (
            partial(undelivered, MessageState.PENDING),
            "44 messages to its server wait",
            "orchestrator deliveries",
        ),
        (
            partial(undelivered, MessageState.DEAD),
            "44 messages to its server were given up",
            "replay acme --all",
        ),
        (full, "1 of 1 accounts (100%): further ones are refused.", "tenant update acme --set max_accounts"),
        (left_by_a_restore, "1 operator lost the account at ejabberd", "invite them"),
    ],
    ids=["undelivered", "dead letters", "full", "after a restore"],
)
async def test_what_needs_attention_is_told_beside_servers_that_are_well(
    alone: World, system: System, make: Callable[[str, float], list[Base]], says: str, action: str
) -> None:
    """In a registry of its own, so that no worker changes it."""
    await alone.open_tenant("acme", max_accounts=1)
    async with alone.services.database.write() as session:
        first, *others = make("acme", time.time())
        session.add(first)
        await session.flush()
        session.add_all(others)
    url = alone.services.settings.database_url.get_secret_value()
    done = await doctor(system, "--json", database_url=url)
    # neither workers nor pools work for that registry
    assert {part for part, one in found(done).items() if not one["ok"]} <= {"workers", "pools", "component"}
    items = [one for one in json.loads(done.stdout)["attention"] if one["is_problem"]]
    assert {one["instance_name"] for one in items} == {"acme"}
    assert len(items) == (3 if make is left_by_a_restore else 1)
    assert any(says in one["cause"] and action in one["action"] for one in items)
    shown = await doctor(system, database_url=url)
    assert (done.returncode, shown.returncode) == (FAILED, FAILED)
    assert says in shown.stdout
    assert "All is well" not in shown.stderr


async def test_tenants_of_the_other_mode_are_told(tenant: Tenant) -> None:
    """In that mode LHC's calls are refused, and the tenants can neither be used nor destroyed."""
    done = await doctor(tenant.system, "--json", hosting="false")
    assert done.returncode == FAILED
    mode = found(done)["mode"]
    assert mode["ok"] is False
    assert "tenants of the other mode" in mode["found"]
    assert "ORCHESTRATOR_HOSTING=true" in mode["advice"]


@pytest.mark.parametrize(
    ("settings", "part", "says", "advice"),
    [
        ({"broker_url": "redis://127.0.0.1:1/0"}, "broker", "the broker: ", "ORCHESTRATOR_BROKER_URL"),
        ({"ejabberd_api_url": "http://127.0.0.1:1/api"}, "ejabberd", "ConnectError", "ORCHESTRATOR_EJABBERD_API_URL"),
        ({"ejabberd_api_secret": "another"}, "ejabberd", "Not the secret", "ORCHESTRATOR_EJABBERD_API_URL and _SECRET"),
        ({"signing_master_key": ""}, "keys", "ORCHESTRATOR_SIGNING_MASTER_KEY", "long random value"),
        ({"shard_count": 65}, "pools", "64 of 65 shards are served", "start `orchestrator pool`"),
    ],
)
async def test_what_is_wrong_comes_with_what_to_change(
    system: System, settings: dict[str, object], part: str, says: str, advice: str
) -> None:
    done = await doctor(system, "--json", **settings)
    assert done.returncode == FAILED
    wrong = found(done)[part]
    assert wrong["ok"] is False
    assert says in wrong["found"]
    assert advice in wrong["advice"]
    shown = await doctor(system, **settings)
    assert f"✗ {part}" in shown.stdout
    assert "→" in shown.stdout
    for key in ("panel_token", "hosting_key"):
        assert system.endpoints[key] not in done.stdout + shown.stdout


async def test_a_tenant_that_nobody_can_reach(new_tenant: NewTenant, free_port: int) -> None:
    tenant = await new_tenant(callback_url=f"http://127.0.0.1:{free_port}")
    done = await doctor(tenant.system, "--instance", tenant.name, "--json")
    assert done.returncode == FAILED
    wrong = found(done)[f"tenant {tenant.name}"]
    assert "ClientConnectorError" in wrong["found"]
    assert "callback_url" in wrong["advice"]
    missing = found(await doctor(tenant.system, "--instance", "nobody-knows", "--json"))
    assert missing["tenant nobody-knows"]["found"] == "there is no tenant 'nobody-knows'"


@pytest.fixture
async def alone(system: System, tmp_path: Path) -> AsyncIterator[World]:
    """Services with a new database, so without any pool process, beside the system's real ejabberd."""
    async with domain_of(system) as services:
        theirs = services.settings
    url = f"sqlite+aiosqlite:///{tmp_path}/new.db"
    migrate(url)
    async with make_world(
        url,
        xmpp_host=theirs.xmpp_host,
        component_port=theirs.component_port,
        component_secret=theirs.component_secret,
        ejabberd_api_url=theirs.ejabberd_api_url,
        ejabberd_api_secret=theirs.ejabberd_api_secret,
    ) as world:
        yield world


def changed(world: World, **settings: object) -> None:
    copy = world.services.settings.model_copy(update=settings)
    for made_of_others in ("component_jid", "component_addresses", "api_urls"):
        copy.__dict__.pop(made_of_others, None)
    object.__setattr__(world.services, "settings", copy)


async def finding(world: World, part: str) -> Finding:
    return next(one for one in await diagnostics.examine(world.services) if one.part == part)


async def test_the_component_is_tried_where_no_pool_serves(alone: World, free_port: int) -> None:
    jid = alone.services.settings.component_jid
    assert await handshake.check(alone.services) == f"{jid} is accepted"
    port = alone.services.settings.component_port
    changed(alone, component_secret=Settings(component_secret="wrong").component_secret)
    with pytest.raises(WrongError, match="the secret is refused") as refused:
        await handshake.check(alone.services)
    assert "ORCHESTRATOR_COMPONENT_SECRET" in refused.value.advice
    changed(alone, component_port=free_port)
    (closed,) = [
        one
        for one in await diagnostics.examine(alone.services, [("component", handshake.check)])
        if one.part == "component"
    ]
    assert (closed.ok, "ORCHESTRATOR_COMPONENT_HOST" in closed.advice) == (False, True)
    changed(alone, component_port=port, xmpp_host="elsewhere.example")
    with pytest.raises(WrongError):
        await handshake.check(alone.services)


async def test_a_standalone_system_without_its_tenant_is_told(alone: World) -> None:
    assert (await finding(alone, "mode")).ok
    changed(alone, hosting=False)
    assert (await finding(alone, "mode")).advice == "run `orchestrator tenant create standalone`"
    await registry.begin_standalone(alone.services)
    assert (await finding(alone, "mode")).ok
    await registry.begin_standalone(alone.services)
    changed(alone, hosting=True)
    only = await finding(alone, "mode")
    assert only.found.endswith("tenants of the other mode: standalone")
    assert "set ORCHESTRATOR_HOSTING=false" in only.advice, "it was a standalone system"


async def test_a_system_that_is_used_is_never_told_to_change_its_mode(alone: World) -> None:
    changed(alone, hosting=False)
    await registry.begin_standalone(alone.services)
    changed(alone, hosting=True)
    await alone.open_tenant("acme")
    # as of an instance that an earlier version let begin
    await add_account(alone, "bob.standalone", "standalone")
    hosted = await finding(alone, "mode")
    assert (hosted.ok, "tenant destroy standalone" in hosted.advice) == (False, True)
    assert "set ORCHESTRATOR_HOSTING" not in hosted.advice
    changed(alone, hosting=False)
    assert "set ORCHESTRATOR_HOSTING" not in (await finding(alone, "mode")).advice, "neither is used"
    await add_account(alone, "bob.acme", "acme")
    assert "set ORCHESTRATOR_HOSTING=true" in (await finding(alone, "mode")).advice, "only the hosted tenant is used"
    await add_account(alone, "bob", "standalone")
    used = await finding(alone, "mode")
    assert "'standalone' is the tenant of this system" in used.advice
    assert "set ORCHESTRATOR_HOSTING" not in used.advice
    changed(alone, hosting=True)
    assert "set ORCHESTRATOR_HOSTING" not in (await finding(alone, "mode")).advice


async def add_account(world: World, username: str, instance_name: str) -> None:
    async with world.services.database.write() as session:
        account = Account(username=username, instance_name=instance_name, kind=AccountKind.OPERATOR)
        account.state, account.created_at, account.last_active_at = AccountState.ACTIVE, 0.0, 0.0
        session.add(account)


async def test_an_ejabberd_that_was_not_tested_is_told_and_served_by_no_pool(
    alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = await alone.services.ejabberd.version()
    monkeypatch.delitem(TESTED, version)
    unknown = await finding(alone, "ejabberd")
    assert (unknown.ok, unknown.found) == (False, f"version {shown(version)}, which was not tested")
    with capture_logs() as logs:
        work = asyncio.create_task(Pool(alone.services, "untested").run())
        await until(lambda: [one for one in logs if "which was not tested" in one.get("error", "")], "it refuses")
        work.cancel()
        await asyncio.wait({work})
    assert "shards served" not in [one["event"] for one in logs]
    changed(alone, ejabberd_untested=shown(version))
    accepted = await finding(alone, "ejabberd")
    assert (accepted.ok, "NOT TESTED: at your own risk" in accepted.found) == (True, True)


async def test_a_bridge_module_that_was_compiled_for_another_ejabberd_is_told(
    alone: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def made_for(_ejabberd: Ejabberd) -> str:
        return "22.05"

    monkeypatch.setattr(Ejabberd, "bridge_made_for", made_for)
    old = await finding(alone, "bridge module")
    running = shown(await alone.services.ejabberd.version())
    assert (old.ok, old.found) == (False, f"compiled for ejabberd 22.05, but {running} runs")
    assert "compile config/ejabberd/*.erl anew" in old.advice


async def test_an_older_bridge_module_and_a_database_without_tables(
    alone: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitness, "BRIDGE_VERSION", "newer")
    old = await finding(alone, "bridge module")
    assert (old.ok, old.found) == (False, f"version {BRIDGE_VERSION}, not newer")
    assert (await finding(alone, "database")).ok
    async with make_world(f"sqlite+aiosqlite:///{tmp_path}/empty.db") as empty:
        bare = await finding(empty, "database")
        assert (bare.ok, bare.advice) == (False, "run `orchestrator migrate`")
        assert (await finding(empty, "workers")).ok is None
