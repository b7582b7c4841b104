"""The workflows of a tenant's life: the steps of each, in their order. A step may run twice, with the same result."""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import update

from tenants.delivery import history
from tenants.lifecycle import operations
from tenants.lifecycle.engine import Run, Step, Workflow, Workflows
from tenants.store.models import OperationKind, Tenant, TenantState
from tenants.workflows import destroy, imports, mending, move, provision, reconcile, suspend


def _always(_given: Mapping[str, Any]) -> bool:
    return True


def _enter(name: str, state: TenantState, when: Callable[[Mapping[str, Any]], bool] = _always) -> Step:
    async def run(run: Run) -> None:
        await run.enter(state)

    return Step(name, run, when)


def _resumes(given: Mapping[str, Any]) -> bool:
    """A tenant that moves while it is suspended stays so."""
    return bool(given["resumes"])


async def _wake_deliveries(run: Run) -> None:
    """Deliver what waited for the tenant, or for its new address, at once."""
    await history.go_on(run.services, run.instance_name)


async def _install_key(run: Run) -> None:
    new: str = run.input["key_digest"]
    async with run.write() as session:
        tenant = await session.get_one(Tenant, run.instance_name)
        if tenant.key_digest != new:
            tenant.previous_key_digest = tenant.key_digest
            tenant.previous_key_until = run.services.clock() + run.input["overlap"]
            tenant.key_digest = new


async def _set_address(run: Run) -> None:
    async with run.write() as session:
        await session.execute(
            update(Tenant)
            .where(Tenant.instance_name == run.instance_name)
            .values(callback_url=run.input["callback_url"], updated_at=run.services.clock())
        )


WORKFLOWS: Workflows = {
    OperationKind.PROVISION: Workflow(
        steps=(
            _enter("begin", TenantState.PROVISIONING),
            *provision.ROSTERS,
            Step("create_operator", provision.create_operator, when=lambda given: "operator" in given),
            Step("verify", provision.verify_rosters),
            _enter("activate", TenantState.ACTIVE),
        ),
        during=TenantState.PROVISIONING,
        failed=TenantState.FAILED,
    ),
    # Suspend, resume and destroy stay where they are when they fail: closed for traffic, to be tried again.
    OperationKind.SUSPEND: Workflow(
        steps=(
            _enter("begin", TenantState.SUSPENDING),
            Step("close_sessions", suspend.close_sessions),
            # last: until now operators are told what becomes of what they write
            Step("shut_out", suspend.shut_out),
            _enter("finish", TenantState.SUSPENDED),
        ),
        during=TenantState.SUSPENDING,
    ),
    OperationKind.RESUME: Workflow(
        steps=(
            _enter("begin", TenantState.RESUMING),
            *provision.ROSTERS,
            Step("let_in", suspend.let_in),
            _enter("activate", TenantState.ACTIVE),
            Step("wake_deliveries", _wake_deliveries),
        ),
        during=TenantState.RESUMING,
    ),
    OperationKind.DESTROY: Workflow(
        steps=(
            _enter("begin", TenantState.DESTROYING),
            Step("close_sessions", suspend.close_sessions),
            Step("clear_other_hosts", destroy.clear_other_hosts),
            Step("remove_rooms", destroy.remove_rooms),
            Step("remove_accounts", destroy.remove_accounts),
            Step("remove_rosters", destroy.remove_rosters),
            Step("verify", destroy.verify),
            Step("forget", destroy.forget),
        ),
        during=TenantState.DESTROYING,
    ),
    # Like suspend it stays where it is when it fails: closed for traffic, to be tried again.
    OperationKind.MOVE: Workflow(
        steps=(
            Step("tell_operators", move.tell_operators),
            Step("close", move.close),
            Step("settle", move.settle),
            Step("close_sessions", suspend.close_sessions),
            Step("suspended", move.suspended),
            Step(operations.HALFWAY, move.make_rosters),
            Step("move_accounts", move.move_accounts),
            Step("make_rooms", move.make_rooms),
            Step("switch", move.switch),
            Step("settle_again", move.settle),
            Step("clear_old", move.clear_old),
            _enter("begin_again", TenantState.RESUMING, _resumes),
            Step("let_in", move.let_in, _resumes),
            _enter("activate", TenantState.ACTIVE, _resumes),
            Step("wake_deliveries", _wake_deliveries, _resumes),
        ),
    ),
    OperationKind.IMPORT: Workflow(
        steps=(
            _enter("begin", TenantState.PROVISIONING),
            Step("read_accounts", imports.read_accounts),
            *provision.ROSTERS,
            Step("verify", provision.verify_rosters),
            _enter("activate", TenantState.ACTIVE),
        ),
        during=TenantState.PROVISIONING,
        failed=TenantState.FAILED,
    ),
    OperationKind.RECONCILE: Workflow(
        steps=(
            Step("compare", reconcile.compare),
            Step("mend", mending.mend, when=lambda given: not given.get("dry_run")),
        )
    ),
    OperationKind.ROTATE_KEYS: Workflow(steps=(Step("install_key", _install_key),)),
    OperationKind.CHANGE_ADDRESS: Workflow(
        steps=(Step("set_address", _set_address), Step("wake_deliveries", _wake_deliveries))
    ),
}
