"""Clients log in with TLS 1.3, those too that would bind the login to the connection as RFC 9266 says."""

import pytest

from bench.testbed.login import Door, Login
from tests.world.tenant import Tenant


@pytest.mark.parametrize("kind", ["starttls", "tls"])
@pytest.mark.parametrize("flag", ["n", "y"])
async def test_a_client_is_offered_what_it_can_do(tenant: Tenant, kind: str, flag: str) -> None:
    """Before 24.02 ejabberd cannot bind to TLS 1.3: if it offered to, a client that can would be refused."""
    await tenant.lhc.new_operator("bob", "bob's own password")
    door = next(door for door in Door.all_of(tenant.system.endpoints) if door.kind == kind)
    async with Login(door, tenant.host) as login:
        assert (login.tls, login.offered) == ("TLSv1.3", ["PLAIN", "SCRAM-SHA-1"])
        assert await login.scram(tenant.lhc.name("bob"), "bob's own password", flag=flag) == "success"
        assert (await login.bound()).startswith(f"{tenant.lhc.name('bob')}@{tenant.host}/")
