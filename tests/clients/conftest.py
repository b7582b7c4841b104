"""Operators' clients of Debian, at terminals, and the system that they log in to."""

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.clients.client import OPERATOR_PASSWORD, Client, give
from tests.clients.mcabber import Mcabber
from tests.clients.poezio import Poezio
from tests.clients.profanity import Profanity
from tests.world.tenant import Tenant

CLIENTS = [Profanity, Poezio, Mcabber]


@pytest.fixture
def homes() -> Iterator[Path]:
    """A folder for the folders of users, who may not enter those that pytest makes."""
    with tempfile.TemporaryDirectory(prefix="lhc-homes-") as folder:
        give(Path(folder))
        yield Path(folder)


@pytest.fixture(scope="package")
async def plain(system: System) -> AsyncIterator[None]:
    """PLAIN is on, as in later versions of ejabberd: some clients speak nothing else (docs/ejabberd.md)."""
    config = system.state / "ejabberd" / "ejabberd.yml"
    ours = config.read_text()
    if "[PLAIN, " not in ours:
        yield
        return
    config.write_text(ours.replace("[PLAIN, ", "["))
    try:
        await _restart_ejabberd(system)
        yield
    finally:
        config.write_text(ours)
        await _restart_ejabberd(system)


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda kind: kind.__name__.lower())
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """Each client in turn."""
    kind: type[Client] = request.param
    if kind.MECHANISM == "PLAIN":
        request.getfixturevalue("plain")
    return kind


@pytest.fixture
async def client(kind: type[Client], tenant: Tenant, homes: Path) -> AsyncIterator[Client]:
    """Bob's client, logged in."""
    await tenant.lhc.new_operator("bob", OPERATOR_PASSWORD)
    async with kind(tenant, "bob", homes / "bob") as client:
        yield client


async def _restart_ejabberd(system: System) -> None:
    await system.kill("ejabberd", signal.SIGTERM)

    async def answers() -> bool:
        try:
            await system.ejabberd("status")
        except httpx.HTTPError:
            return False
        return True

    # while it starts it hears no second signal, and what is known of it may be older
    await until_async(answers, "ejabberd answers", 60)
    await system.ready()
