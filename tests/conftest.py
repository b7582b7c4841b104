"""Fixtures of all tests, and what lets several processes run them side by side."""

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hypothesis
import pytest

from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System, start_system
from tests.sharing import Sharing, put_in_order
from tests.world import ports
from tests.world.settings import SETTINGS
from tests.world.tenant import NewTenant, Tenant, tenants_of


def pytest_configure() -> None:
    """Each process starts systems of its own, so each has ports of its own."""
    os.environ["ORCHESTRATOR_PORTS"] = ports.ports_of_systems()
    # how long an example takes says how busy the machine is
    hypothesis.settings.register_profile("without timings", deadline=None)
    hypothesis.settings.load_profile("without timings")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_in_order(items)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing | None:
    """Share out by `tests.sharing` what is shared out by files."""
    return Sharing(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def free_port() -> int:
    """A port of the loopback address that is free now."""
    return ports.free_port()


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    with start_system(env=SETTINGS) as system:
        yield system


@pytest.fixture(scope="session")
async def receiver(system: System) -> AsyncIterator[Receiver]:
    async with Receiver(system.endpoints["callback_port"]) as receiver:
        yield receiver


@pytest.fixture(scope="session")
async def panel(system: System) -> AsyncIterator[Panel]:
    async with Panel(system.endpoints["api"], system.endpoints["panel_token"]) as panel:
        yield panel


@pytest.fixture
async def new_tenant(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[NewTenant]:
    async with tenants_of(system, receiver, panel) as make:
        yield make


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> Tenant:
    return await new_tenant()
