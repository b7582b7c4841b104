"""A circuit breaker per tenant, in the database, so that all processes share it.

Closed: callbacks go. After some failures in a row it opens: nothing of the tenant is tried, and no attempt is used up.
When the pause is over it is half-open: one callback goes as a probe, which is a claim on the circuit's row, so there is
one over all processes, and one that died with its process is replaced. Its success closes the circuit, its failure
opens it for longer.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy import not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tenants.core.backoff import delay
from tenants.process.services import Services
from tenants.store import claims
from tenants.store.models import Circuit, Conversation, OperatorPresence

log = structlog.get_logger(__name__)

FAILURES_TO_OPEN = 5
"""Failures in a row. A conversation that is refused counts once, and so does an operator's presence: no single chat or
operator that LHC does not know opens it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Admission:
    """A callback may go. `probe` is the claim of the one that tries a circuit that was open."""

    probe: str | None = None


@dataclass(frozen=True, slots=True)
class CircuitSummary:
    """A tenant's circuit as it is now; the times are None while it is closed."""

    state: CircuitState
    failures: int
    opened_at: float | None
    next_probe_at: float | None


async def view(services: Services, instance_name: str) -> CircuitSummary:
    """The tenant's circuit."""
    async with services.database.read() as session:
        circuit = await session.get(Circuit, instance_name)
    if circuit is None:
        return CircuitSummary(CircuitState.CLOSED, 0, None, None)
    state = _state(circuit, services.clock())
    return CircuitSummary(state, circuit.failures, circuit.opened_at, circuit.due_at)


def _state(circuit: Circuit, now: float) -> CircuitState:
    if circuit.due_at is None:
        return CircuitState.CLOSED
    return CircuitState.OPEN if circuit.due_at > now else CircuitState.HALF_OPEN


async def look(session: AsyncSession, instance_names: Collection[str], now: float) -> tuple[set[str], set[str]]:
    """The tenants for which nothing can go now, as the circuit is open or its probe under way; and those to be probed.

    This may change before anything is claimed: `admit` decides.
    """
    rows = await session.execute(
        select(Circuit.instance_name, or_(Circuit.due_at > now, not_(claims.free(Circuit, now)))).where(
            Circuit.instance_name.in_(instance_names), Circuit.due_at.is_not(None)
        )
    )
    open_circuits = {name: bool(is_blocked) for name, is_blocked in rows}
    blocked = {name for name, is_blocked in open_circuits.items() if is_blocked}
    return blocked, open_circuits.keys() - blocked


async def admit(session: AsyncSession, instance_name: str, now: float) -> Admission | None:
    """Whether a callback of the tenant may go now. Call it in the transaction that claims the callback."""
    if await session.scalar(select(Circuit.due_at).where(Circuit.instance_name == instance_name)) is None:
        return Admission()
    probe = await claims.claim(session, Circuit, instance_name, now)
    return Admission(probe) if probe else None


async def failed(
    services: Services, session: AsyncSession, instance_name: str, probe: str | None, retry_after: float | None
) -> None:
    """A callback was not received. `retry_after`: seconds that LHC asked for, which may prolong the pause."""
    now = services.clock()
    if probe is not None:
        # the claim is lost when the circuit was closed meanwhile: then this was an old failure
        if await claims.renew(session, Circuit, instance_name, probe, now):
            await _open(session, instance_name, retry_after, now)
        return
    counted = await session.scalar(
        services.database.insert(Circuit)
        .values(instance_name=instance_name, failures=1, openings=0)
        .on_conflict_do_update(
            index_elements=["instance_name"],
            set_={"failures": Circuit.failures + 1},
            # requests that were under way when it opened say nothing new
            where=Circuit.due_at.is_(None),
        )
        .returning(Circuit.failures)
    )
    if counted is not None and counted >= FAILURES_TO_OPEN:
        await _open(session, instance_name, retry_after, now)


async def _open(session: AsyncSession, instance_name: str, retry_after: float | None, now: float) -> None:
    circuit = await session.get_one(Circuit, instance_name, populate_existing=True)
    if circuit.opened_at is None:
        circuit.opened_at = now
        log.warning("circuit opened", instance_name=instance_name, failures=circuit.failures)
    circuit.openings += 1
    pause = delay(circuit.openings, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE)
    circuit.due_at = now + max(pause, retry_after or 0)
    circuit.claim_token = circuit.claimed_until = None


async def give_back(session: AsyncSession, instance_name: str, probe: str) -> None:
    """The probe did not go: another may, at once."""
    await claims.give_back(session, Circuit, instance_name, probe)


async def close(session: AsyncSession, instance_name: str, now: float) -> None:
    """Close the circuit: a callback was received, or somebody says that LHC works. A closed one stays as it is.

    What waited out a failure while it was open is due now: the failures were not its own.
    """
    # with each callback that was received: the cheapest question first
    if not await session.scalar(select(Circuit.failures).where(Circuit.instance_name == instance_name)):
        return
    circuit = await session.get_one(Circuit, instance_name, with_for_update=True)
    was_open = circuit.due_at is not None
    circuit.failures = circuit.openings = 0
    circuit.due_at = circuit.opened_at = circuit.claim_token = circuit.claimed_until = None
    if not was_open:
        return
    log.info("circuit closed", instance_name=instance_name)
    for model in (Conversation, OperatorPresence):
        key = claims.key_of(model)
        # Rows that are being changed at this moment are skipped: to wait for them, with others locked, could deadlock.
        waiting = (
            select(key)
            .where(model.instance_name == instance_name, model.due_at > now, claims.free(model, now))
            .with_for_update(skip_locked=True)
        )
        await session.execute(
            update(model).where(key.in_(waiting)).values(due_at=now).execution_options(synchronize_session=False)
        )
