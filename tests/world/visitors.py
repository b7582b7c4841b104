"""Visitors whose browser logs in to ejabberd itself."""

from bench.testbed.browser import Browser
from tests.world.tenant import Tenant, rpc_of

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"


async def new_visitor(tenant: Tenant, local: str = "visitor.1") -> Browser:
    """An account as LHC makes it in its XML-RPC mode, and a browser that is not logged in yet."""
    user = tenant.lhc.name(local)
    rpc = rpc_of(tenant)
    await rpc.call("register", {"host": HOST, "user": user, "password": PASSWORD})
    member = {"group": f"visitors.{tenant.name}", "grouphost": HOST}
    await rpc.call("srg_user_add", {"host": HOST, "user": user, **member})
    return Browser(tenant.system.endpoints["websocket"], user, HOST, PASSWORD)
