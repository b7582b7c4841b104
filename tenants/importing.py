"""Import: a tenant that exists in ejabberd, made by another system, is read into the registry.

Nothing in ejabberd is removed, and passwords stay what they are. The rosters are made what they should be; what is in
them stays.
"""

from tenants import accounts, registry, rosters
from tenants.errors import InvalidInputError
from tenants.models import OperationKind
from tenants.naming import AccountName, RosterKind
from tenants.operations import Run
from tenants.registry import Created, TenantSpec
from tenants.services import Services
from tenants.states import Cause

_AT_ONCE = 200
_NAMED = 20


async def start(
    services: Services, instance_name: str, cause: Cause, spec: TenantSpec, *, own_key: bool = True
) -> Created:
    """Start to import the tenant.

    Raises:
        InvalidInputError: the name breaks a rule, or ejabberd has nothing of that name.
        ConflictError: the registry has that tenant already.
    """
    registry.check_key(services, instance_name)
    found = [await services.ejabberd.roster(group) for group in registry.groups(services, instance_name)]
    suffix = services.naming.username_suffix(instance_name)
    if not any(found) and not await services.ejabberd.bulk.usernames(suffix):
        raise InvalidInputError("instance_name", "ejabberd has neither shared rosters nor accounts of that name")
    return await registry.put(
        services, instance_name, spec, cause, own_key=own_key, must_be_new=True, by=OperationKind.IMPORT
    )


async def read_accounts(run: Run) -> None:
    """The step that lets the registry know the tenant's accounts."""
    services = run.services
    names, skipped = await _read(services, run.instance_name)
    adopted = 0
    for start in range(0, len(names), _AT_ONCE):
        chunk = names[start : start + _AT_ONCE]
        adopted += await accounts.adopt(services, chunk)
        await run.report(start + len(chunk), len(names))
    await run.tell(accounts=len(names), skipped=len(skipped), skipped_names=skipped[:_NAMED])


async def _read(services: Services, instance_name: str) -> tuple[list[AccountName], list[str]]:
    """The accounts that are the tenant's; and what bears its name, or is in its rosters, but is no account of its."""
    there = set(await services.ejabberd.bulk.accounts(services.naming.username_suffix(instance_name)))
    members: set[str] = set()
    for kind in RosterKind:
        members.update(await services.ejabberd.roster_members(rosters.group_of(services.naming, instance_name, kind)))
    names: list[AccountName] = []
    skipped = sorted(members - there)
    for username in sorted(there):
        try:
            name = services.naming.parse_username(username)
        except InvalidInputError:
            skipped.append(username)
            continue
        if services.naming.username(name) == username:
            names.append(name)
        else:
            skipped.append(username)
    return names, skipped
