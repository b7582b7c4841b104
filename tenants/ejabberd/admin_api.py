"""Calls of ejabberd's admin API over HTTP (`mod_http_api`): connections, retries, and what an answer means.

An answer of 200 does not mean that anything happened: it may be a result code of a failure.
"""

from collections.abc import Sequence
from typing import Any

import httpx
import stamina

from tenants.core.errors import DomainError
from tenants.ejabberd import answers
from tenants.ejabberd.errors import (
    EjabberdError,
    EjabberdUnavailableError,
    PasswordRefusedError,
    UserExistsError,
    UserUnknownError,
)

_SECONDS = 10.0
"""How long a call waits for its answer, if it does not say otherwise."""
_CONNECT_SECONDS = 3.0
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=30)
_CONFLICT = 10090
"""ejabberd's own code of the error that an account exists."""
_STORAGE_AWAY, _STORAGE_UNKNOWN = "storage_away", "storage_unknown"
"""What the bridge says (`config/ejabberd/lhc_bridge_storage.erl`) of what it cannot read."""
_NOT_OUR_SECRET = (httpx.codes.UNAUTHORIZED, 10)
"""HTTP status and ejabberd's own code when it does not take our secret."""


class AdminApi:
    """The connections to the admin API of one virtual host; safe to share between tasks of one event loop.

    Each node of a cluster has one. The one that answered last is called; when it does not, the next one is.
    """

    def __init__(self, api_urls: Sequence[str], host: str, secret: str) -> None:
        self._urls = [url.rstrip("/") for url in api_urls]
        self._at = 0
        self._http = httpx.AsyncClient(headers=call_headers(host, secret), limits=_LIMITS)

    async def close(self) -> None:
        await self._http.aclose()

    async def asks_for_secret(self) -> bool:
        """Whether the admin API refuses those who know no secret.

        Raises:
            EjabberdUnavailableError: it cannot be reached.
        """
        request = self._http.build_request("POST", f"{self._urls[self._at]}/status", json={})
        request.headers.pop("Authorization", None)
        try:
            return (await self._http.send(request)).status_code == httpx.codes.UNAUTHORIZED
        except httpx.TransportError as error:
            raise EjabberdUnavailableError(f"ejabberd's API: {type(error).__name__}") from error

    @stamina.retry(on=EjabberdUnavailableError, attempts=3, timeout=15, wait_initial=0.1, wait_max=2)
    async def call(self, command: str, *, seconds: float = _SECONDS, **arguments: Any) -> Any:
        """Run a command. Every command may be repeated, so it is sent again when its answer is lost."""
        try:
            response = await self._post(command, seconds, arguments)
        except httpx.TransportError as error:
            raise EjabberdUnavailableError(f"ejabberd's API: {type(error).__name__} at {command}") from error
        try:
            return _result(command, response)
        except EjabberdUnavailableError:
            self._pass_over(self._at)
            raise

    async def call_each(self, command: str, *, seconds: float = _SECONDS) -> None:
        """Run a command at every node that takes connections.

        Raises:
            EjabberdUnavailableError: one did not answer, or none takes connections.
        """
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        reached = False
        for url in self._urls:
            try:
                response = await self._http.post(f"{url}/{command}", json={}, timeout=timeout)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
            except httpx.TransportError as error:
                raise EjabberdUnavailableError(f"ejabberd's API: {type(error).__name__} at {command}") from error
            _result(command, response)
            reached = True
        if not reached:
            raise EjabberdUnavailableError(f"ejabberd's API: no node takes connections for {command}")

    async def _post(self, command: str, seconds: float, arguments: dict[str, Any]) -> httpx.Response:
        """Send it to the present node, or to the first after it that takes connections."""
        timeout = httpx.Timeout(seconds, connect=_CONNECT_SECONDS)
        untried = len(self._urls)
        while True:
            at, untried = self._at, untried - 1
            try:
                return await self._http.post(f"{self._urls[at]}/{command}", json=arguments, timeout=timeout)
            except httpx.TransportError as error:
                self._pass_over(at)
                if not untried or not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    raise

    def _pass_over(self, at: int) -> None:
        """From now on the node after that one is called, unless another call has come to know so before."""
        if self._at == at:
            self._at = (at + 1) % len(self._urls)


def call_headers(host: str, secret: str) -> dict[str, str]:
    """The headers of each call of the admin API; `config/ejabberd/lhc_bridge_api.erl` checks them."""
    return {"Host": host} | ({"Authorization": f"Bearer {secret}"} if secret else {})


def _result(command: str, response: httpx.Response) -> Any:
    """The command's answer, when it was carried out."""
    answer = _decode(response)
    if not response.is_success:
        raise _refusal(command, response.status_code, answer)
    if answers.is_failure(command, answer):
        raise EjabberdError(command, 1, "result code 1")
    return answer


def _decode(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text


def _refusal(command: str, status: int, answer: Any) -> DomainError:
    """The error that says why ejabberd did not run the command."""
    code, message = _error(answer)
    if (status, code) == _NOT_OUR_SECRET:
        return EjabberdUnavailableError(f"ejabberd's API: {message}")
    if message == _STORAGE_AWAY:
        return EjabberdUnavailableError(f"ejabberd's database does not answer, at {command}")
    if message == _STORAGE_UNKNOWN:
        return EjabberdError(
            command, code, "it keeps something neither in Mnesia nor in SQL: see `orchestrator doctor`"
        )
    if code == _CONFLICT or status == httpx.codes.CONFLICT:
        return UserExistsError(command, code, message)
    if status == httpx.codes.NOT_FOUND and command == "change_password":
        return UserUnknownError(command, code, message)
    if status in {httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE}:
        return EjabberdUnavailableError(f"ejabberd's API: {status} at {command}")
    if message == "invalid_password" or "password contains unacceptable" in message:
        return PasswordRefusedError(command, code, message)
    return EjabberdError(command, code, message or f"HTTP {status}")


def _error(answer: Any) -> tuple[int, str]:
    if isinstance(answer, dict):
        return int(answer.get("code", 0)), str(answer.get("message", ""))
    return 0, str(answer)[:200]
