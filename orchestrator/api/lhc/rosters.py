"""What both faces do about the two shared rosters of a tenant, with which it begins and ends.

The caller has looked which keys there are, and words the answer.
"""

import asyncio
from collections.abc import Sequence

import structlog

import tenants.ejabberd.rosters
from orchestrator.api.lhc.calls import ApplicationError, Call
from tenants.accounts import accounts, rows
from tenants.core.errors import ForeignNameError, InvalidInputError, NotFoundError, UnavailableError
from tenants.core.naming import AccountName, RosterKind, RosterName
from tenants.core.text import clean
from tenants.ejabberd.client import Roster
from tenants.lifecycle import admission, operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.process.services import Services
from tenants.store.models import OperationState, TenantState

log = structlog.get_logger(__name__)

_WORKFLOW_WAIT = 4.0
"""Seconds that a call waits for its workflow: LHC itself waits 5. After that the work is safely under way."""
_WORKFLOW_POLL = 0.05


async def join(call: Call) -> None:
    """Make `user` a member of the roster `group`: without effect for an account that does not exist."""
    call.check_host()
    name, roster = call.account("user"), call.roster()
    check_member(name, roster)
    await admission.find(call.services.database, name.instance)
    if await rows.find_when_free(call.services, name) is None:
        log.warning("roster member not added: no such account", instance_name=name.instance)
    else:
        await accounts.join_roster(call.services, name)


async def leave(call: Call) -> None:
    """Remove the member: also a success for an unknown user or group; of a tenant in any state."""
    call.check_host()
    name, roster = call.account("user"), call.roster()
    if name.instance != roster.instance:
        raise InvalidInputError("group", "must be of the user's own instance")
    tenant = await registry.find(call.services.database, name.instance)
    if tenant is not None and tenant.state is not TenantState.DESTROYING:
        await accounts.leave_roster(call.services, name, roster)


async def set_up(call: Call, *, label: str, description: str, displayed: Sequence[str]) -> None:
    """The tenant of the roster `group` begins, if it is new; else its roster is written again.

    It does not open a tenant that the panel has suspended: LHC is told so, for whoever looks there. `displayed`: the
    groups that LHC wants it to show. They must be the tenant's own; which ones it shows is ours to know.
    """
    deadline = asyncio.get_running_loop().time() + _WORKFLOW_WAIT
    call.check_host()
    roster = call.roster()
    _check_displayed(call, roster, displayed)
    tenant = await registry.find(call.services.database, roster.instance)
    may_begin = call.hosting_wide and call.services.settings.accept_unknown_tenants
    if tenant is None and not may_begin:
        raise InvalidInputError("group", f"there is no tenant '{roster.instance}', and this key may not begin one")
    if tenant is None or tenant.state in registry.TO_PROVISION:
        # this key is the hosting company's: the tenant gets one of its own when the panel asks for it
        spec = registry.TenantSpec({"xmpp_host": call.host})
        started = await registry.put(call.services, roster.instance, spec, Cause("lhc"), own_key=False)
        if started.operation is not None and not await _finished(call.services, started.operation.id, deadline):
            return
    await admission.get(call.services, roster.instance)
    wanted = tenants.ejabberd.rosters.wanted(call.services.naming, roster.instance, roster.kind)
    written = Roster(clean(label), clean(description), wanted.displayed)
    try:
        async with asyncio.timeout_at(deadline):
            await call.services.ejabberd.at(call.host).create_roster(call.services.naming.group(roster), written)
    except TimeoutError:
        raise UnavailableError("ejabberd does not answer; the roster is as it was") from None


async def delete(call: Call) -> None:
    """The tenant of the roster `group` ends. What LHC removes after it is gone already, or soon."""
    call.check_host()
    deadline = asyncio.get_running_loop().time() + _WORKFLOW_WAIT
    try:
        operation = await requests.destroy(call.services, call.roster().instance, Cause("lhc"))
    except NotFoundError:
        return  # it never was, or an earlier call has ended it
    await _finished(call.services, operation.id, deadline)


async def find(call: Call) -> Roster | None:
    """The roster `group` as ejabberd has it."""
    call.check_host()
    roster = call.roster()
    await admission.find(call.services.database, roster.instance)
    return await call.services.ejabberd.at(call.host).roster(call.services.naming.group(roster))


def names_in(display: str) -> list[str]:
    r"""The groups in a `display` such as `"operators.acme\nvisitors.acme"`.

    The `\n` is a backslash and a letter, whatever the number of backslashes, and of quotes around it all.
    """
    return display.replace("\\n", " ").replace('"', " ").replace("\\", " ").split()


def check_member(name: AccountName, roster: RosterName) -> None:
    """Accounts are members of the one roster of their kind.

    Raises:
        InvalidInputError: it is another one.
    """
    if roster != RosterName(name.roster, name.instance):
        raise InvalidInputError("group", f"must be the {name.roster} roster of the user's own instance")


def _check_displayed(call: Call, roster: RosterName, displayed: Sequence[str]) -> None:
    rule = "operators may show the instance's own two rosters, visitors show none"
    for name in displayed:
        if call.services.naming.parse_group(name, "display").instance != roster.instance:
            raise ForeignNameError("display", rule)
        if roster.kind is RosterKind.VISITORS:
            raise InvalidInputError("display", rule)


async def _finished(services: Services, operation_id: str, deadline: float) -> bool:
    """Wait for the operation. True when it succeeded; False when it goes on in the background.

    `deadline`: on the event loop's clock.

    Raises:
        ApplicationError: it failed.
    """
    while asyncio.get_running_loop().time() < deadline:
        operation = await operations.get(services.database, operation_id)
        if operation.state is OperationState.SUCCEEDED:
            return True
        if operation.state is OperationState.FAILED:
            raise ApplicationError(f"Error: {operation.error}\n")
        await asyncio.sleep(_WORKFLOW_POLL)
    return False
