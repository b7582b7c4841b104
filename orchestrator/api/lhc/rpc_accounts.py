"""XML-RPC calls about accounts and the shared rosters, with ejabberd's arguments and in its shapes."""

import json
from typing import Any

from orchestrator.api.lhc import accounts, rosters
from orchestrator.api.lhc.calls import Call
from orchestrator.api.lhc.rpc_wire import COMMAND_FAILED, DONE, RpcError
from tenants.core.errors import NotFoundError


async def register(call: Call) -> dict[str, Any]:
    """The account exists when this answers. One that is the tenant's already has the password now."""
    call.require("host", "user", "password")
    call.check_host()
    return {"res": 0, "text": f"User {await accounts.register(call)} successfully registered"}


async def unregister(call: Call) -> dict[str, Any]:
    """Also a success for an account that is gone."""
    call.require("host", "user")
    await accounts.unregister(call)
    return {"res": 0, "text": ""}


async def change_password(call: Call) -> dict[str, Any]:
    """The one call in which the password is called otherwise."""
    call.require("host", "user", "newpass")
    try:
        await accounts.change_password(call, call.text("newpass"))
    except NotFoundError:
        raise RpcError(COMMAND_FAILED, "unknown_user") from None
    return DONE


async def srg_user_add(call: Call) -> dict[str, Any]:
    """Without effect for a user that does not exist."""
    call.require("user", "host", "group", "grouphost")
    await rosters.join(call)
    return DONE


async def srg_user_del(call: Call) -> dict[str, Any]:
    """Also a success for an unknown user or group."""
    call.require("user", "host", "group", "grouphost")
    await rosters.leave(call)
    return DONE


async def srg_create(call: Call) -> dict[str, Any]:
    """The tenant begins, if it is new; else its roster is written again."""
    call.require("host", "group", "name", "description", "display")
    displayed = rosters.names_in(call.text("display"))
    await rosters.set_up(call, label=call.text("name"), description=call.text("description"), displayed=displayed)
    return DONE


async def srg_delete(call: Call) -> dict[str, Any]:
    """The tenant ends; the extension calls it twice for each of the two rosters."""
    call.require("host", "group")
    await rosters.delete(call)
    return DONE


async def srg_get_info(call: Call) -> dict[str, Any]:
    """An absent roster is no fault, but has no information."""
    call.require("host", "group")
    found = await rosters.find(call)
    if found is None:
        return {"informations": []}
    displayed = json.dumps(list(found.displayed), separators=(",", ":"))
    fields = {"label": found.label, "displayed_groups": displayed, "description": found.description}
    return {"informations": [{"information": [{"key": key}, {"value": value}]} for key, value in fields.items()]}
