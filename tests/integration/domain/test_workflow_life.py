"""A tenant's life at random: whatever comes in whatever order, the rules hold, and it can be ended."""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from tenants.core.errors import ConflictError, NotFoundError
from tenants.core.naming import AccountKind
from tenants.lifecycle import engine, operations, requests
from tenants.lifecycle.engine import Run
from tenants.store import claims
from tenants.store.models import (
    UNFINISHED,
    Account,
    AccountState,
    AuditEntry,
    Circuit,
    Drift,
    Operation,
    OperationKind,
    OperationState,
    OperatorPresence,
    StepState,
    TenantState,
    VisitorSession,
)
from tests.world.registry import emptied_world
from tests.world.rehearsal import PANEL, RECORDS, REQUESTS, KilledError, Rehearsal, finish, rotate, rows_of, state_of


class Life(RuleBasedStateMachine):
    """Requests, steps, failures, deaths and second thoughts in any order, on one tenant."""

    portal: BlockingPortal
    database_url: str

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.world = self._stack.enter_context(self.portal.wrap_async_context_manager(emptied_world(self.database_url)))
        self.rehearsal = Rehearsal()

    @rule(what=st.sampled_from(list(REQUESTS)))
    def ask(self, what: str) -> None:
        self._try(REQUESTS[what], self.world.services, "acme")

    @rule(digest=st.sampled_from(["a" * 64, "b" * 64]))
    def rotate(self, digest: str) -> None:
        self._try(rotate, self.world.services, "acme", digest)

    @rule(which=st.integers(0, 3), what=st.sampled_from(["pause", "cancel", "go_on", "retry"]))
    def decide(self, which: int, what: str) -> None:
        """Something is wanted of one of the last operations."""
        found = self._operations()[: which + 1]
        if found:
            self._try(self._decide, what, found[-1].id)

    @rule(which=st.integers(0, 2), fate=st.sampled_from(["well", "well", "well", "fails", "dies"]))
    def step(self, which: int, fate: str) -> None:
        """Somebody advances one of the last operations."""
        found = self._operations()[: which + 1]
        if found:
            self.portal.call(self._advance, found[-1].id, fate)

    @rule(what=st.sampled_from(["pause", "cancel", "destroy", "lost"]))
    def step_while(self, what: str) -> None:
        """Something comes in the middle of a step; or others take the operation over, and finish it."""
        due = [operation.id for operation in reversed(self._operations()) if operation.due_at is not None]
        if due:
            self.portal.call(self._advance, due[0], what)

    @rule(seconds=st.sampled_from([0.4, 3.0, claims.CLAIM_TERM, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.now += seconds

    @precondition(lambda self: self._state() is TenantState.ACTIVE)
    @rule()
    def live(self) -> None:
        """The tenant has something of each kind that a destroy must not leave."""
        self.portal.call(self._live)

    @invariant()
    def one_workflow_at_a_time(self) -> None:
        unfinished = [operation for operation in self._operations() if operation.state in UNFINISHED]
        assert len([operation for operation in unfinished if operation.steps]) <= 1
        assert max(Counter(operation.kind for operation in unfinished).values(), default=0) <= 1
        for operation in unfinished:
            assert (operation.due_at is None) == (operation.state is OperationState.PAUSED), "it would never go on"

    @invariant()
    def what_is_over_is_over(self) -> None:
        for operation in self._operations():
            if operation.state not in UNFINISHED:
                assert (operation.due_at, operation.wanted, operation.claim_token) == (None, None, None)
                assert operation.finished_at is not None
            if operation.state is OperationState.SUCCEEDED:
                assert {step.state for step in operation.steps} == {StepState.SUCCEEDED}
                assert operation.input == {}
            if operation.state is OperationState.CANCELLED:
                assert not (operation.kind is OperationKind.DESTROY and operation.steps), "an end has no way back"

    @invariant()
    def the_audit_log_explains_the_state(self) -> None:
        state: TenantState | None = TenantState.DESTROYED
        for entry in self.portal.call(self._transitions):
            assert entry.old_state is state, f"{entry.old_state} after {state}"
            state = entry.new_state
        assert (self._state() or TenantState.DESTROYED) is state

    @invariant()
    def somebody_sees_to_a_state_that_is_to_pass(self) -> None:
        makes = {OperationKind.PROVISION, OperationKind.DESTROY}
        passing = {TenantState.PENDING: makes, TenantState.PROVISIONING: makes}
        passing[TenantState.DESTROYING] = {OperationKind.DESTROY}
        found, state = self._operations(), self._state()
        if state in passing:
            unfinished = {operation.kind for operation in found if operation.state in UNFINISHED}
            failed = (found[0].kind, found[0].state) == (OperationKind.DESTROY, OperationState.FAILED)
            assert unfinished & passing[state] or (failed and state is TenantState.DESTROYING)

    @invariant()
    def nothing_but_records_is_left_of_a_destroyed_tenant(self) -> None:
        if self._state() is TenantState.DESTROYED:
            assert self.portal.call(rows_of, self.world.services, "acme").keys() <= RECORDS

    def teardown(self) -> None:
        """However it went: it can be ended, and it is."""
        try:
            self._end()
        finally:
            self._stack.close()

    def _end(self) -> None:
        self.world.clock.now += 60
        self._try(REQUESTS["destroy"], self.world.services, "acme")
        for operation in self._operations():
            if operation.state is OperationState.PAUSED or operation.wanted is not None:
                self._try(self._decide, "go_on", operation.id)
        self.portal.call(finish, self.world, Rehearsal())
        assert self._state() in {None, TenantState.DESTROYED}
        assert not [operation for operation in self._operations() if operation.state in UNFINISHED]
        self.nothing_but_records_is_left_of_a_destroyed_tenant()
        self.the_audit_log_explains_the_state()

    def _try(self, function: Callable[..., Awaitable[object]], *arguments: object) -> None:
        with suppress(ConflictError, NotFoundError):
            self.portal.call(function, *arguments)

    async def _decide(self, what: str, operation_id: str) -> None:
        services = self.world.services
        if what == "retry":
            await engine.retry(services, self.rehearsal.workflows(), operation_id, PANEL)
        else:
            await getattr(operations, what)(services, operation_id, PANEL)

    async def _advance(self, operation_id: str, fate: str) -> None:
        async def meanwhile(run: Run) -> None:
            if fate == "fails":
                raise OSError
            if fate == "dies":
                raise KilledError
            if fate == "lost":
                self.world.clock.now += claims.CLAIM_TERM
                await finish(self.world, self.rehearsal)
            elif fate == "destroy":
                await requests.destroy(self.world.services, "acme", PANEL)
            elif fate != "well":
                with suppress(ConflictError):
                    await self._decide(fate, operation_id)
                await run.report(1, 2)

        with suppress(KilledError):
            await engine.advance(self.world.services, Rehearsal(meanwhile).workflows(), operation_id)

    def _operations(self) -> list[Operation]:
        return self.portal.call(lambda: operations.find(self.world.services.database, instance_name="acme", limit=500))

    def _state(self) -> TenantState | None:
        return self.portal.call(state_of, self.world.services)

    async def _transitions(self) -> list[AuditEntry]:
        async with self.world.services.database.read() as session:
            found = select(AuditEntry).where(AuditEntry.action == "state").order_by(AuditEntry.id)
            return list(await session.scalars(found))

    async def _live(self) -> None:
        now, of = self.world.clock(), {"instance_name": "acme"}
        async with self.world.services.database.write() as session:
            await session.merge(
                Account(
                    username="bob.acme",
                    kind=AccountKind.OPERATOR,
                    state=AccountState.ACTIVE,
                    created_at=now,
                    last_active_at=now,
                    **of,
                )
            )
            await session.merge(VisitorSession(username="v", nick="", status="", online_until=now, **of))
            await session.merge(OperatorPresence(username="bob.acme", online=True, **of))
            await session.merge(Circuit(**of))
            await session.merge(Drift(id=1, kind="account", subject="x", found_at=now, **of))


def test_a_life_of_chances_breaks_no_rule(database_url: str) -> None:
    with start_blocking_portal() as portal:
        machine = type("AnyLife", (Life,), {"portal": portal, "database_url": database_url})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12,
                stateful_step_count=30,
                derandomize=True,
                database=None,
                # shrinking what failed takes many minutes: for whoever looks into it
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
