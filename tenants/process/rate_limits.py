"""How many calls a second a tenant's LHC may make: token buckets per tenant and process.

Page views are counted apart from everything else: however many visitors there are, messages and chats still come
through. The count is this process' own: with several API processes a tenant may make as many times more.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select

from tenants.core.clock import Clock
from tenants.core.errors import QuotaExceededError
from tenants.store.database import Database
from tenants.store.models import Tenant

_FRESH_SECONDS = 2.0
"""How late at most a limit that was changed is known here."""
_LIMIT = 10_000
"""Buckets that are remembered; beyond it all are forgotten, which costs a read each and a second's worth of calls."""
_BURST_SECONDS = 1.0
"""So many seconds' worth of unused calls may come at once; one call always may."""
_ROUNDING = 1e-6
_LONGEST_WAIT = 3600.0
"""Seconds that a call is put off at most: the limit may be another one by then."""
_PAUSE = 1.0
"""Seconds at most before a call too many is refused. Without a pause, refusals alone would take others' time."""

Sleep = Callable[[float], Awaitable[None]]


class CallKind(StrEnum):
    """What is counted apart."""

    PAGE_VIEW = "page views"
    OTHER = "other calls"


@dataclass(slots=True)
class _Bucket:
    rate: float
    """Calls per second."""
    read_at: float = -math.inf
    calls: float = math.inf
    """How many calls it may make at the time `at`."""
    at: float = 0.0


class CallLimiter:
    """The limits of one process. `default_rate`: calls per second of a tenant without a limit of its own."""

    def __init__(self, database: Database, clock: Clock, default_rate: float, sleep: Sleep = asyncio.sleep) -> None:
        self._database = database
        self._clock = clock
        self._default_rate = default_rate
        self._sleep = sleep
        self._buckets: dict[tuple[str, CallKind], _Bucket] = {}

    async def admit(self, instance_name: str, kind: CallKind) -> None:
        """Count a call of the tenant; one of an unknown tenant counts as well.

        Raises:
            QuotaExceededError: it is one too many now. It is raised after a pause.
        """
        await self._take_or_pause(await self._read_bucket(instance_name, kind), instance_name, kind)

    async def admit_known(self, tenant: Tenant, kind: CallKind) -> None:
        """`admit`, of a tenant that was read a moment ago.

        Raises:
            QuotaExceededError: it is one too many now. It is raised after a pause.
        """
        await self._take_or_pause(self._known_bucket(tenant, kind), tenant.instance_name, kind)

    def admit_at_once(self, tenant: Tenant, kind: CallKind) -> None:
        """`admit_known` without a pause.

        Raises:
            QuotaExceededError: it is one too many now.
        """
        _take(self._known_bucket(tenant, kind), self._clock(), tenant.instance_name, kind)

    async def _take_or_pause(self, bucket: _Bucket, instance_name: str, kind: CallKind) -> None:
        try:
            _take(bucket, self._clock(), instance_name, kind)
        except QuotaExceededError as error:
            await self._sleep(min(error.retry_after, _PAUSE))
            raise

    def _known_bucket(self, tenant: Tenant, kind: CallKind) -> _Bucket:
        bucket = self._bucket(tenant.instance_name, kind)
        bucket.rate = tenant.calls_per_second or self._default_rate
        return bucket

    async def _read_bucket(self, instance_name: str, kind: CallKind) -> _Bucket:
        now = self._clock()
        known = self._buckets.get((instance_name, kind))
        # an age below zero: the clock was set back
        if known is not None and 0 <= now - known.read_at < _FRESH_SECONDS:
            return known
        async with self._database.read() as session:
            rate = await session.scalar(select(Tenant.calls_per_second).where(Tenant.instance_name == instance_name))
        bucket = self._bucket(instance_name, kind)
        bucket.rate, bucket.read_at = rate or self._default_rate, now
        return bucket

    def _bucket(self, instance_name: str, kind: CallKind) -> _Bucket:
        bucket = self._buckets.get((instance_name, kind))
        if bucket is None:
            if len(self._buckets) >= _LIMIT:
                self._buckets.clear()
            bucket = self._buckets[instance_name, kind] = _Bucket(self._default_rate)
        return bucket


def _take(bucket: _Bucket, now: float, instance_name: str, kind: CallKind) -> None:
    # a clock that was set back gives nothing and takes nothing
    gained = max(now - bucket.at, 0) * bucket.rate
    bucket.calls = min(bucket.calls + gained, max(bucket.rate * _BURST_SECONDS, 1))
    bucket.at = now
    if bucket.calls < 1 - _ROUNDING:
        wait = min((1 - bucket.calls) / bucket.rate, _LONGEST_WAIT)
        raise QuotaExceededError(f"tenant '{instance_name}' may make {bucket.rate:g} {kind} a second", wait)
    bucket.calls -= 1
