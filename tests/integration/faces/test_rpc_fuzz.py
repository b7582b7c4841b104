"""XML-RPC with nonsense: an answer within LHC's patience, never a 500, and no memory that grows."""

import asyncio
import http.client
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET
from xmlrpc.client import Binary, DateTime

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.testbed.lhc import TIMEOUT
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.rpc import METHODS, Rpc, library_request, named
from tests.world.tenant import Tenant

HOST = "localhost"
NAME = "fuzzed"
ROOM = {"name": "sales,desk", "service": f"conference.{HOST}"}
ROOMS: dict[str, dict[str, str]] = {
    "muc_online_rooms": {"host": f"conference.{HOST}"},
    "create_room": {**ROOM, "host": HOST},
    "change_room_option": {**ROOM, "option": "allow_subscription", "value": "true"},
    "subscribe_room": {"user": f"bob.NAME@{HOST}", "nick": "Bob", "room": f"sales,desk@conference.{HOST}", "nodes": ""},
    "send_direct_invitation": {**ROOM, "password": "", "reason": "", "users": f"bob.NAME@{HOST}"},
    "destroy_room": ROOM,
}
CALLS = {**METHODS, **ROOMS}
"""Every method."""

WARM_UP, MEASURED = 500, 1500
"""Requests."""
MAY_GROW = 32 * 2**20
"""Bytes. A leak of one body in a hundred would be more."""

FUZZ = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
async def fuzzed(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    tenant = Tenant(system, receiver, panel, await panel.create(NAME))
    await tenant.lhc.new_operator("bob", "operator-pw")
    await tenant.lhc.new_visitor("visitor.1", "0123456789abcdef0123")
    return tenant


@pytest.fixture
def connection(fuzzed: Tenant) -> Iterator[http.client.HTTPConnection]:
    """One that is kept for all examples; the server lives through them."""
    pid = fuzzed.system.pid("api")
    connection = http.client.HTTPConnection(urlsplit(fuzzed.lhc_url).netloc, timeout=TIMEOUT)
    yield connection
    connection.close()
    assert fuzzed.system.pid("api") == pid


def own(tenant: Tenant) -> dict[str, str]:
    return {"user": tenant.name, "server": HOST, "password": tenant.key}


def check(status: int, body: bytes) -> None:
    """It is a methodResponse, or an error of the one who asked."""
    if status == 200:
        assert ET.fromstring(body).tag == "methodResponse"
    else:
        assert 400 <= status < 500


def ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    try:
        check(*_exchange(connection, body))
    except (ConnectionError, http.client.RemoteDisconnected):
        connection.close()  # the server ends a connection that was idle for five seconds
        check(*_exchange(connection, body))


def _exchange(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", f"/t/{NAME}/rpc", body, {"Content-Type": "text/xml"})
    answer = connection.getresponse()
    return answer.status, answer.read()


@FUZZ
@given(body=st.binary(max_size=5000))
def test_bytes(connection: http.client.HTTPConnection, body: bytes) -> None:
    ask(connection, body)


@FUZZ
@given(
    method=st.sampled_from(sorted(CALLS)),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 50), st.binary(max_size=20)), min_size=1, max_size=5),
)
def test_damaged_calls(
    fuzzed: Tenant, connection: http.client.HTTPConnection, method: str, changes: list[tuple[int, int, bytes]]
) -> None:
    # of nobody, so that what happens to be whole destroys nothing
    call = library_request(method, own(fuzzed), named(CALLS[method], "nobody"))
    for place, length, put in changes:
        start = place % (len(call) + 1)
        call = call[:start] + put + call[start + length :]
    ask(connection, call)


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    st.floats(),
    st.text(max_size=200),
    st.binary(max_size=200).map(Binary),
    st.just(DateTime("20200101T00:00:00")),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
NAMES = st.sampled_from(
    [
        *(f"bob.{NAME}", f"visitor.1.{NAME}", f"visitor.1.chat.{NAME}", f"operators.{NAME}", f"visitors.{NAME}", NAME),
        *(f"bob.{NAME}@{HOST}", f"visitor.1.{NAME}@{HOST}/x", f"@{HOST}", "@", "/", ".", f".{NAME}", "visitor.", HOST),
        *(
            "lhc",
            "chat",
            "groupchat",
            f"sales,desk@conference.{HOST}",
            "a:b:c",
            "<presence/>",
            "<presence><status>x</status></presence>",
            "\\n",
            "\r",
            "x" * 90_000,
        ),
    ]
)


@FUZZ
@given(data=st.data())
def test_wrong_values(fuzzed: Tenant, connection: http.client.HTTPConnection, data: st.DataObject) -> None:
    """Whole calls of every method but the one that ends the tenant: any value for an argument, or none, or one more."""
    method = data.draw(st.sampled_from(sorted(CALLS.keys() - {"srg_delete"})))
    arguments: dict[str, Any] = dict(named(CALLS[method], NAME))
    for key in data.draw(st.lists(st.sampled_from(sorted(arguments)), max_size=3)):
        arguments[key] = data.draw(NAMES | VALUES)
    if data.draw(st.booleans()):
        arguments[data.draw(st.text(max_size=5))] = data.draw(VALUES)
    if data.draw(st.booleans()):
        del arguments[data.draw(st.sampled_from(sorted(arguments)))]
    ask(connection, library_request(method, own(fuzzed), arguments))


@FUZZ
@given(wrong=st.dictionaries(st.sampled_from(["user", "server", "password", "x"]), VALUES, min_size=1))
def test_wrong_credentials(fuzzed: Tenant, connection: http.client.HTTPConnection, wrong: dict[str, Any]) -> None:
    arguments = named(METHODS["srg_get_info"], NAME)
    ask(connection, library_request("srg_get_info", own(fuzzed) | wrong, arguments))


def nasty(tenant: Tenant, chosen: random.Random) -> bytes:
    """A body that is costly for a careless reader, no two alike."""
    salt = chosen.randbytes(8).hex()
    depth = chosen.randint(1, 3000)
    stanza = "<presence>" + f"<x a='{salt}'>" * depth + "</x>" * depth + "</presence>"
    entities = "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    value = (
        f"<methodCall><methodName>{salt}</methodName><params><param><value>{{}}</value></param></params></methodCall>"
    )
    call = named(METHODS["send_stanza_c2s"], tenant.name)
    return chosen.choice(
        [
            f"<!DOCTYPE x [<!ENTITY a '{salt}'>{entities}]>{value.format('&i;')}".encode(),
            value.format("<array><data><value>" * depth + "</value></data></array>" * depth).encode(),
            value.format("<array><data><value>" * depth).encode(),
            value.format(
                f"<struct><member><name>{salt}</name><value/></member></struct>" * chosen.randint(1, 1500)
            ).encode(),
            value.format(f"<int>{'9' * chosen.randint(1, 90_000)}</int>").encode(),
            value.format(f"<string>{salt * chosen.randint(1, 6000)}</string>").encode(),
            value.format(
                f"<{salt.translate(str.maketrans('0123456789', 'ghijklmnop'))}/>" * chosen.randint(1, 4000)
            ).encode(),
            library_request("send_stanza_c2s", own(tenant), {**call, "stanza": stanza}),
            library_request(
                "send_stanza_c2s", own(tenant), {**call, "stanza": f"<!DOCTYPE x [{entities}]><presence/>"}
            ),
            library_request("user_sessions_info", own(tenant), {"host": HOST, "user": salt, salt: salt}),
            library_request("unregister", own(tenant), {"host": HOST, "user": f"bob.{salt}"}),
            library_request(salt, {**own(tenant), "password": salt}, {}),
            chosen.randbytes(chosen.randint(1, 100_000)),
        ]
    )


async def ask_all(tenant: Tenant, bodies: list[bytes]) -> None:
    """A few at a time, as many page views come."""
    waiting = iter(bodies)
    async with httpx.AsyncClient(timeout=TIMEOUT, verify=False) as http:  # noqa: S501 - no TLS here; loading the CAs takes 20 ms

        async def one_after_the_other() -> None:
            for body in waiting:
                answer = await http.post(f"{tenant.lhc_url}/rpc", content=body, headers={"Content-Type": "text/xml"})
                check(answer.status_code, answer.content)

        await asyncio.gather(*(one_after_the_other() for _ in range(8)))


def resident(pid: int) -> int:
    """Bytes of memory that the process has (proc(5))."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


async def test_memory_does_not_grow(fuzzed: Tenant) -> None:
    chosen = random.Random(1)
    pid = fuzzed.system.pid("api")
    await ask_all(fuzzed, [nasty(fuzzed, chosen) for _ in range(WARM_UP)])
    before = resident(pid)
    await ask_all(fuzzed, [nasty(fuzzed, chosen) for _ in range(MEASURED)])
    grown = resident(pid) - before
    print(f"after {MEASURED} requests: {before / 2**20:.1f} MB and {grown / 2**20:+.1f} MB")  # noqa: T201 - for who looks
    assert fuzzed.system.pid("api") == pid
    assert grown < MAY_GROW
    # and it works as before
    rpc = Rpc(f"{fuzzed.lhc_url}/rpc", fuzzed.name, HOST, fuzzed.key)
    assert await rpc.call("srg_get_info", {"host": HOST, "group": f"operators.{NAME}"})
