"""A wake-up that cannot be sent is lost quietly, whatever the broker does, and holds few threads meanwhile."""

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from config.celery import make_celery
from config.settings import Settings
from config.wakeup import celery_wake


@pytest.fixture(params=["redis://127.0.0.1:{}/0", "amqp://127.0.0.1:{}//"], ids=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest, free_port: int) -> str:
    url: str = request.param.format(free_port)
    return url


@pytest.fixture
def silent(free_port: int) -> Iterator[None]:
    """A server on that port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", free_port), backlog=100):
        yield


async def wake_many(broker_url: str) -> None:
    wake = celery_wake(make_celery(Settings(broker_url=broker_url)))
    await asyncio.gather(*(wake("operations.advance", operation_id=str(number)) for number in range(50)))


async def test_a_broker_that_refuses(broker_url: str) -> None:
    await wake_many(broker_url)


@pytest.mark.usefixtures("silent")
async def test_a_broker_that_hangs(broker_url: str) -> None:
    before = threading.active_count()
    await wake_many(broker_url)
    assert threading.active_count() <= before + 5
