"""Reconciliation: what ejabberd holds, compared with what the registry says. `mending` puts it right.

The order of the two makes races harmless: ejabberd is read first, and then the registry, whose rows are there before
their accounts and stay until after them. What is younger than a minute is left alone. What a person must decide is only
reported.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy.exc import IntegrityError

from tenants.core.chunks import chunks
from tenants.lifecycle import hosts, operations, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run
from tenants.process.services import Services
from tenants.store.models import EVERY_TENANT, Operation, OperationKind, TenantState
from tenants.workflows import drift_records, snapshots
from tenants.workflows.drift import Difference, DriftKind, Pictures, Seen

_TENANTS_AT_ONCE = 200
_MOST_DRIFT = 10_000
"""Differences that one run records; the next one finds the rest."""
_NAMED = 20
"""Tenants left out that the operation's result names."""


async def start(
    services: Services, cause: Cause, instance_name: str | None = None, *, dry_run: bool = False, anyway: bool = False
) -> Operation:
    """Start to compare one tenant, or all; a run that is under way is returned. A dry run mends nothing.

    `anyway`: mend however much would be removed or made anew (`reconcile_limit`).

    Raises:
        NotFoundError: there is no such tenant.
        ConflictError: it is being destroyed, or a run of the other sort is under way.
    """
    given = {"dry_run": dry_run, **({"anyway": True} if anyway else {})}
    if instance_name is not None:
        return await requests.start(services, instance_name, OperationKind.RECONCILE, cause, given=given)
    try:
        operation = await _open_for_all(services, cause, given)
    except IntegrityError:
        # two asked at the same moment, and no tenant's row is locked for this; now the first one's operation is there
        operation = await _open_for_all(services, cause, given)
    await operations.wake(services.wake, operation)
    return operation


async def _open_for_all(services: Services, cause: Cause, given: dict[str, bool]) -> Operation:
    async with services.database.write() as session:
        return await operations.open_operation(
            services.clock, session, EVERY_TENANT, OperationKind.RECONCILE, cause, given=given
        )


async def compare(run: Run) -> None:
    """The step that finds differences and records them."""
    services, scope = run.services, run.instance_name
    started = services.clock()
    seen = await snapshots.of_ejabberd(services, scope)
    tenants = await snapshots.states(services.database, scope)
    host_of = await hosts.of_many(services, tenants.keys())
    # a run for one tenant has waited for its other operations; a run for all leaves such tenants out
    busy = await snapshots.busy(services.database, scope) if scope == EVERY_TENANT else set()
    # of a host that was not looked at nothing is known: least of all that what was there is lost
    unseen = {name for name, host in host_of.items() if host not in seen.hosts}
    foreign = await snapshots.foreign(services, tenants)
    skipped = sorted(busy & tenants.keys() | snapshots.between(tenants) | foreign | unseen)
    names = sorted(tenants.keys() - set(skipped))
    at_home = {name: seen.take(host_of[name], name) for name in tenants}
    found = [(_owner(one.subject, tenants), one) for one in seen.unreadable]
    found += [_elsewhere(*one, tenants) for one in seen.rest() if one[1] not in skipped]
    room = _MOST_DRIFT - await drift_records.record(services.database, found[:_MOST_DRIFT], started)
    count = len(found)
    compared = 0
    for page in chunks(names, _TENANTS_AT_ONCE):
        known, known_rooms = await snapshots.accounts_of(services, page), await snapshots.rooms_of(services, page)
        found = []
        for name in page:
            pictures = Pictures(services.naming, name, at_home.pop(name), known[name], started, known_rooms[name])
            found += [(name, difference) for difference in _differences(pictures, tenants[name])]
        count += len(found)
        room -= await drift_records.record(services.database, found[:room], started)
        compared += len(page)
        await run.report(compared, len(names))
    await drift_records.forget_gone(services.database, scope, skipped, started)
    named = {"skipped_names": skipped[:_NAMED]} if skipped else {}
    await run.tell(compared=compared, skipped=len(skipped), found=count, **named)


def _elsewhere(
    host: str, instance_name: str, there: Seen, tenants: Mapping[str, TenantState]
) -> tuple[str, Difference]:
    """What bears a name on a host where no tenant of that name lives."""
    if instance_name in tenants:
        return instance_name, Difference(DriftKind.OTHER_HOST, host, there.counts())
    return instance_name, Difference(DriftKind.UNKNOWN_TENANT, instance_name, f"{there.counts()} at {host}")


def _owner(username: str, tenants: Mapping[str, TenantState]) -> str:
    """The tenant whose name ends the username; EVERY_TENANT when there is none."""
    instance_name = username.rpartition(".")[2]
    return instance_name if instance_name in tenants else EVERY_TENANT


def _differences(pictures: Pictures, state: TenantState) -> Iterable[Difference]:
    if state is not TenantState.DESTROYED:
        return pictures.differences()
    # all accounts of a standalone system bear its name, also those that are nobody's
    there, hosted = pictures.there, pictures.naming.hosting
    left = there.rosters or there.rooms or (there.accounts and hosted)
    return [Difference(DriftKind.LEFTOVER, pictures.instance_name, there.counts())] if left else []
