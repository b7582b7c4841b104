"""Operators' clients of Debian, at terminals, and the system that they log in to."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module", params=CLIENTS, ids=lambda kind: kind.__name__.lower())
def kind(request: pytest.FixtureRequest) -> type[Client]:
    """Each client in turn that this Debian has."""
    kind: type[Client] = request.param
    if shutil.which(kind.__name__.lower()) is None:
        pytest.skip(f"there is no {kind.__name__}")
    return kind


@pytest.fixture
async def client(kind: type[Client], tenant: Tenant, homes: Path) -> AsyncIterator[Client]:
    """Bob's client, logged in."""
    await tenant.lhc.new_operator("bob", OPERATOR_PASSWORD)
    async with kind(tenant, "bob", homes / "bob") as client:
        yield client
