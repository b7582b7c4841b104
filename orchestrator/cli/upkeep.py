"""`orchestrator reconcile`, `drift` and `audit`: is everything as it should be, and who did what."""

from typing import Annotated

import typer

from orchestrator.cli.operations import WaitOption, finish, watched
from orchestrator.cli.running import JsonOption, ReasonOption, cause, run, show
from tenants import audit
from tenants import reconcile as reconciliation
from tenants.models import Operation
from tenants.services import Services

OptionalInstance = Annotated[
    str | None, typer.Argument(metavar="[INSTANCE]", help="This tenant only; all when left out.")
]


def reconcile(
    instance_name: OptionalInstance = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be mended.")] = False,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare tenants with ejabberd, and mend what differs."""

    async def start(services: Services) -> Operation:
        operation = await reconciliation.start(services, cause(reason), instance_name, dry_run=dry_run)
        return await watched(services, operation.id) if wait else operation

    finish(run(start), as_json=as_json)


def drift(
    instance_name: OptionalInstance = None,
    *,
    mended: Annotated[bool, typer.Option("--mended", help="Also what was mended within the last month.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show what differed from ejabberd when it was last compared, and was not mended."""
    found = run(lambda services: reconciliation.drift(services, instance_name, unmended=not mended, limit=limit))
    show(found, ("instance_name", "kind", "subject", "detail", "found_at", "mended_at"), as_json=as_json)


def log(
    instance_name: OptionalInstance = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who did what to which tenant, newest first."""
    found = run(lambda services: audit.entries(services, instance_name, limit=limit))
    columns = ("at", "actor", "action", "instance_name", "old_state", "new_state", "reason", "operation_id")
    show(found, columns, as_json=as_json)
