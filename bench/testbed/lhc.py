"""An LHC instance with its XMPP extension: calls the orchestrator as PHP's curl does."""

import json
from typing import Any
from xmlrpc.client import dumps, loads

import httpx

TIMEOUT = 5.0


class Lhc:
    """One instance, or with an empty name a standalone one.

    `base` is its `node_api_server`: the orchestrator's root, or `/t/{instance_name}` under it.
    """

    def __init__(self, instance_name: str, *, base: str, secret_key: str, host: str) -> None:
        self.instance_name = instance_name
        self.host = host
        self._suffix = f".{instance_name}" if instance_name else ""
        self._base = base
        self._key = secret_key

    def name(self, local: str) -> str:
        """The username of this instance: `bob` is `bob.acme`."""
        return f"{local}{self._suffix}"

    async def call(self, endpoint: str, **keys: Any) -> httpx.Response:
        """POST as the extension does: its JSON, `secret_key` last, a new connection for each call."""
        return await self.post(endpoint, php_json({**keys, "secret_key": self._key}))

    async def post(
        self, endpoint: str, body: str | bytes, content_type: str | None = "application/json", **headers: str
    ) -> httpx.Response:
        """POST any body."""
        sent = {"Accept": "*/*", **headers}
        if content_type is not None:
            sent["Content-Type"] = content_type
        async with httpx.AsyncClient(timeout=TIMEOUT, verify=False) as http:  # noqa: S501 - as PHP's curl is told
            return await http.post(f"{self._base}{endpoint}", content=body, headers=sent)

    async def page_view(self, visitor: str, password: str, **keys: Any) -> httpx.Response:
        """A known visitor opens a page."""
        return await self.call(
            "/xmpp",
            jid=f"{self.name(visitor)}@{self.host}",
            **{"pass": password},
            host="localhost",
            nick=keys.pop("nick", "Online visitor"),
            **keys,
        )

    async def new_visitor(self, visitor: str, password: str, **keys: Any) -> httpx.Response:
        """A new visitor, or a new chat of nobody known."""
        return await self.call(
            "/xmpp-register-online-visitor",
            user=self.name(visitor),
            host=self.host,
            password=password,
            hostlogin="localhost",
            nick=keys.pop("nick", "Online visitor"),
            status=keys.pop("status", "-"),
            group=f"visitors{self._suffix}",
            **keys,
        )

    async def visitor_writes(
        self, visitor: str, password: str, operator: str, message: str, **keys: Any
    ) -> httpx.Response:
        """A visitor's message to an operator."""
        return await self.call(
            "/xmpp-send-message",
            jid=f"{self.name(visitor)}@{self.host}",
            **{"pass": password},
            host="localhost",
            operator_username=f"{self.name(operator)}@{self.host}",
            message=message,
            **keys,
        )

    async def new_operator(self, operator: str, password: str) -> None:
        """An operator account, in the operators' roster."""
        user = self.name(operator)
        registered = await self.call("/xmpp-register", user=user, host=self.host, password=password)
        assert registered.json() == {"error": False, "msg": f"User {user}@{self.host} successfully registered\n"}
        group = f"operators{self._suffix}"
        assigned = await self.call(
            "/xmpp-assign-user-to-roaster", user=user, host=self.host, group=group, grouphost=self.host
        )
        assert assigned.json() == {"error": False, "msg": ""}


def php_json(data: Any) -> str:
    """PHP's `json_encode`: ASCII only, slashes escaped, no spaces."""
    return json.dumps(data, separators=(",", ":")).replace("/", "\\/")


async def rpc(url: str, credentials: dict[str, str] | None, method: str, **arguments: str) -> Any:
    """An XML-RPC call as the extension makes it. Raises xmlrpc.client.Fault."""
    params = (credentials, arguments) if credentials is not None else (arguments,)
    async with httpx.AsyncClient(timeout=TIMEOUT, verify=False) as http:  # noqa: S501 - as PHP's curl is told
        response = await http.post(url, content=dumps(params, method).encode(), headers={"Content-Type": "text/xml"})
    response.raise_for_status()
    (result,), _ = loads(response.text)
    return result
