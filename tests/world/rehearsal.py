"""The workflows of a tenant's life without servers: the same states, steps that do what a test wants meanwhile."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenants import registry
from tenants.models import OperationKind, TenantState
from tenants.operations import Run, Step, Workflow, Workflows


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
        """Each kind of operation with its states as in `tenants.workflows`."""
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
                    await registry.forget(run.services, session, run.instance_name, run.cause)
            elif state is not None:
                await run.enter(state)
            self.ran.append((kind, name))

        return Step(name, run)
