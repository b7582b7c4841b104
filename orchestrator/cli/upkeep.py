"""`orchestrator migrate`, `reconcile`, `drift` and `audit`: is everything as it should be, and who did what."""

from typing import Annotated

import typer

from config.ejabberd_storage import EjabberdStorage
from orchestrator.cli.operations import WaitOption, show_started
from orchestrator.cli.running import (
    Exit,
    JsonOption,
    OptionalInstance,
    ReasonOption,
    cause,
    complain,
    data_of,
    fail,
    load_settings,
    messages,
    run,
    show_json,
    show_limit,
    show_line,
    show_table,
)
from orchestrator.launcher import postgresql
from tenants.lifecycle import audit, operations, registry
from tenants.process.services import Services
from tenants.store.migrate import MigrationError, upgrade
from tenants.store.models import EVERY_TENANT, MAX_ID, AuditEntry, Drift, OperationKind
from tenants.workflows import drift_records
from tenants.workflows import reconcile as reconciliation

_DRIFT = ("instance_name", "kind", "subject", "detail", "found_at", "mended_at")
_AUDIT = ("id", "at", "instance_name", "action", "old_state", "new_state", "actor", "reason")


def migrate(
    *,
    backup: Annotated[bool, typer.Option(help="Make a copy of the database first, if it has to be changed.")] = True,
) -> None:
    """Bring the database to the newest schema; make ejabberd's, when there is a password for it.

    A standalone system gets its one tenant.
    """
    settings = load_settings()
    try:
        kept = upgrade(backup=backup)
    except MigrationError as error:
        raise fail(str(error), Exit.FAILED) from None
    if kept is not None:
        messages.print(f"A copy of the database as it was before is {kept}", soft_wrap=True)
    if password := settings.ejabberd_database_password.get_secret_value():
        address = settings.database_url.get_secret_value().replace("+psycopg", "", 1)
        postgresql.let_ejabberd_in(address, password)
    if not settings.hosting:
        run(registry.begin_standalone)


def move_storage(
    target: Annotated[EjabberdStorage, typer.Argument(help="Where all of it is to be kept from now on.")],
) -> None:
    """Have ejabberd move all that it keeps; it serves nobody from then on, until it is started with that storage.

    For an ejabberd that runs by itself. `script/up --move-storage` does it for a system of its own.
    """
    moved = run(lambda services: services.ejabberd.move_storage(target))
    for kind, count in moved.items():
        show_line(f"{kind.replace('_', ' ')}: {count}")
    show_line(f"Now start ejabberd with {target}.")


def reconcile(
    instance_name: OptionalInstance = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only find out what would be mended.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Mend however much would be removed or made anew.")] = False,
    wait: WaitOption = False,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare tenants with ejabberd, and mend what differs; `orchestrator drift` shows what was found."""
    operation = run(
        lambda services: reconciliation.start(services, cause(reason), instance_name, dry_run=dry_run, anyway=anyway),
    )
    show_started(operation, wait=wait, as_json=as_json)


def drift(
    instance_name: OptionalInstance = None,
    *,
    mended: Annotated[bool, typer.Option("--mended", help="Also what was mended within the last month.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show what differed from ejabberd when it was last compared, and was not mended."""

    async def read(services: Services) -> tuple[list[Drift], int]:
        found = await drift_records.find(services.database, instance_name, unmended=not mended, limit=limit)
        scope = instance_name or EVERY_TENANT
        latest = await operations.latest_result(services.database, scope, OperationKind.RECONCILE)
        return found, latest.get("held", 0)

    found, held = run(read)
    if as_json:
        show_json([data_of(one, _DRIFT) for one in found])
    else:
        show_table(found, _DRIFT)
        show_limit(found, limit)
    if held:
        complain(
            f"Nothing was mended: {held} would be removed or made anew, which is too much at once. If it is to be:"
            " `orchestrator reconcile --anyway`."
        )


def log(
    instance_name: OptionalInstance = None,
    *,
    before: Annotated[int | None, typer.Option(min=1, max=MAX_ID, help="Older than the one of this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who did what to which tenant, newest first; also to tenants that are gone."""

    async def read(services: Services) -> list[AuditEntry]:
        if instance_name is not None:
            await registry.get_known(services.database, instance_name)
        return await audit.entries(services.database, instance_name, before=before, limit=limit)

    found = run(read)
    if as_json:
        show_json([data_of(entry, (*_AUDIT, "operation_id")) for entry in found])
    else:
        show_table(found, _AUDIT if instance_name is None else [name for name in _AUDIT if name != "instance_name"])
        show_limit(found, limit)
