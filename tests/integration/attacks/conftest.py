"""What several of the attacks need."""

from collections.abc import AsyncIterator

import pytest

from bench.testbed.chat_server import ChatServer


@pytest.fixture(scope="session")
async def chat_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChatServer]:
    """An ejabberd with the bridge module, alone, that ends its processes on demand."""
    server = ChatServer(tmp_path_factory.mktemp("attacked"), {}, ends_badly=True, in_haste=True)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
