"""XML-RPC calls about sessions: a virtual one is answered as a real one would be."""

from typing import Any

from defusedxml import ElementTree as DefusedET
from defusedxml.common import DefusedXmlException

from orchestrator.api.lhc.calls import Call
from orchestrator.api.lhc.rpc_wire import COMMAND_FAILED, RpcError
from tenants import admission, visitors
from tenants.errors import InvalidInputError
from tenants.naming import AccountKind

_NICK = "{http://jabber.org/protocol/nick}nick"


async def user_sessions_info(call: Call) -> dict[str, Any]:
    """A virtual session is answered as a real one would be."""
    call.require("user", "host")
    call.check_host()
    name = call.account("user")
    username = call.services.naming.username(name)
    await admission.find(call.services, name.instance)
    found = None if name.kind is AccountKind.OPERATOR else await visitors.find_session(call.services, username)
    if found is None:
        return {"sessions_info": []}
    fields: dict[str, str | int] = {
        "connection": "component",
        "ip": "",
        "port": 0,
        "priority": 0,
        "node": call.services.settings.component_jid,
        "uptime": 0,
        "status": "available",
        "resource": visitors.RESOURCE,
        "statustext": found.status,
    }
    return {"sessions_info": [{"session": [{key: value} for key, value in fields.items()]}]}


async def send_stanza_c2s(call: Call) -> dict[str, Any]:
    """A presence as if the visitor's own client had sent it: a new nick and status."""
    call.require("user", "host", "resource", "stanza")
    call.check_host()
    name = call.account("user")
    tenant = await admission.get(call.services, name.instance, name.kind)
    found = await visitors.find_session(call.services, call.services.naming.username(name))
    if found is None or call.text("resource") != visitors.RESOURCE:
        raise RpcError(COMMAND_FAILED, "no_session")
    try:
        presence = DefusedET.fromstring(call.text("stanza").strip(), forbid_dtd=True)
    except (DefusedET.ParseError, DefusedXmlException, ValueError):
        raise InvalidInputError("stanza", "must be one well-formed XML element") from None
    if presence.tag not in {"presence", "{jabber:client}presence"} or presence.get("type") is not None:
        raise InvalidInputError("stanza", "must be an available presence")
    status = presence.findtext("status") or presence.findtext("{jabber:client}status")
    await visitors.show(call.services, tenant, name, presence.findtext(_NICK) or found.nick, status)
    return {"res": 0}
