"""The XML-RPC face: the calls that the extension makes in both of its modes, answered in ejabberd 23.01's shapes."""

import xmlrpc.client
from collections.abc import Awaitable, Callable
from typing import Any
from xml.parsers.expat import ExpatError

import structlog
from defusedxml import ElementTree as DefusedET
from defusedxml.common import DefusedXmlException
from defusedxml.xmlrpc import DefusedExpatParser

from orchestrator.api.json_face import Call
from tenants import admission, registry, visitors
from tenants.errors import DomainError, InvalidInputError
from tenants.naming import AccountKind
from tenants.secrets import same
from tenants.services import Services

log = structlog.get_logger(__name__)

_COMMAND_FAILED = -118
_MISSING_ARGUMENT = -116
_AUTH_PARAMS = 2
_NICK = "{http://jabber.org/protocol/nick}nick"

Handler = Callable[[Call], Awaitable[dict[str, Any]]]


class RpcError(Exception):
    """An XML-RPC fault, with ejabberd's codes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = f"Error {code}\n{text}"


async def answer(services: Services, confined_to: str | None, body: bytes) -> bytes:
    """The whole methodResponse for a methodCall; whatever is wrong is a fault."""
    try:
        method, params = _read(body)
        call = await _authorise(services, confined_to, params)
        await call.count()
        return _write(await _HANDLERS.get(method, _unknown)(call))
    except RpcError as fault:
        return _write(xmlrpc.client.Fault(fault.code, fault.text))
    except DomainError as error:
        return _write(xmlrpc.client.Fault(_COMMAND_FAILED, f"Error {_COMMAND_FAILED}\n{error}"))


def _read(body: bytes) -> tuple[str, list[Any]]:
    unmarshaller = xmlrpc.client.Unmarshaller()
    parser = DefusedExpatParser(unmarshaller, forbid_dtd=True)
    try:
        parser.feed(body)
        parser.close()
        params = list(unmarshaller.close())
        method = unmarshaller.getmethodname()
    except (ExpatError, DefusedXmlException, xmlrpc.client.Error, ValueError, TypeError, LookupError) as error:
        raise RpcError(_COMMAND_FAILED, f"the request is no methodCall: {type(error).__name__}") from None
    if not method:
        raise RpcError(_COMMAND_FAILED, "the request is no methodCall")
    return method, params


async def _authorise(services: Services, confined_to: str | None, params: list[Any]) -> Call:
    """The first of two params holds the credentials: hosting-wide ones, or a tenant's name and own key."""
    if len(params) != _AUTH_PARAMS or not all(isinstance(param, dict) for param in params):
        raise RpcError(_COMMAND_FAILED, "Invalid authentication data")
    credentials, arguments = params
    user, server, password = (str(credentials.get(key, "")) for key in ("user", "server", "password"))
    settings = services.settings
    if server.lower() == settings.xmpp_host:
        hosting_wide = user == settings.rpc_user and same(password, settings.rpc_password.get_secret_value())
        if hosting_wide and confined_to is None:
            return Call(services, arguments, None)
        if confined_to in {None, user} and await registry.opens(services, user, password):
            return Call(services, arguments, user)
    raise RpcError(_COMMAND_FAILED, "Invalid authentication data")


async def _user_sessions_info(call: Call) -> dict[str, Any]:
    """A virtual session is answered as a real one would be."""
    _require(call, "user", "host")
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


async def _send_stanza_c2s(call: Call) -> dict[str, Any]:
    """A presence as if the visitor's own client had sent it: a new nick and status."""
    _require(call, "user", "host", "resource", "stanza")
    call.check_host()
    name = call.account("user")
    tenant = await admission.get(call.services, name.instance, name.kind)
    found = await visitors.find_session(call.services, call.services.naming.username(name))
    if found is None or call.text("resource") != visitors.RESOURCE:
        raise RpcError(_COMMAND_FAILED, "no_session")
    try:
        presence = DefusedET.fromstring(call.text("stanza").strip(), forbid_dtd=True)
    except (DefusedET.ParseError, DefusedXmlException, ValueError):
        raise InvalidInputError("stanza", "must be one well-formed XML element") from None
    if presence.tag not in {"presence", "{jabber:client}presence"} or presence.get("type") is not None:
        raise InvalidInputError("stanza", "must be an available presence")
    status = presence.findtext("status") or presence.findtext("{jabber:client}status")
    await visitors.show(call.services, tenant, name, presence.findtext(_NICK) or found.nick, status)
    return {"res": 0}


async def _unknown(_call: Call) -> dict[str, Any]:
    raise RpcError(_COMMAND_FAILED, "Unknown command")


_HANDLERS: dict[str, Handler] = {
    "user_sessions_info": _user_sessions_info,
    "send_stanza_c2s": _send_stanza_c2s,
}


def _require(call: Call, *keys: str) -> None:
    for key in keys:
        if key not in call.body:
            raise RpcError(_MISSING_ARGUMENT, f"Required attribute '{key}' not found")


def _write(result: dict[str, Any] | xmlrpc.client.Fault) -> bytes:
    value = result if isinstance(result, xmlrpc.client.Fault) else (result,)
    return xmlrpc.client.dumps(value, methodresponse=True, encoding="utf-8").encode()
