"""A password opens its own account and no other, whoever the client says that it wants to be.

Each door is tried by bytes that no library would send. Walls are tried each by itself: ejabberd as it is configured,
ejabberd with every mechanism on, where the bridge's hooks alone compare, and ejabberd without those, where the
authentication module does.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.testbed.chat_server import OPERATOR_PASSWORD, ChatServer
from bench.testbed.login import Door, Login
from bench.testbed.system import domain_of, migrate
from orchestrator.launcher import servers
from tenants.process.services import Services
from tenants.status.diagnostics import WrongError
from tests.world.registry import make_world
from tests.world.tenant import NewTenant, Tenant
from tests.world.visitors import PASSWORD as VISITOR_PASSWORD
from tests.world.visitors import new_visitor
from xmpp_pool import login_probe

HOST = "localhost"
KINDS = ["tcp", "starttls", "tls", "/ws", "/websocket"]
ENCRYPTED = {"starttls", "tls"}
COMPARES_BY_ITSELF = servers.ejabberd_version() >= (26, 7)
"""Ejabberd refuses a password that is for another account than the one that is asked for."""


def victims(instance: str) -> list[str]:
    """Names that are not the attacker's: accounts and none, of another tenant and of nobody, in every spelling."""
    return [
        f"bob.{instance}",
        f"bob.{instance}@{HOST}",
        f"BOB.{instance}@{HOST}",
        f"bob.{instance}@{HOST}/desk",
        f" bob.{instance}",
        f"bob.{instance} ",
        f"bob.{instance}\t@{HOST}",
        f"bob.{instance}@{HOST} ",
        f"ＢＯＢ.{instance}",  # these are prepared (RFC 3491) to the name itself
        f"bo\u00adb\u200b.{instance}",
        f"bob\u2024{instance}",
        f"nobody.{instance}",
        f"visitor.7.{instance}@{HOST}",
        "admin",
        f"admin@{HOST}",
        HOST,
        f"@{HOST}",
        f"bob.{instance}@elsewhere.example",
        " ",
    ]


def door_of(kind: str, doors: list[Door]) -> Door:
    return next(door for door in doors if door.kind == kind or door.address.endswith(kind))


async def outcomes(door: Door, user: str, password: str, wanted: str) -> set[str]:
    """What comes of each mechanism that can name another account. Each tries a connection of its own."""
    found = set()
    for mechanism in ("PLAIN", "X-OAUTH2", "SCRAM-SHA-1"):
        async with Login(door, HOST) as login:
            if mechanism == "SCRAM-SHA-1":
                outcome = await login.scram(user, password, wanted)
            else:
                outcome = await login.auth(mechanism, f"{wanted}\0{user}\0{password}")
            found.add(outcome if await login.ended() else f"{outcome}, and goes on")
    return found


async def assert_no_victim_opens(door: Door, user: str, password: str, instance: str) -> None:
    wanted = victims(instance)
    came = await asyncio.gather(*(outcomes(door, user, password, victim) for victim in wanted))
    assert dict(zip(wanted, came, strict=True)) == {victim: {"invalid-authzid"} for victim in wanted}


@pytest.mark.parametrize("kind", KINDS)
async def test_neither_operator_nor_visitor_is_anybody_else(kind: str, tenant: Tenant, new_tenant: NewTenant) -> None:
    door = door_of(kind, Door.all_of(tenant.system.endpoints))
    other = await new_tenant()
    await other.lhc.new_operator("bob", "bob's own password")
    await tenant.lhc.new_operator("eve", "eve's own password")
    await new_visitor(tenant)
    for local, password in (("eve", "eve's own password"), ("visitor.1", VISITOR_PASSWORD)):
        user = tenant.lhc.name(local)
        async with Login(door, HOST) as login:
            assert {"SCRAM-SHA-1", "PLAIN"} <= set(login.offered)
            assert "X-OAUTH2" not in login.offered
            assert await login.scram(user, password) == "success"
            assert (await login.bound()).startswith(f"{user}@{HOST}/")
        await assert_own_password_is_taken_over_tls(door, f"\0{user}\0{password}")
        await assert_no_victim_opens(door, user, password, other.name)


async def assert_own_password_is_taken_over_tls(door: Door, payload: str) -> None:
    """By PLAIN, in which the password is sent as it is."""
    user = payload.split("\0")[1]
    async with Login(door, HOST) as login:
        outcome = await login.auth("PLAIN", payload)
        if door.kind in ENCRYPTED:
            assert outcome == "success"
            assert (await login.bound()).lower().startswith(f"{user}@{HOST}/")
        else:
            assert outcome == "encryption-required"
            assert await login.ended()


@asynccontextmanager
async def started(*users: str, **differing: Any) -> AsyncIterator[ChatServer]:
    state = Path(tempfile.mkdtemp(prefix="lhc-identity-"))
    server = ChatServer(state, {}, **differing)
    try:
        await server.start()
        for user in users:
            await server.new_operator(user)
        yield server
    finally:
        await server.kill()
        shutil.rmtree(state)


@pytest.fixture(scope="module")
async def trusting() -> AsyncIterator[ChatServer]:
    """An ejabberd that offers every mechanism it knows."""
    async with started("eve.acme", "bob.other", all_mechanisms=True) as server:
        yield server


@pytest.fixture(params=KINDS)
def door(request: pytest.FixtureRequest, trusting: ChatServer) -> Door:
    return door_of(request.param, Door.all_of(trusting.endpoints))


async def test_the_bridge_compares_where_every_mechanism_is_on(door: Door, trusting: ChatServer) -> None:
    async with Login(door, HOST) as login:
        assert {"PLAIN", "X-OAUTH2", "SCRAM-SHA-1"} <= set(login.offered)
    await assert_no_victim_opens(door, "eve.acme", OPERATOR_PASSWORD, "other")
    assert "Opened c2s session for bob" not in trusting.log


@pytest.mark.parametrize("wanted", ["", "eve.acme", f"eve.acme@{HOST}", f"EVE.Acme@{HOST.upper()}"])
async def test_who_names_his_own_account_gets_it(door: Door, wanted: str) -> None:
    await assert_own_password_is_taken_over_tls(door, f"{wanted}\0eve.acme\0{OPERATOR_PASSWORD}")
    async with Login(door, HOST) as login:
        assert await login.scram("eve.acme", OPERATOR_PASSWORD, wanted) == "success"
        assert (await login.bound()).lower().startswith(f"eve.acme@{HOST}/")


@pytest.mark.parametrize(
    ("mechanism", "payload"),
    [
        ("PLAIN", ""),
        ("PLAIN", "eve.acme"),
        ("PLAIN", f"eve.acme\0{OPERATOR_PASSWORD}"),
        ("PLAIN", f"\0\0{OPERATOR_PASSWORD}"),
        ("PLAIN", f"bob.other\0eve.acme\0{OPERATOR_PASSWORD}\0"),
        ("PLAIN", f"bob.other\0bob.other\0eve.acme\0{OPERATOR_PASSWORD}"),
        ("PLAIN", f"\0eve.acme@elsewhere.example\0{OPERATOR_PASSWORD}"),
        ("X-OAUTH2", "bob.other\0eve.acme"),
        ("SCRAM-SHA-1", ""),
        ("SCRAM-SHA-1", "n,,n=eve.acme"),
        ("SCRAM-SHA-1", "n,,x=bob.other,r=once"),
        ("SCRAM-SHA-1", "n,bob.other,n=eve.acme,r=once"),
        ("SCRAM-SHA-1", "n,a=,n=eve.acme,r=once"),
        ("SCRAM-SHA-1", "n,,a=bob.other,n=eve.acme,r=once"),
        ("SCRAM-SHA-1", "n,,m=must,n=eve.acme,r=once"),
    ],
)
async def test_what_cannot_be_read_opens_nothing(trusting: ChatServer, mechanism: str, payload: str) -> None:
    async with Login(Door("tcp", str(trusting.ports["c2s"])), HOST) as login:
        assert await login.auth(mechanism, payload) == "malformed-request"
        assert await login.ended()


@pytest.fixture(scope="module")
async def hookless() -> AsyncIterator[ChatServer]:
    """The same, and the bridge's hooks compare nothing."""
    async with started("eve.acme", "bob.other", all_mechanisms=True, compares=False) as server:
        yield server


async def test_the_authentication_module_compares_alone(hookless: ChatServer) -> None:
    """Names that are prepared to the own one are that. Of a name's host ejabberd tells the module nothing."""
    for door in Door.all_of(hookless.endpoints):
        for victim in victims("other"):
            async with Login(door, HOST) as login:
                outcome = await login.auth("PLAIN", f"{victim}\0eve.acme\0{OPERATOR_PASSWORD}")
                assert outcome == "not-authorized", victim
                assert await login.scram("eve.acme", OPERATOR_PASSWORD) == "success"  # or eve would have to wait
        for own in ("", "eve.acme", f"EVE.Acme@{HOST}"):
            async with Login(door, HOST) as login:
                assert await login.auth("PLAIN", f"{own}\0eve.acme\0{OPERATOR_PASSWORD}") == "success"
                assert (await login.bound()).lower().startswith(f"eve.acme@{HOST}/")
            async with Login(door, HOST) as login:
                assert await login.auth("PLAIN", f"{own}\0eve.acme\0a wrong password") == "not-authorized"
                assert await login.scram("eve.acme", OPERATOR_PASSWORD) == "success"
    assert "Opened c2s session for bob" not in hookless.log


@pytest.fixture(scope="module")
async def careless() -> AsyncIterator[ChatServer]:
    """The same, without our authentication module: what a foreign ejabberd may be."""
    async with started("eve.acme", "bob.other", all_mechanisms=True, compares=False, decoy=False) as server:
        yield server


async def test_without_any_wall_anybody_is_anybody(careless: ChatServer) -> None:
    """So what the other tests find is of the walls' doing. From 26.07 on ejabberd has one of its own."""
    for door in Door.all_of(careless.endpoints):
        async with Login(door, HOST) as login:
            outcome = await login.auth("PLAIN", f"bob.other\0eve.acme\0{OPERATOR_PASSWORD}")
            assert outcome == ("not-authorized" if COMPARES_BY_ITSELF else "success")
            if COMPARES_BY_ITSELF:
                continue
            assert (await login.bound()).startswith(f"bob.other@{HOST}/")


@asynccontextmanager
async def services_beside(server: ChatServer, folder: Path) -> AsyncIterator[Services]:
    url = f"sqlite+aiosqlite:///{folder}/new.db"
    migrate(url)
    async with make_world(
        url,
        xmpp_host=server.host,
        ejabberd_api_url=server.api_url,
        ejabberd_api_secret=server.api_secret,
    ) as world:
        yield world.services


async def test_doctor_finds_mechanisms_that_are_wrong(trusting: ChatServer, tmp_path: Path) -> None:
    async with services_beside(trusting, tmp_path) as services:
        with pytest.raises(WrongError, match=f"port {trusting.ports['c2s']} offers .*X-OAUTH2") as wrong:
            await login_probe.check(services)
    assert "disable_sasl_mechanisms: [X-OAUTH2" in wrong.value.advice


@pytest.mark.skipif(COMPARES_BY_ITSELF, reason="this ejabberd compares by itself")
async def test_doctor_finds_that_nothing_compares(careless: ChatServer, tmp_path: Path) -> None:
    async with services_beside(careless, tmp_path) as services:
        with pytest.raises(WrongError, match=f"port {careless.ports['c2s']}: a client may be somebody else") as wrong:
            await login_probe.check(services)
    assert "mod_lhc_bridge" in wrong.value.advice


async def test_doctor_is_content_with_ours(tenant: Tenant) -> None:
    async with domain_of(tenant.system) as services:
        found = await login_probe.check(services)
    ports = tenant.system.endpoints
    assert found == f"nobody is anybody else at port {ports['c2s_port']}, {ports['c2s_tls_port']}"


async def test_an_earlier_attempt_does_not_vouch_for_a_later_one(trusting: ChatServer) -> None:
    """Who named the victim once, with a wrong password, is not the victim afterwards."""
    async with Login(Door("starttls", str(trusting.ports["c2s"])), HOST) as login:
        assert await login.auth("PLAIN", "\0bob.other\0a wrong password") == "not-authorized"
        assert await login.auth("PLAIN", f"bob.other\0eve.acme\0{OPERATOR_PASSWORD}") == "invalid-authzid"
        assert await login.ended()
