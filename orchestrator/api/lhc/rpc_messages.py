"""XML-RPC's `send_message`, whose arguments say what kind of message it is."""

from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.api.lhc.calls import Call
from orchestrator.api.lhc.rpc_rooms import send_groupchat
from orchestrator.api.lhc.rpc_sessions import has_browser
from orchestrator.api.lhc.rpc_wire import DONE
from tenants.core.errors import InvalidInputError
from tenants.visitors import messages


async def send_message(call: Call) -> dict[str, Any]:
    """A success whether or not it can be delivered: what comes back is kept for people to see."""
    call.require("type", "from", "to", "subject", "body")
    send = _BY_TYPE.get(call.text("type"))
    if send is None:
        raise InvalidInputError("type", f"must be one of {', '.join(sorted(_BY_TYPE))}")
    await send(call)
    return DONE


async def _chat(call: Call) -> None:
    """A visitor writes to an operator. The account is made if need be: LHC brings no password, and asks for none."""
    visitor = call.visitor("from")
    operator, body = call.account("to"), call.text("body")
    await messages.write(
        call.services,
        visitor,
        operator,
        body=body,
        password=None,
        nick=None,
        status=None,
        field="to",
        has_browser=await has_browser(call, visitor),
    )


_BY_TYPE: dict[str, Callable[[Call], Awaitable[None]]] = {"chat": _chat, "groupchat": send_groupchat}
