"""How many calls a second a tenant's LHC may make: a token bucket per tenant and process.

The count is this process' own: with several API processes a tenant may make as many times more. A tenant without a
limit costs a look into a dictionary, and a read of the registry in two seconds.
"""

import math
from dataclasses import dataclass

from sqlalchemy import select

from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import QuotaExceededError
from tenants.models import Tenant

_FRESH_SECONDS = 2.0
"""How late at most a limit that was changed is known here."""
_LIMIT = 10_000
"""Tenants that are remembered; beyond it all are forgotten, which costs a read each and a second's worth of calls."""
_BURST_SECONDS = 1.0
"""What a tenant did not use in so long may come at once; one call always may."""
_ROUNDING = 1e-6
_LONGEST_WAIT = 3600.0
"""Seconds that a call is put off at most: the limit may be another one by then."""


@dataclass(slots=True)
class _Bucket:
    rate: float | None = None
    """Calls per second; None is no limit."""
    read_at: float = -math.inf
    calls: float = math.inf
    """How many calls it may make at the time `at`."""
    at: float = 0.0


class CallLimiter:
    """The limits of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    async def admit(self, instance_name: str) -> None:
        """Count a call of the tenant; nothing is counted of one that is unknown.

        Raises:
            QuotaExceededError: it is one too many now.
        """
        self._count(instance_name, await self._bucket(instance_name))

    def admit_known(self, tenant: Tenant) -> None:
        """`admit`, of a tenant that was read a moment ago.

        Raises:
            QuotaExceededError: it is one too many now.
        """
        bucket = self._buckets.get(tenant.instance_name)
        if bucket is None:
            bucket = self._new(tenant.instance_name)
        bucket.rate = tenant.calls_per_second
        self._count(tenant.instance_name, bucket)

    def _count(self, instance_name: str, bucket: _Bucket) -> None:
        if bucket.rate is not None:
            _take(bucket, bucket.rate, self._clock(), instance_name)

    async def _bucket(self, instance_name: str) -> _Bucket:
        now = self._clock()
        known = self._buckets.get(instance_name)
        # an age below zero: the clock was set back
        if known is not None and 0 <= now - known.read_at < _FRESH_SECONDS:
            return known
        async with self._database.read() as session:
            rate = await session.scalar(select(Tenant.calls_per_second).where(Tenant.instance_name == instance_name))
        # looked up again: another call may have put it there meanwhile
        bucket = self._buckets.get(instance_name)
        if bucket is None:
            bucket = self._new(instance_name)
        bucket.rate, bucket.read_at = rate, now
        return bucket

    def _new(self, instance_name: str) -> _Bucket:
        if len(self._buckets) >= _LIMIT:
            self._buckets.clear()
        bucket = self._buckets[instance_name] = _Bucket()
        return bucket


def _take(bucket: _Bucket, rate: float, now: float, instance_name: str) -> None:
    # a clock that was set back gives nothing and takes nothing
    gained = max(now - bucket.at, 0) * rate
    bucket.calls = min(bucket.calls + gained, max(rate * _BURST_SECONDS, 1))
    bucket.at = now
    if bucket.calls < 1 - _ROUNDING:
        wait = min((1 - bucket.calls) / rate, _LONGEST_WAIT)
        raise QuotaExceededError(f"tenant '{instance_name}' may make {rate:g} calls a second", wait)
    bucket.calls -= 1
