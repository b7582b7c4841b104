"""The live view: what visitors and operators of a tenant say, shown to support while it passes by.

Only of tenants whose switch `live_view` is on. The pool hands each line to a fanout exchange of the broker, which keeps
it for nobody who does not listen at that moment. Messages never wait for it: what cannot be shown in time is missing in
the view alone.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Self, TypeVar

import msgspec
import structlog
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue
from sqlalchemy import select

from config.broker import CONNECT_TIMEOUT, TRANSPORT_OPTIONS, failures_of
from tenants.core.batching import next_batch
from tenants.core.errors import UnavailableError
from tenants.process.services import Services
from tenants.store.models import Tenant, TenantState

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

_EXCHANGE = Exchange("live-view", type="fanout", durable=False, delivery_mode="transient")
_WAITING = 1000
"""Lines that wait for the broker, or there for who listens; beyond it they are missing in the view."""
_BATCH = 100
_LISTEN_SECONDS = 1.0
"""How often who listens comes up for air, when nobody says anything."""
_ATTEMPTS, _ATTEMPT_SECONDS = 50, 0.1
_TOGETHER_SECONDS = 0.05
"""What comes within so long is shown at once."""


class Way(StrEnum):
    """Where a message goes."""

    TO_OPERATOR = "to operator"
    TO_VISITOR = "to visitor"


class Line(msgspec.Struct, frozen=True):
    """A message as it passed, at a Unix time. `sender`, `receiver`: local parts of JIDs."""

    instance_name: str
    at: float
    sender: str
    receiver: str
    body: str
    way: Way


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Line)


class LiveViewPublisher:
    """What a pool process shows of what passes through it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._shown: frozenset[str] = frozenset()
        """Tenants whose switch is on, as it was read a moment ago."""
        self._lines: asyncio.Queue[Line] = asyncio.Queue(_WAITING)

    def show(self, instance_name: str, sender: str, receiver: str, body: str, way: Way) -> None:
        """Show what passes soon, if its tenant's switch is on and there is room."""
        if instance_name in self._shown:
            line = Line(instance_name, self._services.clock(), sender, receiver, body, way)
            with suppress(asyncio.QueueFull):
                self._lines.put_nowait(line)

    async def look(self) -> None:
        """Read whose switch is on."""
        async with self._services.database.read() as session:
            names = await session.scalars(
                select(Tenant.instance_name).where(Tenant.live_view, Tenant.state == TenantState.ACTIVE)
            )
            self._shown = frozenset(names)

    async def run(self) -> None:
        """Hand over what is to be shown; until cancelled."""
        with _Broker(self._services) as broker:
            while True:
                batch = await next_batch(self._lines, _BATCH)
                try:
                    await broker.do(partial(_publish, batch))
                except UnavailableError:
                    log.warning("not shown in the live view", count=len(batch))


async def listen(services: Services, instance_name: str) -> AsyncGenerator[list[Line]]:
    """What passes, as it comes; an empty list now and then. The first one is empty: from then on, all is heard.

    Raises:
        UnavailableError: the broker is away, or went away.
    """
    with _Broker(services) as broker:
        subscriber = await broker.do(partial(_LiveViewSubscriber, instance_name))
        yield []
        while True:
            yield await broker.do(subscriber.hear)


class _Broker:
    """A connection, and the thread in which alone it is used: kombu blocks."""

    def __init__(self, services: Services) -> None:
        self._url = services.settings.broker_url.get_secret_value()
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live-view")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        # after what may still go on there; nobody waits for that
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    async def do(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work with the connection; with a new one after a failure.

        Raises:
            UnavailableError: the broker is away, or went away.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._do(work))

    def _do(self, work: Callable[[Connection], Result]) -> Result:
        connection = self._connection or Connection(
            self._url, transport_options=TRANSPORT_OPTIONS, connect_timeout=CONNECT_TIMEOUT
        )
        self._connection = connection
        try:
            return work(connection)
        except failures_of(connection) as error:
            self._disconnect()
            raise UnavailableError("the broker cannot be reached") from error

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # without a word: to say goodbye to a broker that is gone fails, and leaves the socket open
            with suppress(*failures_of(connection)):
                connection.collect()


# What follows runs in the thread.


def _publish(lines: Sequence[Line], connection: Connection) -> None:
    producer = Producer(connection, _EXCHANGE)
    for line in lines:
        producer.publish(_encoder.encode(line), content_type="application/json", content_encoding="utf-8")


class _LiveViewSubscriber:
    """A queue at the broker that is there as long as its connection."""

    def __init__(self, instance_name: str, connection: Connection) -> None:
        self._instance_name = instance_name
        self._name = f"live-view.{uuid.uuid4().hex}"
        self._heard: list[Line] = []
        self._hears = False
        queue = Queue(
            self._name,
            _EXCHANGE,
            durable=False,
            exclusive=True,
            auto_delete=True,
            max_length=_WAITING,
            no_ack=True,
        )
        self._consumer = Consumer(connection, [queue], on_message=self._receive)
        self._consumer.consume()
        self._begin(connection)

    def hear(self, connection: Connection) -> list[Line]:
        """What has come; waits a while for something to come."""
        with suppress(TimeoutError):
            connection.drain_events(timeout=_LISTEN_SECONDS)
            while len(self._heard) < _BATCH:
                connection.drain_events(timeout=_TOGETHER_SECONDS)
        heard, self._heard = self._heard, []
        return heard

    def _begin(self, connection: Connection) -> None:
        """Hear oneself: Redis subscribes some time after it is asked to.

        Raises:
            TimeoutError: nothing is heard.
        """
        oneself = Line(self._name, 0.0, "", "", "", Way.TO_OPERATOR)
        for _ in range(_ATTEMPTS):
            _publish([oneself], connection)
            with suppress(TimeoutError):
                connection.drain_events(timeout=_ATTEMPT_SECONDS)
            if self._hears:
                return
        raise TimeoutError

    def _receive(self, message: Message) -> None:
        line = _decoder.decode(message.body)
        if line.instance_name == self._name:
            self._hears = True
        elif line.instance_name == self._instance_name:
            self._heard.append(line)
