"""Names that cannot be a resource: given to a room they ended its process, and threw everybody out."""

import itertools
from collections.abc import AsyncIterator

import pytest

from bench.testbed.chat_server import ChatServer
from bench.testbed.operator import Operator
from bench.testbed.waiting import until
from tests.world.component import Component
from tests.world.tenant import Tenant, rpc_of
from tests.world.tenant_api import TenantApi
from xmpp_pool.stanzas import room_message

_numbers = itertools.count(1)
HEBREW, ARABIC = "דוד", "علي"
NICKS = {
    f"{HEBREW} (כהן)": None,
    f"{HEBREW} (2)": None,
    f"David {HEBREW}": None,
    f"{ARABIC} 2": None,
    "Bob 😀": None,
    "\u202eBob": None,
    "B" * 1100: None,
    "\u00ad": None,
    HEBREW: HEBREW,
    "Ann (2)": "Ann (2)",
    "ⅷ": "viii",
}
"""By a name as a message bears it: what the room shows. None: the sender's username."""


@pytest.fixture
async def bob(chat_server: ChatServer) -> AsyncIterator[Operator]:
    """An operator of a tenant of its own, in its room as a namesake."""
    tenant = f"nicks{next(_numbers)}"
    await chat_server.new_operator(f"bob.{tenant}")
    await chat_server.command("lhc_make_rooms", host="localhost", rooms=[{"name": f"team.{tenant}", "title": "-"}])
    async with chat_server.operator(f"bob.{tenant}") as bob:
        await bob.join(room_of(bob), HEBREW)
        yield bob


def room_of(operator: Operator) -> str:
    return f"team.{operator.username.partition('.')[2]}@conference.localhost"


async def test_the_room_bears_any_name_of_who_writes_in_the_page(chat_server: ChatServer, bob: Operator) -> None:
    room = room_of(bob)
    ended = chat_server.log.count("State machine")
    sender = f"ann.operator.{bob.username.partition('.')[2]}"
    async with Component(chat_server) as component:
        for number, (nick, shown) in enumerate(NICKS.items()):
            component.send(room_message(f"{sender}@localhost", room, f"from {number}", f"{room}-{number}", nick))
            heard = await bob.hears(room, f"from {number}")
            # bob bears the one that could be, and the next one in Hebrew cannot
            assert heard.nick == (sender if shown in {None, HEBREW} else shown)
    bob.write(room, "still here", kind="groupchat")
    await bob.hears(room, "still here")
    assert chat_server.log.count("State machine") == ended


async def test_lhc_may_give_any_name_and_the_api_is_told(tenant: Tenant, api: TenantApi) -> None:
    service = f"conference.{tenant.host}"
    rpc = rpc_of(tenant)
    await rpc.call("create_room", {"name": "jd,br", "service": service, "host": tenant.host})
    bob = await tenant.operator_online()
    room = f"jd,br.{tenant.name}@{service}"
    await bob.join(room, "Bob")
    for number, (nick, shown) in enumerate(
        {f"{HEBREW} (כהן)": f"{HEBREW} כהן", "Ann 😀": "Ann", "😀": "Ann Lee"}.items()
    ):
        user = f"Ann.Lee.operator@{tenant.host}"
        await rpc.call("subscribe_room", {"user": user, "nick": nick, "room": f"jd,br@{service}", "nodes": ""})
        said = {"type": "groupchat", "from": user, "to": f"jd,br@{service}", "subject": "", "body": f"line {number}"}
        await rpc.call("send_message", said)
        assert (await bob.hears(room, f"line {number}")).nick == shown

    await api.http.post("/rooms", json={"name": "team"})
    refused = await api.http.put("/rooms/team/members/ann.operator", json={"nick": f"{HEBREW} (2)"})
    assert refused.status_code == 422
    assert "nick" in refused.text
    assert "resourceprep" in refused.text
    mixed = await api.http.post("/rooms", json={"name": HEBREW})
    assert mixed.status_code == 422
    assert "Hebrew" in mixed.json()["detail"]
    assert [room["name"] for room in (await api.http.get("/rooms")).json()["rooms"]] == ["team"]


async def test_no_client_subscribes_under_a_name_that_nobody_has_looked_at(bob: Operator) -> None:
    room = room_of(bob)
    for nick in (f"{HEBREW} (2)", "Eve"):
        bob.send_raw(
            f"<iq type='set' id='{nick}' to='{room}'><subscribe xmlns='urn:xmpp:mucsub:0' nick='{nick}'>"
            "<event node='urn:xmpp:mucsub:nodes:messages'/></subscribe></iq>"
        )
        await until(lambda nick=nick: bob.answer(nick) == "forbidden", "it is refused")  # type: ignore[misc]
    bob.write(room, "still here", kind="groupchat")
    await bob.hears(room, "still here")
