"""Import: a tenant that exists in ejabberd, made by another system, is read into the registry.

Nothing in ejabberd is removed, and passwords stay what they are. The rosters are made what they should be; what is in
them stays.
"""

from tenants.accounts import rows
from tenants.core.chunks import chunks
from tenants.core.errors import ConflictError, InvalidInputError
from tenants.core.naming import AccountKind, AccountName, Naming, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Ejabberd
from tenants.lifecycle import operations, registry
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.engine import Run
from tenants.lifecycle.registry import Created, TenantSpec
from tenants.process.services import Services
from tenants.store.models import OperationKind, Tenant

_AT_ONCE = 200
_NAMED = 20


async def start(
    services: Services, instance_name: str, cause: Cause, spec: TenantSpec, *, own_key: bool = True
) -> Created:
    """Start to import the tenant; an import that is under way is returned, without a key.

    Raises:
        InvalidInputError: the name breaks a rule, or ejabberd has nothing of that name.
        ConflictError: the registry has that tenant already.
    """
    registry.check_key(services.settings, instance_name)
    ejabberd = services.ejabberd.at(await registry.wanted_host(services, spec))
    found = [await ejabberd.roster(group) for group in registry.groups(services.naming, instance_name)]
    suffix = services.naming.username_suffix(instance_name)
    if not any(found) and not await ejabberd.bulk.accounts(suffix):
        raise InvalidInputError("instance_name", "ejabberd has neither shared rosters nor accounts of that name")
    try:
        return await registry.create(services, instance_name, spec, cause, own_key=own_key, by=OperationKind.IMPORT)
    except ConflictError:
        async with services.database.read() as session:
            running = await operations.unfinished(session, instance_name, OperationKind.IMPORT)
            if running is None:
                raise
            tenant = await session.get_one(Tenant, instance_name)
        return Created(tenant, running, None, new=False)


async def read_accounts(run: Run) -> None:
    """The step that lets the registry know the tenant's accounts."""
    services = run.services
    names, skipped = await _read(services, await run.ejabberd(), run.instance_name)
    done = 0
    for chunk in chunks(names, _AT_ONCE):
        await rows.adopt(services, run.instance_name, chunk)
        done += len(chunk)
        await run.report(done, len(names))
    await run.tell(accounts=len(names), skipped=len(skipped), skipped_names=skipped[:_NAMED])


async def _read(services: Services, ejabberd: Ejabberd, instance_name: str) -> tuple[list[AccountName], list[str]]:
    """The accounts that are the tenant's; and what bears its name, or is in its rosters, but is no account of its.

    An operator who is in no roster is one whom somebody took out of it: to be let in again is for a person to decide.
    """
    there = await ejabberd.bulk.accounts(services.naming.username_suffix(instance_name))
    members = {
        kind: set(await ejabberd.roster_members(rosters.group_of(services.naming, instance_name, kind)))
        for kind in RosterKind
    }
    names: list[AccountName] = []
    skipped = set().union(*members.values()).difference(there)
    for username in there:
        name = _name(services.naming, username)
        if name and (name.kind is not AccountKind.OPERATOR or username in members[RosterKind.OPERATORS]):
            names.append(name)
        else:
            skipped.add(username)
    return names, sorted(skipped)


def _name(naming: Naming, username: str) -> AccountName | None:
    """What the account is called, when it is one of ours, spelled as we do."""
    try:
        name = naming.parse_username(username)
    except InvalidInputError:
        return None
    return name if naming.username(name) == username else None
