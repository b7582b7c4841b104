"""The workflows of a tenant's life without servers: the same states, steps that do what a test wants meanwhile."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from tenants.lifecycle import engine, incarnations, keys, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run, Step, Workflow, Workflows
from tenants.lifecycle.registry import TenantSpec
from tenants.process.services import Services
from tenants.store.models import Base, Operation, OperationKind, Tenant, TenantState
from tests.world.registry import World

PANEL = Cause("panel")
ROTATION = {"key_digest": "0" * 64, "overlap": 60.0}
RECORDS = {"tenants", "operations", "audit_entries"}
"""Tables that tell of a tenant when it is gone."""
ADDRESS = {"callback_url": "https://new.example.org/"}


async def _nothing(run: Run) -> None:
    await run.report(1, 1)


@dataclass
class Rehearsal:
    """Workflows whose steps `meanwhile` interrupts. It may raise, or do to the operation what it likes.

    Attributes:
        meanwhile: called in the middle of each step.
        ran: what has been run to its end: (kind, step).
    """

    meanwhile: Callable[[Run], Awaitable[None]] = _nothing

    def __post_init__(self) -> None:
        self.ran: list[tuple[OperationKind, str]] = []

    def workflows(self) -> Workflows:
        """Each kind of operation with its states as in `tenants.workflows.workflows`."""
        kind, state = OperationKind, TenantState
        provision = self._workflow(
            kind.PROVISION,
            {"begin": state.PROVISIONING, "work": None, "activate": state.ACTIVE},
            during=state.PROVISIONING,
            failed=state.FAILED,
        )
        return {
            kind.PROVISION: provision,
            kind.IMPORT: provision,
            kind.SUSPEND: self._workflow(
                kind.SUSPEND,
                {"begin": state.SUSPENDING, "work": None, "finish": state.SUSPENDED},
                during=state.SUSPENDING,
            ),
            kind.RESUME: self._workflow(
                kind.RESUME,
                {"begin": state.RESUMING, "activate": state.ACTIVE, "work": None},
                during=state.RESUMING,
            ),
            kind.DESTROY: self._workflow(
                kind.DESTROY,
                {"begin": state.DESTROYING, "work": None, "forget": state.DESTROYED},
                during=state.DESTROYING,
            ),
            **{
                harmless: self._workflow(harmless, {"work": None, "more": None})
                for harmless in (kind.ROTATE_KEYS, kind.CHANGE_ADDRESS, kind.RECONCILE)
            },
        }

    def _workflow(
        self,
        kind: OperationKind,
        steps: dict[str, TenantState | None],
        *,
        during: TenantState | None = None,
        failed: TenantState | None = None,
    ) -> Workflow:
        return Workflow(tuple(self._step(kind, *step) for step in steps.items()), during=during, failed=failed)

    def _step(self, kind: OperationKind, name: str, state: TenantState | None) -> Step:
        async def run(run: Run) -> None:
            await self.meanwhile(run)
            if state is TenantState.DESTROYED:
                async with run.write() as session:
                    await incarnations.forget(run.services, session, run.instance_name, run.cause)
            elif state is not None:
                await run.enter(state)
            self.ran.append((kind, name))

        return Step(name, run)


class KilledError(BaseException):
    """The process ends here: nothing is recorded any more."""


Request = Callable[[Services, str], Awaitable[Operation | None]]


def _request(kind: OperationKind) -> Request:
    return lambda services, name: requests.request(services, name, kind, PANEL)


async def _put(services: Services, name: str) -> Operation | None:
    return (await registry.put(services, name, TenantSpec({"online_seconds": 60.0}), PANEL)).operation


async def rotate(services: Services, name: str, digest: str = "0" * 64) -> Operation:
    return await keys.rotate_keys(services, name, PANEL, key_digest=digest, overlap=60)


REQUESTS: dict[str, Request] = {
    "put": _put,
    "suspend": _request(OperationKind.SUSPEND),
    "resume": _request(OperationKind.RESUME),
    "destroy": lambda services, name: requests.destroy(services, name, PANEL),
    "rotate": rotate,
    "address": lambda services, name: requests.change_address(services, name, PANEL, ADDRESS["callback_url"]),
    "reconcile": _request(OperationKind.RECONCILE),
}


async def ask(services: Services, what: str, name: str = "acme") -> Operation:
    """Ask for something that makes, or finds, an operation."""
    operation = await REQUESTS[what](services, name)
    assert operation is not None
    return operation


async def finish(world: World, rehearsal: Rehearsal) -> None:
    """Advance everything until all is done, or rests."""
    workflows = rehearsal.workflows()
    for _ in range(400):
        async with world.services.database.read() as session:
            waiting = await session.scalars(select(Operation.id).where(Operation.due_at.is_not(None)))
        left = list(waiting)
        if not left:
            return
        for operation_id in left:
            await engine.advance(world.services, workflows, operation_id)
        world.clock.now += 1
    raise AssertionError(f"still under way: {left}")


async def state_of(services: Services, name: str = "acme") -> TenantState | None:
    async with services.database.read() as session:
        found: TenantState | None = await session.scalar(select(Tenant.state).where(Tenant.instance_name == name))
    return found


async def rows_of(services: Services, name: str) -> dict[str, int]:
    """How many rows each table holds that name the tenant, without those that hold none."""
    tables = [table for table in Base.metadata.sorted_tables if "instance_name" in table.columns]
    async with services.database.read() as session:
        counts = {
            table.name: await session.scalar(
                select(func.count()).select_from(table).where(table.c.instance_name == name)
            )
            for table in tables
        }
    return {table: count for table, count in counts.items() if count}
