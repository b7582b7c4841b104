"""The XML-RPC face: what the extension sends with `handler = rpc`, and some of it in both of its modes.

Answered as ejabberd 23.01 answers, whatever version stands behind us; a fault, too, comes with HTTP 200.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from orchestrator.api.lhc import rpc_accounts, rpc_messages, rpc_rooms, rpc_sessions
from orchestrator.api.lhc.calls import ApplicationError, Call
from orchestrator.api.lhc.rpc_wire import (
    COMMAND_FAILED,
    MISSING_ARGUMENT,
    UNUSED_ARGUMENT,
    WRONG_TYPE,
    RpcError,
    read,
    write,
    write_fault,
)
from tenants.core.digests import same
from tenants.core.errors import DomainError, ForeignNameError, InvalidInputError
from tenants.lifecycle import audit, keys, registry
from tenants.process.services import Services
from tenants.store.database import DATABASE_AWAY

log = structlog.get_logger(__name__)

_AUTH_PARAMS = 2
_REFUSED = "rpc.refused"
"""In the audit log: a call with a name that is not its caller's."""

Handler = Callable[[Call], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class RpcCall(Call):
    """One method call.

    Attributes:
        caller: whose credentials it bears.
    """

    caller: str

    def require(self, *keys: str) -> None:
        """Check that the call has these arguments, all of them strings, and no others.

        Raises:
            RpcError: in the words of ejabberd, but without the values, which may be passwords.
        """
        for key in keys:
            if key not in self.body:
                raise RpcError(MISSING_ARGUMENT, f"Required attribute '{key}' not found")
            if not isinstance(self.body[key], str):
                raise RpcError(WRONG_TYPE, f"Parameter '{key}' must be a string")
        if unused := self.body.keys() - set(keys):
            named = ", ".join(sorted(unused))
            raise RpcError(UNUSED_ARGUMENT, f"The call provided additional unused arguments: {named}")


async def answer(services: Services, confined_to: str | None, body: bytes) -> bytes:
    """The whole methodResponse for a methodCall; whatever is wrong is a fault, which the log tells of."""
    with structlog.contextvars.bound_contextvars(method=None):
        try:
            return write(await _call(services, confined_to, body))
        except DATABASE_AWAY as error:
            log.error("database", error=type(error).__name__)  # noqa: TRY400 - the statement holds what people wrote
            return write_fault(RpcError(COMMAND_FAILED, "the database cannot be reached"))
        except (RpcError, ApplicationError, DomainError) as error:
            fault = error if isinstance(error, RpcError) else RpcError(COMMAND_FAILED, str(error).strip())
            # no RpcError's text, which may repeat what the caller chose
            reason = str(error) if isinstance(error, DomainError) else None
            log.warning("fault", code=fault.code, error=type(error).__name__, reason=reason)
            return write_fault(fault)


async def _call(services: Services, confined_to: str | None, body: bytes) -> dict[str, Any]:
    method, params = read(body)
    # a name that is no method's is the caller's to choose
    structlog.contextvars.bind_contextvars(method=method if method in _HANDLERS else "unknown")
    call = await _authorise(services, confined_to, params)
    structlog.contextvars.bind_contextvars(instance_name=call.tenant())
    return await _carry_out(method, call)


async def _authorise(services: Services, confined_to: str | None, params: list[Any]) -> RpcCall:
    """The first of two params holds the credentials: hosting-wide ones, or a tenant's name and own key.

    Whichever they are: on a tenant's path the call is confined to that tenant.
    """
    if len(params) != _AUTH_PARAMS or not all(map(_is_struct, params)):
        raise _not_authorised()
    credentials, arguments = params
    user, server, password = (credentials.get(key) for key in ("user", "server", "password"))
    if not (isinstance(user, str) and isinstance(server, str) and isinstance(password, str)):
        raise _not_authorised()
    call = await _caller(services, confined_to, arguments, user=user, password=password)
    call = await call.located(server)
    if server.lower() != call.host:
        raise _not_authorised()
    return call


async def _caller(
    services: Services, confined_to: str | None, arguments: dict[str, Any], *, user: str, password: str
) -> RpcCall:
    settings = services.settings
    if user == settings.rpc_user and same(password, settings.rpc_password.get_secret_value()):
        if confined_to is not None:
            _check_path(services, confined_to)
        return RpcCall(services, arguments, confined_to, hosting_wide=True, caller=user)
    # an instance is called as its address, which has no case
    instance_name = user.lower()
    if confined_to in {None, instance_name} and await keys.opens(services, instance_name, password):
        return RpcCall(services, arguments, instance_name, hosting_wide=False, caller=instance_name)
    raise _not_authorised()


def _is_struct(param: Any) -> bool:
    return isinstance(param, dict) and all(isinstance(name, str) for name in param)


def _check_path(services: Services, instance_name: str) -> None:
    try:
        registry.check_key(services.settings, instance_name)
    except InvalidInputError:
        raise _not_authorised() from None


def _not_authorised() -> RpcError:
    return RpcError(COMMAND_FAILED, "Invalid authentication data")


async def _carry_out(method: str, call: RpcCall) -> dict[str, Any]:
    handler = _HANDLERS.get(method)
    if handler is None:
        raise RpcError(COMMAND_FAILED, "Unknown command")
    await call.count()
    try:
        return await handler(call)
    except ForeignNameError as error:
        await _record_refusal(method, call, error)
        raise


async def _record_refusal(method: str, call: RpcCall, error: ForeignNameError) -> None:
    """For whoever looks after the hosting: a tenant named what is not its own. Never what it named."""
    log.warning("refused: a foreign name", argument=error.field)
    if call.confined_to is not None:
        reason = f"argument '{error.field}' names what is not the tenant's"
        await audit.record_refusal(
            call.services, call.confined_to, actor=f"rpc {call.caller}", action=_REFUSED, what=method, reason=reason
        )


_HANDLERS: dict[str, Handler] = {
    "register": rpc_accounts.register,
    "unregister": rpc_accounts.unregister,
    "change_password": rpc_accounts.change_password,
    "srg_user_add": rpc_accounts.srg_user_add,
    "srg_user_del": rpc_accounts.srg_user_del,
    "srg_create": rpc_accounts.srg_create,
    "srg_delete": rpc_accounts.srg_delete,
    "srg_get_info": rpc_accounts.srg_get_info,
    "send_message": rpc_messages.send_message,
    "user_sessions_info": rpc_sessions.user_sessions_info,
    "send_stanza_c2s": rpc_sessions.send_stanza_c2s,
    **rpc_rooms.HANDLERS,
}
