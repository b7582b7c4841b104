"""A tenant of a test's own, with what belongs to it: its LHC, its operators, its credentials."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Callback, Receiver
from bench.testbed.system import System
from tests.world.rpc import Encode, Rpc, library_request

_numbers = itertools.count(1)


class Tenant:
    """A tenant of its own for one test: its LHC with its own key, and operators that log in."""

    def __init__(self, system: System, receiver: Receiver, panel: Panel, created: dict[str, Any]) -> None:
        self.name: str = created["instance_name"]
        self.key: str = created["secret_key"]
        self.system = system
        self.receiver = receiver
        self.panel = panel
        self.callback_host = f"{self.name.replace('-', '.')}.localhost"
        endpoints = system.endpoints
        self.host: str = created.get("xmpp_host", endpoints["xmpp_host"])
        self.lhc_url = f"{endpoints['api']}/t/{self.name}"
        self.lhc = Lhc(self.name, base=self.lhc_url, secret_key=self.key, host=self.host)
        self._stack = AsyncExitStack()

    def operator(self, local: str, *, resource: str = "desk", password: str = "operator-pw") -> Operator:
        """A client of an operator, not yet logged in."""
        address = (self.system.endpoints["c2s_host"], self.system.endpoints["c2s_port"])
        return Operator(self.lhc.name(local), self.host, password, address, resource)

    async def online(self, local: str, *, resource: str = "desk") -> Operator:
        """An operator who is logged in and available; logged out at the end of the test."""
        operator = self.operator(local, resource=resource)
        await self._stack.enter_async_context(operator)
        return operator

    async def operator_online(self, local: str = "bob", *, resource: str = "desk") -> Operator:
        """A new operator account, logged in, and known to be online."""
        await self.lhc.new_operator(local, "operator-pw")
        operator = await self.online(local, resource=resource)
        await self.receiver.status(self.connect_body(local))
        return operator

    def callbacks(self, path: str | None = None) -> list[Callback]:
        """What its LHC was told so far: no other tenant's, whom the same receiver serves; at that path, or at any."""
        of_ours = [one for one in self.receiver.callbacks if one.host == self.callback_host]
        return [one for one in of_ours if path in {None, one.path}]

    def connect_body(self, local: str, action: str = "connect") -> str:
        return f'{{"action":"{action}","user":"{self.lhc.name(local)}","server":"{self.host}"}}'

    async def close(self) -> None:
        await self._stack.aclose()


def rpc_of(tenant: Tenant, encode: Encode = library_request) -> Rpc:
    """XML-RPC with the tenant's own credentials, at its own address."""
    return Rpc(f"{tenant.lhc_url}/rpc", tenant.name, tenant.host, tenant.key, encode)


NewTenant = Callable[..., Awaitable[Tenant]]
"""Makes a tenant; takes what is wanted of it."""


@asynccontextmanager
async def tenants_of(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[NewTenant]:
    """Makes tenants with names of their own; their operators are logged out at the end."""
    tenants: list[Tenant] = []
    # what an earlier test received is no answer in this one, though it may read the same
    receiver.callbacks.clear()

    async def make(**wanted: Any) -> Tenant:
        created = await panel.create(f"t{next(_numbers)}-{os.getpid()}", **wanted)
        tenants.append(Tenant(system, receiver, panel, created))
        return tenants[-1]

    yield make
    await asyncio.gather(*(tenant.close() for tenant in tenants))
