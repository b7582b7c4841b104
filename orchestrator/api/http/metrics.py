"""`/metrics` for Prometheus: the whole system from the database, and what this process answered.

What is counted from the database is the same at each API process: take the maximum over them, not the sum.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping
from typing import Literal, TypeVar

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.http.auth import READS_METRICS, ServicesDep
from tenants.core.batching import BatchFigures
from tenants.ejabberd.client import Ejabberd, Node
from tenants.ejabberd.errors import EjabberdError, EjabberdUnavailableError
from tenants.lifecycle import served_hosts
from tenants.process.services import Services
from tenants.status import attention, overview
from tenants.status.attention import Attention
from tenants.status.overview import Overview
from tenants.store.models import OperationState, TenantState

_PREFIX = "lhc_"
_EJABBERD_SECONDS = 2.0
Kind = TypeVar("Kind")
Counted = TypeVar("Counted")

router = APIRouter(tags=["health"])


@router.get("/metrics", dependencies=[READS_METRICS], response_class=Response)
async def metrics(services: ServicesDep) -> Response:
    """The metrics of the system and of this process, for Prometheus; a token of the scope `metrics` will do."""
    registry = CollectorRegistry()
    seen, needed, refusals, failed_logins, nodes = await asyncio.gather(
        overview.look(services),
        attention.look_at_all(services),
        _counted(services.ejabberd.refusals()),
        _counted(_failed_logins(services)),
        _counted(_nodes(services.ejabberd)),
    )
    registry.register(_System(seen, needed, refusals, failed_logins, nodes))
    registry.register(_Batches({"api": services.batches, **seen.batches}))
    return Response(generate_latest(registry) + generate_latest(_process), media_type=CONTENT_TYPE_LATEST)


async def _failed_logins(services: Services) -> dict[tuple[str, str], int]:
    """Of all hosts together."""
    total: dict[tuple[str, str], int] = {}
    for host in await served_hosts.up(services):
        for kind, count in (await services.ejabberd.at(host).failed_logins()).items():
            total[kind] = total.get(kind, 0) + count
    return total


async def _nodes(ejabberd: Ejabberd) -> dict[str, Node]:
    return {node.name: node for node in await ejabberd.nodes()}


async def _counted(question: Awaitable[dict[Kind, Counted]]) -> dict[Kind, Counted]:
    """What ejabberd has counted. None while it is away: the other numbers are wanted then more than ever."""
    try:
        async with asyncio.timeout(_EJABBERD_SECONDS):
            return await question
    except (EjabberdError, EjabberdUnavailableError, TimeoutError):
        return {}


class _System(Collector):
    """What was just read from the database, and from ejabberd."""

    def __init__(
        self,
        seen: Overview,
        needed: Attention,
        refusals: dict[str, int],
        failed_logins: dict[tuple[str, str], int],
        nodes: dict[str, Node],
    ) -> None:
        self._seen = seen
        self._needed = needed
        self._nodes = nodes
        self._refusals = refusals
        self._failed_logins = failed_logins

    def collect(self) -> Iterator[Metric]:
        seen = self._seen
        tenants = dict.fromkeys(TenantState, 0) | seen.tenants
        yield _gauge("tenants", "Tenants.", {"state": tenants})
        operations = dict.fromkeys((OperationState.PENDING, OperationState.RUNNING, OperationState.PAUSED), 0)
        yield _gauge("operations", "Unfinished operations.", {"state": operations | seen.operations})
        yield _gauge("operators_online", "Operators who are online.", seen.operators_online)
        yield _gauge("visitors_online", "Visitors whom operators see.", seen.visitors_online)
        yield _gauge("events_last_minute", "Events of conversations within the last minute.", seen.events_last_minute)
        yield _gauge("undelivered", "Events that wait for the tenants' servers.", seen.undelivered)
        yield _gauge("oldest_undelivered_seconds", "Age of the one that waits longest.", seen.oldest_undelivered)
        yield _gauge("dead_letters", "Events that were given up; they can be replayed.", seen.dead_letters)
        yield _gauge("waiting_lines", "Lines of visitors that no operator was sent yet.", seen.waiting_lines)
        yield _gauge("returned_messages", "Messages of visitors that came back undelivered.", seen.returned)
        yield _gauge("open_circuits", "Tenants whose server is left alone for a while.", seen.open_circuits)
        yield _gauge("drift", "Differences from ejabberd that are not mended.", seen.unmended)
        needed = {kind.value: count for kind, count in self._needed.counts.items()}
        yield _gauge("attention", "What needs attention, as `doctor` lists it.", {"kind": needed})
        yield _gauge("shards", "Shards that a pool process serves.", {"pool": seen.shards})
        yield _gauge("refusals", "What ejabberd refused for its size or number.", {"kind": self._refusals})
        up = {name: int(node.is_up) for name, node in self._nodes.items()}
        yield _gauge("node_up", "Whether the node of ejabberd runs.", {"node": up})
        waiting = {name: node.waiting for name, node in self._nodes.items() if node.waiting is not None}
        yield _gauge("node_waiting", "Messages that wait at the node for the pool.", {"node": waiting})
        yield _gauge("heartbeat_age_seconds", "Since a worker's last sign of life.", {"worker": seen.heartbeats})
        failed = CounterMetricFamily(
            _PREFIX + "failed_logins", "Logins that failed at ejabberd, since its start.", labels=["who", "outcome"]
        )
        for labels, number in self._failed_logins.items():
            failed.add_metric(labels, number)
        yield failed


class _Batches(Collector):
    """How busy the batches of this process are, and those of the workers were at their last sign of life."""

    def __init__(self, batches: Mapping[str, Mapping[str, BatchFigures]]) -> None:
        self._batches = batches

    def collect(self) -> Iterator[Metric]:
        labels = ["process", "batch"]
        waiting = GaugeMetricFamily(_PREFIX + "batch_waiting", "Items that wait for the next batch.", labels=labels)
        under_way = GaugeMetricFamily(_PREFIX + "batch_under_way", "Items in the batch under way.", labels=labels)
        mean = GaugeMetricFamily(
            _PREFIX + "batch_mean_size", "Items of the latest 20 batches, on average.", labels=labels
        )
        largest = GaugeMetricFamily(_PREFIX + "batch_largest_size", "Items of the largest of these.", labels=labels)
        for process, batches in self._batches.items():
            for name, busy in batches.items():
                waiting.add_metric([process, name], busy.waiting)
                under_way.add_metric([process, name], busy.under_way)
                mean.add_metric([process, name], busy.mean)
                largest.add_metric([process, name], busy.largest)
        yield from (waiting, under_way, mean, largest)


def _gauge(name: str, help_: str, value: float | dict[str, dict[str, int]] | dict[str, dict[str, float]]) -> Metric:
    """A gauge; with a label, by the values of that."""
    if not isinstance(value, dict):
        return GaugeMetricFamily(_PREFIX + name, help_, value=value)
    ((label, values),) = value.items()
    family = GaugeMetricFamily(_PREFIX + name, help_, labels=[label])
    for key, number in values.items():
        family.add_metric([str(key)], number)
    return family


_process = CollectorRegistry()
ProcessCollector(registry=_process)
PlatformCollector(registry=_process)
GCCollector(registry=_process)
_requests = Counter(_PREFIX + "requests", "Requests answered.", ["endpoint", "status"], registry=_process)
_refused = Counter(
    _PREFIX + "connections_refused", "Connections that were ended before a whole request came.", ["status"],
    registry=_process,
)  # fmt: skip
_failed_at_console = Counter(
    _PREFIX + "failed_console_logins", "Logins that failed at the console.", ["outcome"], registry=_process
)
for _outcome in ("refused", "paused"):
    _failed_at_console.labels(_outcome)
_ENDPOINTS = {
    name: name
    for name in (
        *("xmpp", "xmpp-send-message", "xmpp-register-online-visitor", "rpc", "http-bind"),
        *("pageviews", "messages", "chats", "operators"),
    )
}
"""The last part of a path that is counted by its name; all others are `other`, lest anybody invent labels."""


def count(scope: Scope, status: int) -> None:
    """Count a request that is answered with that status."""
    endpoint = _ENDPOINTS.get(scope["path"].rpartition("/")[2], "other")
    _requests.labels(endpoint, status).inc()


def count_refusal(status: int) -> None:
    """Count a connection that is closed with that status."""
    _refused.labels(int(status)).inc()


def count_failed_login(outcome: Literal["refused", "paused"]) -> None:
    """Count a login at the console: refused, or not looked at because there were too many (paused)."""
    _failed_at_console.labels(outcome).inc()


class Counting:
    """ASGI middleware that counts requests by endpoint and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(scope, message["status"])
            await send(message)

        await self._app(scope, receive, counting)
