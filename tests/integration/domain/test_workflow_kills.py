"""Workers that are killed in the middle of each workflow, at each step: another one brings it to its right end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import update

from bench.testbed.system import System, migrate
from tenants.accounts import accounts
from tenants.core.digests import digest
from tenants.core.naming import AccountKind, AccountName, RosterKind
from tenants.core.scram import make_verifier
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.lifecycle import keys, operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services, open_services
from tenants.store.models import Account, Operation, OperationKind, OperationState, Tenant, TenantState
from tenants.workflows import imports, move, reconcile
from tenants.workflows.workflows import WORKFLOWS
from tests.world import mortal
from tests.world.mortal import Death
from tests.world.settings import SECOND_HOST

PANEL = Cause("panel")
KEY, NEW_KEY = "the-first-key-of-a-tenant", "the-second-key-of-a-tenant"
ADDRESS = "https://new.example.org/"


@dataclass(frozen=True)
class Scenario:
    """What a workflow begins with, and what must be when it has ended."""

    begin: Callable[[Services, str], Awaitable[Operation | None]]
    state: TenantState
    check: Callable[[Services, str], Awaitable[None]]


async def _provision(services: Services, name: str) -> Operation | None:
    operator = {"username": "bob", "nick": "Bob", "scram": (await make_verifier("operator-pw")).arguments()}
    return (await registry.put(services, name, TenantSpec(secret_key=KEY, operator=operator), PANEL)).operation


async def _active(services: Services, name: str) -> None:
    operation = await _provision(services, name)
    assert operation is not None
    await mortal.finish(services, operation.id)
    tenant = await registry.get(services, name)
    for visitor in ("1", "2", "3"):
        await accounts.register(services, tenant, AccountName(AccountKind.VISITOR, visitor, name), "secret")
        await accounts.join_roster(services, AccountName(AccountKind.VISITOR, visitor, name), "Ann")


async def _suspended(services: Services, name: str) -> None:
    await _active(services, name)
    operation = await requests.request(services, name, OperationKind.SUSPEND, PANEL)
    assert operation is not None
    await mortal.finish(services, operation.id)


async def _lives(services: Services, name: str) -> None:
    """Rosters and accounts are there, each once, and the key opens."""
    for kind in RosterKind:
        group = rosters.group_of(services.naming, name, kind)
        roster = await services.ejabberd.roster(group)
        # label and description are the tenant's matter
        assert roster is not None
        assert roster.displayed == rosters.wanted(services.naming, name, kind).displayed
    assert await services.ejabberd.has_user(f"bob.{name}")
    assert await services.ejabberd.roster_members(f"operators.{name}") == [f"bob.{name}"]
    assert await keys.opens(services, name, KEY)


async def _is_gone(services: Services, name: str) -> None:
    groups = [rosters.group_of(services.naming, name, kind) for kind in RosterKind]
    assert await services.ejabberd.bulk.tenant_left(services.naming.username_suffix(name), groups) == {}
    assert await services.ejabberd.bulk.accounts(f".{name}") == []
    assert await registry.find(services.database, name) is None


async def _opens_with_both_keys(services: Services, name: str) -> None:
    await _lives(services, name)
    assert await keys.opens(services, name, NEW_KEY)


async def _has_moved(services: Services, name: str) -> None:
    await _lives(services, name)
    assert (await registry.get(services, name)).callback_url == ADDRESS


async def _lives_elsewhere(services: Services, name: str) -> None:
    """All of it is at the second host, with its passwords, and nothing at the first."""
    there = services.ejabberd.at(SECOND_HOST)
    assert (await registry.get(services, name)).xmpp_host == SECOND_HOST
    assert await there.check_password(f"bob.{name}", "operator-pw")
    assert await there.roster_members(f"operators.{name}") == [f"bob.{name}"]
    assert await there.roster_members(f"visitors.{name}") == [f"visitor.{number}.{name}" for number in (1, 2, 3)]
    assert await keys.opens(services, name, KEY)
    groups = [rosters.group_of(services.naming, name, kind) for kind in RosterKind]
    assert await services.ejabberd.bulk.tenant_left(services.naming.username_suffix(name), groups) == {}
    for ejabberd in (services.ejabberd, there):
        assert name not in await ejabberd.bulk.shut_tenants()


def _after(
    arrange: Callable[[Services, str], Awaitable[None]], kind: OperationKind
) -> Callable[..., Awaitable[Operation | None]]:
    async def begin(services: Services, name: str) -> Operation | None:
        await arrange(services, name)
        if kind is OperationKind.ROTATE_KEYS:
            return await keys.rotate_keys(services, name, PANEL, key_digest=digest(name, NEW_KEY), overlap=3600)
        if kind is OperationKind.CHANGE_ADDRESS:
            return await requests.change_address(services, name, PANEL, ADDRESS)
        if kind is OperationKind.MOVE:
            return await move.start(services, name, SECOND_HOST, PANEL)
        return await requests.request(services, name, kind, PANEL)

    return begin


async def _orphaned(services: Services, name: str) -> None:
    """With more than the registry knows: an account that bears the name, a member without one."""
    await _active(services, name)
    await services.ejabberd.register(f"orphan.{name}", "x")
    await services.ejabberd.add_to_roster(f"ghost.{name}", f"visitors.{name}")


async def _import(services: Services, name: str) -> Operation | None:
    """A tenant of the old system: rosters that are not as they should be, members and accounts."""
    for group in registry.groups(services.naming, name):
        await services.ejabberd.create_roster(group, Roster(label=group, description="", displayed=()))
    for user, group in ((f"bob.{name}", f"operators.{name}"), (f"visitor.1.{name}", f"visitors.{name}")):
        await services.ejabberd.register(user, "secret")
        await services.ejabberd.add_to_roster(user, group)
    return (await imports.start(services, name, PANEL, TenantSpec(secret_key=KEY))).operation


async def _is_known(services: Services, name: str) -> None:
    await _lives(services, name)
    async with services.database.read() as session:
        counts = await registry.count_accounts(session, name)
    assert counts == {AccountKind.OPERATOR: 1, AccountKind.VISITOR: 1, AccountKind.CHAT: 0}


async def _reconcile(services: Services, name: str) -> Operation | None:
    """A tenant whose rosters somebody has changed and removed."""
    await _active(services, name)
    async with services.database.write() as session:
        # what is young is left alone
        await session.execute(update(Account).where(Account.instance_name == name).values(created_at=0))
    shown = (f"visitors.{name}",)
    await services.ejabberd.create_roster(f"visitors.{name}", Roster(label="?", description="", displayed=shown))
    await services.ejabberd.delete_roster(f"operators.{name}")
    return await reconcile.start(services, PANEL, name)


SCENARIOS = {
    OperationKind.IMPORT: Scenario(_import, TenantState.ACTIVE, _is_known),
    OperationKind.RECONCILE: Scenario(_reconcile, TenantState.ACTIVE, _lives),
    OperationKind.PROVISION: Scenario(_provision, TenantState.ACTIVE, _lives),
    OperationKind.SUSPEND: Scenario(_after(_active, OperationKind.SUSPEND), TenantState.SUSPENDED, _lives),
    OperationKind.RESUME: Scenario(_after(_suspended, OperationKind.RESUME), TenantState.ACTIVE, _lives),
    OperationKind.DESTROY: Scenario(_after(_orphaned, OperationKind.DESTROY), TenantState.DESTROYED, _is_gone),
    OperationKind.MOVE: Scenario(_after(_active, OperationKind.MOVE), TenantState.ACTIVE, _lives_elsewhere),
    OperationKind.ROTATE_KEYS: Scenario(
        _after(_active, OperationKind.ROTATE_KEYS), TenantState.ACTIVE, _opens_with_both_keys
    ),
    OperationKind.CHANGE_ADDRESS: Scenario(
        _after(_active, OperationKind.CHANGE_ADDRESS), TenantState.ACTIVE, _has_moved
    ),
}
CALLS = {"before": 0, "after-1-call": 1, "after-4-calls": 4, "done-but-not-recorded": None}


@pytest.fixture(scope="module")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('kills')}/registry.db"
    migrate(url)
    return url


@pytest.fixture(scope="module")
async def services(system: System, registry_url: str) -> AsyncIterator[Services]:
    """Of the last successor, who is later than all that died before it."""
    settings = mortal.settings_of(system.state, registry_url)
    async with open_services(settings, mortal.no_wake) as services:
        yield services


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", WORKFLOWS)
async def test_a_workflow_whose_worker_is_killed_in_each_step_ends_well(
    system: System, registry_url: str, services: Services, kind: OperationKind, calls: int | None
) -> None:
    assert kind in SCENARIOS, f"a scenario of {kind} is missing: what it begins with, and how it is to end"
    scenario, name = SCENARIOS[kind], f"kill-{kind.value.replace('_', '-')}-{calls}".lower()
    operation = await scenario.begin(services, name)
    assert operation is not None
    steps = [step.name for step in WORKFLOWS[kind].steps]
    for lives, step in enumerate(steps):
        await mortal.die(system.state, registry_url, operation.id, lives, Death(step, calls))
    async with open_services(services.settings, mortal.no_wake, mortal.later(len(steps))) as successor:
        await mortal.finish(successor, operation.id)
        ended = await operations.get(successor.database, operation.id)
        assert (ended.state, ended.error) == (OperationState.SUCCEEDED, None)
        assert [(step.name, step.attempts) for step in ended.steps] == [(step, 2) for step in steps]
        async with successor.database.read() as session:
            assert (await session.get_one(Tenant, name)).state is scenario.state
        await scenario.check(successor, name)
