"""The JSON face: what the extension sends with `handler = node`, answered as its own server answered.

One handler per path; each takes the decoded body and gives the answer's `msg`, or None for the plain `ok`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable

import structlog

from orchestrator.api.lhc.calls import ApplicationError, Call
from tenants import accounts, admission, operations, registry, rosters, visitors
from tenants.ejabberd import Roster
from tenants.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from tenants.models import OperationState, Tenant, TenantState
from tenants.naming import AccountKind, AccountName, RosterKind, RosterName
from tenants.services import Services
from tenants.states import Cause

log = structlog.get_logger(__name__)

_WORKFLOW_WAIT = 4.0
"""Seconds that a call waits for its workflow: LHC itself waits 5. After that the work is safely under way."""
_WORKFLOW_POLL = 0.05

Handler = Callable[[Call], Awaitable[str | None]]


async def page_view(call: Call) -> None:
    """`/xmpp`: the visitor is on a page."""
    call.require("jid", "pass")
    tenant, visitor = await _visitor(call)
    nick = call.text("nick", visitors.DEFAULT_NICK)
    status = call.text("status", visitors.DEFAULT_STATUS)
    await visitors.check_room(call.services, tenant, visitor)
    if await _may_speak(call, tenant, visitor, nick):
        await visitors.show(call.services, tenant, visitor, nick, status)


async def send_message(call: Call) -> None:
    """`/xmpp-send-message`: the visitor writes to an operator."""
    call.require("jid", "pass", "operator_username", "message")
    tenant, visitor = await _visitor(call)
    operator = call.account("operator_username")
    if operator.kind is not AccountKind.OPERATOR or operator.instance != visitor.instance:
        raise InvalidInputError("operator_username", "must be an operator of the visitor's own instance")
    nick = call.text("nick", visitors.DEFAULT_NICK)
    status = call.text("status") if "status" in call.body else None
    message = call.text("message")
    if await _may_speak(call, tenant, visitor, nick):
        await visitors.send(call.services, tenant, visitor, operator, body=message, nick=nick, status=status)


async def register_online_visitor(call: Call) -> str:
    """`/xmpp-register-online-visitor`: a new visitor or chat account, a contact of the operators, online at once."""
    call.require("user", "host", "password", "group")
    _check_virtual_host(call)
    name, roster = call.account("user"), call.roster()
    if name.kind is AccountKind.OPERATOR:
        raise InvalidInputError("user", "must be visitor.[id] or visitor.[id].chat")
    _check_roster(name, roster)
    nick, status = call.text("nick", visitors.DEFAULT_NICK), call.text("status")
    password = call.text("password")
    tenant = await admission.get(call.services, name.instance, name.kind)
    await visitors.check_room(call.services, tenant, name)
    await _register(call, tenant, name, password)
    await accounts.join_roster(call.services, name, nick)
    await visitors.show(call.services, tenant, name, nick, status)
    return ""


async def register(call: Call) -> str:
    """`/xmpp-register`: an account, of an operator as a rule."""
    call.require("user", "host", "password")
    _check_virtual_host(call)
    name, password = call.account("user"), call.text("password")
    await _register(call, await admission.get(call.services, name.instance, name.kind), name, password)
    username = call.services.naming.username(name)
    return f"User {username}@{call.services.settings.xmpp_host} successfully registered\n"


async def change_password(call: Call) -> str:
    """`/xmpp-change-password`."""
    call.require("user", "host", "password")
    call.check_host()
    name, password = call.account("user"), call.text("password")
    await admission.find(call.services, name.instance)
    try:
        await accounts.change_password(call.services, name, password)
    except NotFoundError:
        raise ApplicationError('{not_found,"unknown_user"}\n') from None
    return ""


async def unregister(call: Call) -> str:
    """`/xmpp-unregister`: also a success for an account that is gone.

    Of a tenant in any state: LHC asks once, and an account that it has forgotten would stay for ever.
    """
    call.require("user", "host")
    call.check_host()
    await accounts.remove(call.services, call.account("user"))
    return ""


async def assign_to_roster(call: Call) -> str:
    """`/xmpp-assign-user-to-roaster`: without effect for a user that does not exist."""
    call.require("user", "host", "group", "grouphost")
    call.check_host()
    name, roster = call.account("user"), call.roster()
    _check_roster(name, roster)
    await admission.find(call.services, name.instance)
    if await accounts.find_settled(call.services, name) is None:
        log.warning("roster member not added: no such account", instance_name=name.instance)
    else:
        await accounts.join_roster(call.services, name)
    return ""


async def remove_from_roster(call: Call) -> str:
    """`/xmpp-delete-user-from-roaster`: also a success for an unknown user or group; of a tenant in any state."""
    call.require("user", "host", "grouphost", "group")
    call.check_host()
    name, roster = call.account("user"), call.roster()
    if name.instance != roster.instance:
        raise InvalidInputError("group", "must be of the user's own instance")
    tenant = await registry.find(call.services, name.instance)
    if tenant is not None and tenant.state is not TenantState.DESTROYING:
        await accounts.leave_roster(call.services, name, roster)
    return ""


async def set_up_rosters(call: Call) -> str:
    """`/xmpp-setup-instance-roasters`: the tenant begins, if it is new; else its roster is written again.

    It does not open a tenant that the panel has suspended: LHC is told so, for whoever looks there.
    """
    deadline = asyncio.get_running_loop().time() + _WORKFLOW_WAIT
    call.require("group", "host", "name", "desc", "display")
    call.check_host()
    roster = call.roster()
    label, description = visitors.clean(call.text("name")), visitors.clean(call.text("desc"))
    _check_display(call, roster)
    tenant = await registry.find(call.services, roster.instance)
    may_begin = call.confined_to is None and call.services.settings.accept_unknown_tenants
    if tenant is None and not may_begin:
        raise InvalidInputError("group", f"there is no tenant '{roster.instance}', and this key may not begin one")
    if tenant is None or tenant.state in registry.TO_PROVISION:
        # this key is the hosting company's: the tenant gets one of its own when the panel asks for it
        started = await registry.put(call.services, roster.instance, registry.TenantSpec(), Cause("lhc"), own_key=False)
        if started.operation is not None and not await _finished(call.services, started.operation.id, deadline):
            return ""
    await admission.get(call.services, roster.instance)
    wanted = rosters.wanted(call.services.naming, roster.instance, roster.kind)
    try:
        async with asyncio.timeout_at(deadline):
            await call.services.ejabberd.create_roster(
                call.services.naming.group(roster), Roster(label, description, wanted.displayed)
            )
    except TimeoutError:
        raise UnavailableError("ejabberd does not answer; the roster is as it was") from None
    return ""


async def delete_rosters(call: Call) -> str:
    """`/xmpp-delete-instance-roasters`: the tenant ends. What LHC removes after it is gone already, or soon."""
    call.require("group", "host")
    call.check_host()
    deadline = asyncio.get_running_loop().time() + _WORKFLOW_WAIT
    roster = call.roster()
    try:
        operation = await registry.destroy(call.services, roster.instance, Cause("lhc"))
    except NotFoundError:
        return ""  # it never was, or an earlier call has ended it
    await _finished(call.services, operation.id, deadline)
    return ""


async def roster_exists(call: Call) -> str:
    """`/xmpp-does-shared-roaster-exists`: its description as ejabberdctl prints it; an absent one is an error."""
    call.require("group", "host")
    call.check_host()
    roster = call.roster()
    await admission.find(call.services, roster.instance)
    found = await call.services.ejabberd.roster(call.services.naming.group(roster))
    if found is None:
        raise ApplicationError("")
    displayed = json.dumps(list(found.displayed), separators=(",", ":"))
    return f"label\t{found.label}\ndisplayed_groups\t{displayed}\ndescription\t{found.description}\n"


HANDLERS: dict[str, Handler] = {
    "xmpp": page_view,
    "xmpp-send-message": send_message,
    "xmpp-register-online-visitor": register_online_visitor,
    "xmpp-register": register,
    "xmpp-change-password": change_password,
    "xmpp-unregister": unregister,
    "xmpp-assign-user-to-roaster": assign_to_roster,
    "xmpp-delete-user-from-roaster": remove_from_roster,
    "xmpp-setup-instance-roasters": set_up_rosters,
    "xmpp-delete-instance-roasters": delete_rosters,
    "xmpp-does-shared-roaster-exists": roster_exists,
}


async def _visitor(call: Call) -> tuple[Tenant, AccountName]:
    name = call.account("jid")
    if name.kind is AccountKind.OPERATOR:
        raise InvalidInputError("jid", "must be a visitor's or chat's account")
    return await admission.get(call.services, name.instance, name.kind), name


async def _may_speak(call: Call, tenant: Tenant, visitor: AccountName, nick: str) -> bool:
    """A wrong password changes nothing and is answered `ok`: LHC cannot do anything about it."""
    if await accounts.ensure_visitor(call.services, tenant, visitor, call.text("pass"), nick):
        return True
    log.warning("wrong password of a visitor, ignored", instance_name=visitor.instance)
    return False


async def _register(call: Call, tenant: Tenant, name: AccountName, password: str) -> None:
    try:
        await accounts.register(call.services, tenant, name, password)
    except ConflictError as error:
        raise ApplicationError(f"Error: conflict: {error}\n") from None


async def _finished(services: Services, operation_id: str, deadline: float) -> bool:
    """Wait for the operation. True when it succeeded; False when it goes on in the background.

    `deadline`: on the event loop's clock.

    Raises:
        ApplicationError: it failed.
    """
    while asyncio.get_running_loop().time() < deadline:
        operation = await operations.get(services, operation_id)
        if operation.state is OperationState.SUCCEEDED:
            return True
        if operation.state is OperationState.FAILED:
            raise ApplicationError(f"Error: {operation.error}\n")
        await asyncio.sleep(_WORKFLOW_POLL)
    return False


def _check_virtual_host(call: Call) -> None:
    if call.text("host").lower() != call.services.settings.xmpp_host:
        raise ApplicationError("Error: cannot_register: Unknown virtual host\n")


def _check_roster(name: AccountName, roster: RosterName) -> None:
    if roster != RosterName(name.roster, name.instance):
        raise InvalidInputError("group", f"must be the {name.roster} roster of the user's own instance")


def _check_display(call: Call, roster: RosterName) -> None:
    """The groups to display must be the tenant's own; which ones it shows is ours to know."""
    names = call.body.get("display_array")
    if names is None:
        # "\"operators.acme\\nvisitors.acme\"": whatever the number of quotes and backslashes
        names = call.text("display").replace("\\n", " ").replace('"', " ").replace("\\", " ").split()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError("display_array", "must be a list of strings")
    for name in names:
        shown = call.services.naming.parse_group(name, "display")
        if shown.instance != roster.instance or roster.kind is RosterKind.VISITORS:
            raise InvalidInputError("display", "operators may show the instance's own two rosters, visitors show none")
