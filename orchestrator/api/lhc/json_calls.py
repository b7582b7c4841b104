"""The JSON face: what the extension sends with `handler = node`, answered as its own server answered.

One handler per path; each takes the decoded body and gives the answer's `msg`, or None for the plain `ok`.
"""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from orchestrator.api.lhc import accounts, rosters
from orchestrator.api.lhc.calls import ApplicationError, Call
from tenants.core.errors import InvalidInputError, NotFoundError, TakenError
from tenants.core.naming import AccountKind, AccountName
from tenants.core.text import DEFAULT_NICK
from tenants.visitors import messages, page_views
from tenants.visitors.page_view_request import DEFAULT_STATUS
from tenants.visitors.page_views import WrongPasswordError

log = structlog.get_logger(__name__)

Handler = Callable[[Call], Awaitable[str | None]]


async def page_view(call: Call) -> None:
    """`/xmpp`: the visitor is on a page. A wrong password changes nothing, and is answered `ok` as well."""
    call.require("jid", "pass")
    visitor = call.visitor("jid")
    with _wrong_password_ignored(visitor):
        await page_views.view_page(
            call.services,
            visitor,
            password=call.text("pass"),
            nick=call.text("nick", DEFAULT_NICK),
            status=call.text("status", DEFAULT_STATUS),
        )


async def send_message(call: Call) -> None:
    """`/xmpp-send-message`: the visitor writes to an operator. A wrong password is answered as in `page_view`."""
    call.require("jid", "pass", "operator_username", "message")
    visitor = call.visitor("jid")
    with _wrong_password_ignored(visitor):
        await messages.write(
            call.services,
            visitor,
            call.account("operator_username"),
            body=call.text("message"),
            password=call.text("pass"),
            nick=call.text("nick", DEFAULT_NICK),
            status=call.text("status") if "status" in call.body else None,
            field="operator_username",
        )


async def register_online_visitor(call: Call) -> str:
    """`/xmpp-register-online-visitor`: a new visitor or chat account, a contact of the operators, online at once."""
    call.require("user", "host", "password", "group")
    _check_virtual_host(call)
    name, roster = call.account("user"), call.roster()
    if name.kind is AccountKind.OPERATOR:
        raise InvalidInputError("user", "must be visitor.[id] or visitor.[id].chat")
    rosters.check_member(name, roster)
    nick, status = call.text("nick", DEFAULT_NICK), call.text("status")
    with _taken_named():
        await page_views.register_online(call.services, name, password=call.text("password"), nick=nick, status=status)
    return ""


async def register(call: Call) -> str:
    """`/xmpp-register`: an account, of an operator as a rule."""
    call.require("user", "host", "password")
    _check_virtual_host(call)
    with _taken_named():
        return f"User {await accounts.register(call)} successfully registered\n"


async def change_password(call: Call) -> str:
    """`/xmpp-change-password`."""
    call.require("user", "host", "password")
    try:
        await accounts.change_password(call, call.text("password"))
    except NotFoundError:
        raise ApplicationError('{not_found,"unknown_user"}\n') from None
    return ""


async def unregister(call: Call) -> str:
    """`/xmpp-unregister`: also a success for an account that is gone."""
    call.require("user", "host")
    await accounts.unregister(call)
    return ""


async def assign_to_roster(call: Call) -> str:
    """`/xmpp-assign-user-to-roaster`: without effect for a user that does not exist."""
    call.require("user", "host", "group", "grouphost")
    await rosters.join(call)
    return ""


async def remove_from_roster(call: Call) -> str:
    """`/xmpp-delete-user-from-roaster`: also a success for an unknown user or group."""
    call.require("user", "host", "grouphost", "group")
    await rosters.leave(call)
    return ""


async def set_up_rosters(call: Call) -> str:
    """`/xmpp-setup-instance-roasters`: the tenant begins, if it is new; else its roster is written again."""
    call.require("group", "host", "name", "desc", "display")
    label, description = call.text("name"), call.text("desc")
    await rosters.set_up(call, label=label, description=description, displayed=_displayed(call))
    return ""


async def delete_rosters(call: Call) -> str:
    """`/xmpp-delete-instance-roasters`: the tenant ends."""
    call.require("group", "host")
    await rosters.delete(call)
    return ""


async def roster_exists(call: Call) -> str:
    """`/xmpp-does-shared-roaster-exists`: its description as ejabberdctl prints it; an absent one is an error."""
    call.require("group", "host")
    found = await rosters.find(call)
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


@contextmanager
def _wrong_password_ignored(visitor: AccountName) -> Iterator[None]:
    """LHC cannot do anything about it."""
    try:
        yield
    except WrongPasswordError:
        log.warning("wrong password of a visitor, ignored", instance_name=visitor.instance)


@contextmanager
def _taken_named() -> Iterator[None]:
    try:
        yield
    except TakenError as error:
        raise ApplicationError(f"Error: conflict: {error}\n") from None


def _check_virtual_host(call: Call) -> None:
    if call.text("host").lower() != call.host:
        raise ApplicationError("Error: cannot_register: Unknown virtual host\n")


def _displayed(call: Call) -> list[str]:
    names = call.body.get("display_array")
    if names is None:
        return rosters.names_in(call.text("display"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidInputError("display_array", "must be a list of strings")
    return names
