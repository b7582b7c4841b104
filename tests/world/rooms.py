"""Rooms as LHC's extension makes them, and what LHC is told of them."""

from urllib.parse import quote

from bench.testbed.waiting import until
from tests.world.rpc import Encode, Rpc, library_request
from tests.world.tenant import Tenant, rpc_of

HOST = "localhost"
SERVICE = f"conference.{HOST}"
NAME = "jd,br"


def address(tenant: Tenant, name: str = NAME) -> str:
    return f"{name}.{tenant.name}@{SERVICE}"


async def make_room(
    tenant: Tenant,
    name: str = NAME,
    *,
    page_operator: str | None = "John.Doe.operator",
    encode: Encode = library_request,
) -> Rpc:
    """A room as LHC's extension makes it."""
    rpc = rpc_of(tenant, encode)
    assert await rpc.call("create_room", {"name": name, "service": SERVICE, "host": HOST}) == {"res": 0}
    option = {"name": name, "service": SERVICE, "option": "allow_subscription", "value": "true"}
    assert await rpc.call("change_room_option", option) == {"res": 0}
    if page_operator:
        member = {"user": f"{page_operator}@{HOST}", "nick": "John Doe", "room": f"{name}@{SERVICE}", "nodes": ""}
        assert await rpc.call("subscribe_room", member) == {"nodes": []}
    return rpc


def groupchat(sender: str, body: str, name: str = NAME) -> dict[str, str]:
    to = f"{name}@{SERVICE}"
    return {"type": "groupchat", "from": f"{sender}@{HOST}", "to": to, "subject": "", "body": body}


def form(**fields: str) -> str:
    """A callback's body, as docs/wire.md has it."""
    escaped = {name: quote(value, safe="_.-/:").replace("~", "%7E") for name, value in fields.items()}
    return "&".join(f"{name}={value}" for name, value in escaped.items())


def said(tenant: Tenant, sender: str, body: str, name: str = NAME) -> str:
    who = tenant.lhc.name(sender)
    return form(body=body, sender=who, receiver=name, server=HOST, type="groupchat")


def present(tenant: Tenant, sender: str, status: str, name: str = NAME) -> str:
    who = tenant.lhc.name(sender)
    return form(status=status, sender=who, receiver=name, server=HOST, type="presence")


def told(tenant: Tenant) -> list[str]:
    """What LHC was told at its address for messages, byte for byte."""
    return [one.raw.decode() for one in tenant.callbacks("/xmppservice/processmessage")]


async def is_told(tenant: Tenant, *bodies: str) -> None:
    """Wait until LHC was told just that."""
    await until(lambda: len(told(tenant)) >= len(bodies), f"{len(bodies)} callbacks; got {told(tenant)}")
    assert told(tenant) == list(bodies)


async def rooms_in_ejabberd(tenant: Tenant) -> list[str]:
    found = await tenant.system.ejabberd("lhc_rooms", host=HOST, suffix=f".{tenant.name}", after="", limit=1000)
    return [room.removesuffix(f".{tenant.name}") for room in found]
