"""XML-RPC calls about sessions: virtual ones and those of clients, which a visitor may both have at once."""

import asyncio
from typing import Any
from xml.etree.ElementTree import Element

import structlog
from defusedxml import ElementTree as DefusedET
from defusedxml.common import DefusedXmlException

from orchestrator.api.lhc.calls import Call
from orchestrator.api.lhc.rpc_wire import COMMAND_FAILED, DONE, RpcError, mend
from tenants.core.errors import ForeignNameError, InvalidInputError
from tenants.core.naming import AccountName
from tenants.ejabberd.client import ClientConnection
from tenants.ejabberd.errors import EjabberdUnavailableError, NoSessionError
from tenants.lifecycle import admission
from tenants.visitors import presence

log = structlog.get_logger(__name__)

_CLIENT = "{jabber:client}"
_NICK = "{http://jabber.org/protocol/nick}nick"
_EJABBERD_SECONDS = 2.0
"""What ejabberd may take to say who is there: LHC waits 5 s, and does not begin the chat when there is no answer."""


async def user_sessions_info(call: Call) -> dict[str, Any]:
    """All sessions of the user; none of a user who is unknown."""
    call.require("host", "user")
    call.check_host()
    name = call.account("user")
    tenant = await admission.find(call.services.database, name.instance)
    if tenant is None:
        return {"sessions_info": []}
    found = [_of_client(connection) for connection in await _connections(call, name)]
    virtual = await presence.find_session(call.services, name)
    if virtual is not None:
        found.append(_of_virtual(virtual.status, call.services.settings.component_jid))
    elif not found and not admission.refusal(tenant, name.kind) and await presence.has_account(call.services, name):
        # LHC asks before the first message, to say who writes: of a visitor without sessions it would say nothing
        found.append(_of_virtual("", call.services.settings.component_jid))
    return {"sessions_info": [{"session": [{key: value} for key, value in session.items()]} for session in found]}


async def send_stanza_c2s(call: Call) -> dict[str, Any]:
    """A presence as if the visitor's own client had sent it: a new nick and status. No other stanza, and to nobody.

    ejabberd's own command of that name sends it *to* the client, so that no operator would see it.
    """
    call.require("host", "user", "resource", "stanza")
    call.check_host()
    name, resource = call.account("user"), call.text("resource")
    nick, status = _nick_and_status(call.text("stanza"))
    try:
        await presence.change(call.services, name, resource, nick=nick, status=status)
    except NoSessionError:
        raise RpcError(COMMAND_FAILED, "no_session") from None
    return DONE


async def has_browser(call: Call, name: AccountName) -> bool:
    """Whether operators see the visitor by its own client alone. ejabberd is asked if no other session is known."""
    if await presence.find_session(call.services, name) is not None:
        return False
    return any(one.show != "unavailable" for one in await _connections(call, name))


async def _connections(call: Call, name: AccountName) -> list[ClientConnection]:
    """What ejabberd knows. One that is away has no sessions, and one that hangs must not keep a chat from beginning."""
    try:
        async with asyncio.timeout(_EJABBERD_SECONDS):
            return await call.services.ejabberd.at(call.host).connections(call.services.naming.username(name))
    except (EjabberdUnavailableError, TimeoutError) as error:
        log.warning("ejabberd does not say who is there", error=type(error).__name__)
        return []


def _of_client(connection: ClientConnection) -> dict[str, str | int]:
    return {
        "connection": connection.transport,
        "ip": connection.ip,
        "port": connection.port,
        "priority": connection.priority,
        "node": connection.node,
        "uptime": connection.seconds,
        "status": connection.show,
        "resource": connection.resource,
        "statustext": connection.status,
    }


def _of_virtual(status: str, node: str) -> dict[str, str | int]:
    return {
        "connection": "component",
        "ip": "",
        "port": 0,
        "priority": 0,
        "node": node,
        "uptime": 0,
        "status": "available",
        "resource": presence.RESOURCE,
        "statustext": status,
    }


def _nick_and_status(stanza: str) -> tuple[str | None, str | None]:
    """What the presence says of them; None where it says nothing. All else in it is left out.

    Raises:
        InvalidInputError: it is no presence that anybody may be sent.
    """
    try:
        element: Element = DefusedET.fromstring(mend(stanza).strip(), forbid_dtd=True)
    except (DefusedET.ParseError, DefusedXmlException, ValueError):
        raise InvalidInputError("stanza", "must be one well-formed XML element") from None
    if element.tag not in {"presence", f"{_CLIENT}presence"} or element.get("type") is not None:
        raise InvalidInputError("stanza", "must be an available presence")
    if element.get("to") is not None or element.get("from") is not None:
        raise ForeignNameError("stanza", "must be addressed to nobody: it is for the visitor's own contacts")
    status = element.findtext("status")
    return element.findtext(_NICK) or None, status if status is not None else element.findtext(f"{_CLIENT}status")
