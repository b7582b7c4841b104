"""One tenant's key and token at every endpoint, with another tenant's names: nothing changes, and nothing is told."""

import itertools
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from tests.world.json_bodies import BODIES
from tests.world.rpc import METHODS
from tests.world.tenant import NewTenant, rpc_of
from tests.world.tenant_api import TenantApi, api_of
from tests.world.tenant_state import nothing_changes

NOBODY = "nowhere"
THERE = {
    "chat_id": "12", "line_id": "line-0001", "username": "bob", "operator": "bob", "name": "team", "visitor_id": "7"
}  # fmt: skip
MISSING = {
    "chat_id": "98", "line_id": "line-0009", "username": "bog", "operator": "bog", "name": "meat", "visitor_id": "9"
}  # fmt: skip
"""What the other tenant has, by the parameter's name, and what nobody has."""
VALID: dict[tuple[str, str], dict[str, Any]] = {
    ("put", ""): {},
    ("post", "/address"): {"callback_url": "https://hostile.example"},
    ("post", "/host"): {"xmpp_host": "localhost"},
    ("post", "/chats"): {"chat_id": "13", "nick": "hostile"},
    ("patch", "/chats/{chat_id}"): {"nick": "hostile"},
    ("post", "/chats/{chat_id}/messages"): {"message": "hostile"},
    ("patch", "/chats/{chat_id}/messages/{line_id}"): {"message": "hostile"},
    ("post", "/chats/{chat_id}/messages/{line_id}/receipts"): {"state": "read"},
    ("put", "/chats/{chat_id}/messages/{line_id}/reactions"): {"reactions": ["hostile"]},
    ("put", "/chats/{chat_id}/owner"): {"operator": "bob"},
    ("put", "/operators/{username}"): {"password": "a hostile password"},
    ("post", "/rooms"): {"name": "hostile"},
    ("post", "/rooms/{name}/messages"): {"operator": "bob", "message": "hostile"},
    ("post", "/visitors/{visitor_id}/pageviews"): {"nick": "hostile"},
}
"""Bodies that would be right, by method and what follows the tenant's name; of the others it is empty."""
TENANT = "/v1/tenants/{instance_name}"
ROOM_CALLS: dict[str, dict[str, str]] = {
    "create_room": {"name": "hostile", "service": "conference.localhost", "host": "localhost"},
    "destroy_room": {"name": "team", "service": "conference.localhost"},
    "muc_online_rooms": {"host": "conference.localhost"},
    "subscribe_room": {"user": "bob.NAME@localhost", "nick": "x", "room": "team@conference.localhost", "nodes": ""},
    "send_direct_invitation": {
        "name": "team",
        "service": "conference.localhost",
        "password": "",
        "reason": "hostile",
        "users": "bob.NAME@localhost",
    },
}


@pytest.fixture
async def two(new_tenant: NewTenant) -> AsyncIterator[tuple[TenantApi, TenantApi]]:
    """The hostile one, and one that has something of each kind."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(api_of(await new_tenant(routing="orchestrator")))
        theirs = await stack.enter_async_context(api_of(await new_tenant(routing="orchestrator")))
        made = await theirs.http.put("/operators/bob", json={"password": "operator-pw-1"})
        assert made.status_code == 201, made.text
        assert (await theirs.http.post("/rooms", json={"name": "team"})).status_code == 201
        await theirs.chat("12", message="how much?")
        await theirs.write("12", "for two", message_id="line-0001")
        yield ours, theirs


async def operations(http: httpx.AsyncClient) -> list[tuple[str, str]]:
    """Method and path of each, as the API's own document has them."""
    document = (await http.get("/openapi.json")).json()
    found = [(method, path) for path, methods in document["paths"].items() for method in methods]
    return [one for one in found if one[1].startswith("/v1") or one[1] == "/metrics"]


def plain(answer: httpx.Response, *names: str) -> tuple[int, str]:
    """The answer, whoever it was asked about."""
    asked = "|".join(map(re.escape, names))
    return answer.status_code, re.sub(rf"\b({asked})\b", "VICTIM", answer.text)


def client(api: TenantApi) -> httpx.AsyncClient:
    """With the tenant's token, for the whole API."""
    headers = {"Authorization": f"Bearer {api.token}"}
    return httpx.AsyncClient(base_url=api.tenant.system.endpoints["api"], headers=headers, timeout=30)


async def ids_of(instance_name: str, panel: Panel) -> tuple[dict[str, str], dict[str, str]]:
    """What the tenant has, and what nobody has, by the names of the parameters."""
    (token, *_) = [
        one for one in (await panel.http.get("/v1/tokens")).json()["tokens"] if one["instance_name"] == instance_name
    ]
    (operation, *_) = (await panel.http.get(f"/v1/tenants/{instance_name}/operations")).json()["operations"]
    return (
        {**THERE, "message_id": "1", "token_id": str(token["id"]), "operation_id": operation["id"]},
        {**MISSING, "message_id": "999999", "token_id": "999999", "operation_id": "f" * len(operation["id"])},
    )


def bodies(method: str, path: str) -> Iterator[dict[str, Any] | None]:
    if method in {"get", "delete"}:
        yield None
    else:
        yield {}
        yield VALID.get((method, path.removeprefix(TENANT)), {"hostile": True})


async def test_a_token_opens_nothing_of_another_tenant(two: tuple[TenantApi, TenantApi], panel: Panel) -> None:
    ours, theirs = two
    there, missing = await ids_of(theirs.tenant.name, panel)
    names = (theirs.tenant.name, NOBODY, there["operation_id"], missing["operation_id"], there["token_id"])
    asked = 0
    async with nothing_changes(theirs.tenant), client(ours) as http:
        for method, path in await operations(http):
            of_theirs = path.format(instance_name=theirs.tenant.name, **there)
            of_nobody = path.format(instance_name=NOBODY, **(there if path.startswith(TENANT) else missing))
            for body in bodies(method, path):
                told = await http.request(method, of_theirs, json=body)
                otherwise = await http.request(method, of_nobody, json=body)
                assert told.status_code in {403, 404, 405, 422}, f"{method} {path}: {told.text}"
                assert plain(told, *names) == plain(otherwise, *names), f"{method} {path}"
                asked += 1
    assert asked > 60


async def test_what_another_tenant_has_is_not_found_under_ones_own_name(
    two: tuple[TenantApi, TenantApi], panel: Panel
) -> None:
    ours, theirs = two
    there, missing = await ids_of(theirs.tenant.name, panel)
    names = [*there.values(), *missing.values()]
    asked = 0
    async with nothing_changes(theirs.tenant), client(ours) as http:
        for method, path in await operations(http):
            # what makes something makes it here
            if not path.startswith(f"{TENANT}/") or "{" not in path[len(TENANT) :] or "visitor_id" in path:
                continue
            if method == "put" and path.endswith("{username}"):
                continue
            body = None if method in {"get", "delete"} else VALID.get((method, path.removeprefix(TENANT)), {})
            told = await http.request(method, path.format(instance_name=ours.tenant.name, **there), json=body)
            otherwise = await http.request(method, path.format(instance_name=ours.tenant.name, **missing), json=body)
            assert told.status_code in {204, 404, 422}, f"{method} {path}: {told.text}"
            assert plain(told, *names) == plain(otherwise, *names), f"{method} {path}"
            asked += 1
    assert asked > 15


async def test_a_key_opens_nothing_of_another_tenant(two: tuple[TenantApi, TenantApi]) -> None:
    """Of LHC's two faces; that all arguments are looked at is tested with each."""
    ours, theirs = (one.tenant for one in two)
    async with nothing_changes(theirs):
        for endpoint, body in BODIES.items():
            answers = []
            for name in (theirs.name, NOBODY):
                named = {key: _renamed(value, "json-face", name) for key, value in body.items()}
                elsewhere = await ours.lhc.call(endpoint, **named)
                answers.append(plain(elsewhere, name))
                at_theirs = Lhc(
                    name, base=f"{ours.system.endpoints['api']}/t/{name}", secret_key=ours.key, host=ours.host
                )
                answers.append(plain(await at_theirs.call(endpoint, **named), name))
            assert answers[:2] == answers[2:], endpoint
            assert '"error":true' in answers[0][1]
            assert answers[1] == (403, "Forbidden")
        rpc = rpc_of(ours)
        for method, arguments in itertools.chain(METHODS.items(), ROOM_CALLS.items()):
            faults = []
            for name in (theirs.name, NOBODY):
                rpc.url = f"{ours.system.endpoints['api']}/t/{name}/rpc"
                faults.append(await rpc.fault(method, _named(arguments, name)))
            assert faults == [(-118, "Error -118\nInvalid authentication data")] * 2, method
        rpc.url = f"{ours.lhc_url}/rpc"
        for method, arguments in METHODS.items():
            told = [await rpc.fault(method, _named(arguments, name)) for name in (theirs.name, NOBODY)]
            assert told[0] == told[1], method
            assert told[0][0] == -118
        assert await rpc.call("muc_online_rooms", ROOM_CALLS["muc_online_rooms"]) == {"rooms": []}


def _named(arguments: dict[str, str], name: str) -> dict[str, str]:
    return {key: value.replace("NAME", name) for key, value in arguments.items()}


def _renamed(value: Any, old: str, new: str) -> Any:
    return value.replace(old, new) if isinstance(value, str) else [one.replace(old, new) for one in value]
