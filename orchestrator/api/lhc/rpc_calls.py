"""The XML-RPC face: the calls that the extension makes in both of its modes, answered in ejabberd 23.01's shapes."""

import xmlrpc.client
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from orchestrator.api.lhc import rpc_sessions
from orchestrator.api.lhc.calls import Call, MissingKeyError
from orchestrator.api.lhc.rpc_wire import COMMAND_FAILED, MISSING_ARGUMENT, RpcError, read, write
from tenants import registry
from tenants.errors import DomainError
from tenants.secrets import same
from tenants.services import Services

log = structlog.get_logger(__name__)

_AUTH_PARAMS = 2

Handler = Callable[[Call], Awaitable[dict[str, Any]]]


async def answer(services: Services, confined_to: str | None, body: bytes) -> bytes:
    """The whole methodResponse for a methodCall; whatever is wrong is a fault."""
    try:
        method, params = read(body)
        call = await _authorise(services, confined_to, params)
        await call.count()
        return write(await _HANDLERS.get(method, _unknown)(call))
    except RpcError as fault:
        return write(xmlrpc.client.Fault(fault.code, fault.text))
    except MissingKeyError as error:
        text = f"Error {MISSING_ARGUMENT}\nRequired attribute '{error.key}' not found"
        return write(xmlrpc.client.Fault(MISSING_ARGUMENT, text))
    except DomainError as error:
        return write(xmlrpc.client.Fault(COMMAND_FAILED, f"Error {COMMAND_FAILED}\n{error}"))


async def _authorise(services: Services, confined_to: str | None, params: list[Any]) -> Call:
    """The first of two params holds the credentials: hosting-wide ones, or a tenant's name and own key."""
    if len(params) != _AUTH_PARAMS or not all(isinstance(param, dict) for param in params):
        raise RpcError(COMMAND_FAILED, "Invalid authentication data")
    credentials, arguments = params
    user, server, password = (str(credentials.get(key, "")) for key in ("user", "server", "password"))
    settings = services.settings
    if server.lower() == settings.xmpp_host:
        hosting_wide = user == settings.rpc_user and same(password, settings.rpc_password.get_secret_value())
        if hosting_wide and confined_to is None:
            return Call(services, arguments, None)
        if confined_to in {None, user} and await registry.opens(services, user, password):
            return Call(services, arguments, user)
    raise RpcError(COMMAND_FAILED, "Invalid authentication data")


async def _unknown(_call: Call) -> dict[str, Any]:
    raise RpcError(COMMAND_FAILED, "Unknown command")


_HANDLERS: dict[str, Handler] = {
    "user_sessions_info": rpc_sessions.user_sessions_info,
    "send_stanza_c2s": rpc_sessions.send_stanza_c2s,
}
