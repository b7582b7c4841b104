"""A tenant that was made while the mode was the other one: it ends, by the names that it had, and others' stay."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.testbed.system import System, migrate
from tenants.accounts import accounts
from tenants.conversations import rooms
from tenants.core.errors import ConflictError
from tenants.core.naming import AccountKind, AccountName
from tenants.lifecycle import operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services, open_services
from tenants.store.models import OperationKind, OperationState, RoomOrigin
from tenants.workflows import belongings, reconcile
from tests.world import mortal

CAUSE = Cause("test")


@asynccontextmanager
async def services_of(system: System, url: str, *, hosting: bool) -> AsyncIterator[Services]:
    """Beside the system's servers, with a registry of its own."""
    settings = mortal.settings_of(system.state, url).model_copy(update={"hosting": hosting})
    async with open_services(settings, mortal.no_wake) as services:
        yield services


async def made(services: Services, name: str, operator: str) -> None:
    """A tenant with an operator, a visitor and a room."""
    stored = await registry.put(services, name, TenantSpec(), CAUSE)
    assert stored.operation is not None
    await mortal.finish(services, stored.operation.id)
    tenant = await registry.get(services, name)
    for account in (AccountName(AccountKind.OPERATOR, operator, name), AccountName(AccountKind.VISITOR, "1", name)):
        await accounts.register(services, tenant, account, "secret")
        await accounts.join_roster(services, account)
    await rooms.create(services, name, "team", RoomOrigin.API)


async def destroyed(services: Services, name: str) -> None:
    operation = await requests.destroy(services, name, CAUSE)
    await mortal.finish(services, operation.id)
    await assert_succeeded(services, operation.id)


async def assert_succeeded(services: Services, operation_id: str) -> None:
    assert (await operations.get(services.database, operation_id)).state is OperationState.SUCCEEDED


async def compared(services: Services) -> None:
    """A reconciliation of all that comes to its end, and changes nothing."""
    operation = await reconcile.start(services, CAUSE, dry_run=True)
    await mortal.finish(services, operation.id)
    await assert_succeeded(services, operation.id)


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path}/registry.db"
    migrate(url)
    return url


async def test_a_hosted_tenant_ends_in_standalone_mode(system: System, url: str) -> None:
    name = "stray-one"
    async with services_of(system, url, hosting=True) as hosted:
        await made(hosted, name, "bob")
    async with services_of(system, url, hosting=False) as alone:
        # an operator of the one tenant whose name looks as if it were of the other
        await made(alone, "standalone", f"ann.{name}")
        await compared(alone)
        with pytest.raises(ConflictError, match="it can only be destroyed"):
            await requests.request(alone, name, OperationKind.SUSPEND, CAUSE)
        assert set(await belongings.left(alone, name)) == {"accounts", "rosters", "rooms"}
        await destroyed(alone, name)
        assert await belongings.left(alone, name) == {}
        for username, there in ((f"bob.{name}", False), (f"visitor.1.{name}", False), (f"ann.{name}", True)):
            assert await alone.ejabberd.has_user(username) is there, username
        assert await alone.ejabberd.roster_members("operators") == [f"ann.{name}"]
        assert await alone.ejabberd.rooms.names(f".{name}") == []
        assert "team" in await alone.ejabberd.rooms.names("")
    async with services_of(system, url, hosting=True) as hosted:
        await made(hosted, "at-home", "bob")
        await compared(hosted)
        await destroyed(hosted, "standalone")
        assert await belongings.left(hosted, "standalone") == {}
        assert await hosted.ejabberd.has_user(f"ann.{name}") is False
        assert await hosted.ejabberd.roster("operators") is None
        assert "team" not in await hosted.ejabberd.rooms.names("")
        assert await hosted.ejabberd.has_user("bob.at-home")
        assert await hosted.ejabberd.rooms.names(".at-home") == ["team.at-home"]
        await destroyed(hosted, "at-home")
