"""Whether an account exists is told to nobody who has no password: not by an error, a challenge, or a text."""

import re
from base64 import b64decode

import pytest

from bench.testbed.login import Door, Login, element, scram
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"


def connect(tenant: Tenant, kind: str) -> Login:
    door = next(door for door in Door.all_of(tenant.system.endpoints) if door.kind == kind)
    return Login(door, tenant.host)


async def challenge(login: Login, name: str) -> str:
    answer = await login.ask(element("auth", f"n,,n={name},r=nonce", " mechanism='SCRAM-SHA-1'"))
    return b64decode(answer.partition(">")[2].partition("<")[0]).decode() if "<challenge" in answer else answer


async def seen_of(tenant: Tenant, kind: str, name: str) -> list[str]:
    """What there is to see of a name; what is random of each time, or a name's own, is replaced."""
    salts, asked = [], ""
    for _ in range(2):
        async with connect(tenant, kind) as login:
            asked = await challenge(login, name)
            salts += re.findall(r",s=([^,]+)", asked)
    async with connect(tenant, kind) as login:
        failure = await scram(login.ask, name, "a guess")
    shape = re.sub(r"[A-Za-z0-9+/]", "x", ",".join(set(salts)))
    return [shape, re.sub(r"r=[^,]+,s=[^,]+", "", asked), failure]


@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_an_account_that_exists_looks_like_one_that_does_not(tenant: Tenant, kind: str) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    names = [tenant.lhc.name(local) for local in ("bob", "visitor.1", "nobody", "visitor.2")]
    names += [names[0].upper(), names[2].upper(), f"bob.{'n' * 20}", "admin", "nobody-at-all"]
    first, *others = [await seen_of(tenant, kind, name) for name in names]
    assert "not-authorized" in first[2]
    assert re.fullmatch(r"x{22}==", first[0])  # the salt is always the same
    assert others == [first] * len(others)


async def test_the_right_password_still_opens(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    async with connect(tenant, "tcp") as login:
        await challenge(login, tenant.lhc.name("nobody"))  # what was asked before does not matter
        assert await login.scram(tenant.lhc.name("bob"), "operator-pw") == "success"
        assert (await login.bound()).startswith(f"{tenant.lhc.name('bob')}@{tenant.host}/")
