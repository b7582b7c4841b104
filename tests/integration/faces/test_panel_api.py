"""The panel's API against the running system: tenants, operations, tokens, the audit log, and what is refused."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.tenant import Tenant

_numbers = itertools.count(1)
PASSWORD = "0123456789abcdef0123"


def new_name() -> str:
    return f"api{next(_numbers)}-{os.getpid()}"


@pytest.fixture
async def http(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any token."""
    async with httpx.AsyncClient(base_url=system.endpoints["api"]) as http:
        yield http


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def reached(panel: Panel, name: str, state: str) -> None:
    async def is_so() -> bool:
        return bool((await panel.http.get(f"/v1/tenants/{name}")).json().get("state") == state)

    await until_async(is_so, f"{name} is {state}")


async def test_the_list_is_filtered_searched_and_paged(panel: Panel) -> None:
    part = f"list{os.getpid()}"
    names = [f"{part}-{letter}" for letter in "abc"]
    await asyncio.gather(*(panel.create(name) for name in names))
    await panel.destroy(names[0])
    first = (await panel.http.get("/v1/tenants", params={"search": part.upper(), "limit": 1})).json()
    assert [line["instance_name"] for line in first["tenants"]] == [names[1]]
    second = (await panel.http.get("/v1/tenants", params={"search": part, "limit": 1, "after": first["next"]})).json()
    assert [line["instance_name"] for line in second["tenants"]] == [names[2]]
    assert second["next"] is None
    gone = (await panel.http.get("/v1/tenants", params={"search": part, "state": "destroyed"})).json()["tenants"]
    assert [line["instance_name"] for line in gone] == [names[0]]
    assert (await panel.http.get("/v1/tenants", params={"search": f"{part}_"})).json()["tenants"] == []


async def test_settings_keep_their_value_or_go_back_to_the_default(panel: Panel) -> None:
    name = new_name()
    await panel.create(name, online_seconds=60, max_accounts=5, visitor_tracking=False)
    changed = (
        await panel.http.put(f"/v1/tenants/{name}", json={"online_seconds": None, "calls_per_second": 2.5})
    ).json()
    assert (changed["online_seconds"], changed["calls_per_second"]) == (300, 2.5)
    assert (changed["max_accounts"], changed["visitor_tracking"], changed["xmpp"]) == (5, False, True)

    async def log() -> list[tuple[str, str, str]]:
        entries = (await panel.http.get(f"/v1/tenants/{name}/audit")).json()["entries"]
        return [(entry["actor"], entry["action"], entry["reason"]) for entry in entries if not entry["operation_id"]]

    assert ("panel", "settings changed", "online_seconds, calls_per_second") in await log()
    before = len(await log())
    again = await panel.http.put(f"/v1/tenants/{name}", json={"calls_per_second": 2.5}, params={"reason": "again"})
    assert (again.json()["updated_at"], len(await log())) == (changed["updated_at"], before), "nothing has changed"


async def test_a_post_creates_once_and_a_put_as_often_as_one_likes(panel: Panel) -> None:
    name = new_name()
    created = await panel.http.post("/v1/tenants", json={"instance_name": name})
    assert created.status_code == 202
    assert len(created.json()["secret_key"]) >= 40
    await panel.finished(created.json()["operation"]["id"])
    again = await panel.http.post("/v1/tenants", json={"instance_name": name})
    assert (again.status_code, again.json()["detail"]) == (409, f"there is a tenant '{name}' already")
    assert (await panel.http.put(f"/v1/tenants/{name}")).status_code == 200


async def test_a_repeated_post_with_its_key_is_answered_the_same_without_the_secret(panel: Panel) -> None:
    name = new_name()
    request: dict[str, Any] = {"json": {"instance_name": name}, "headers": {"Idempotency-Key": f"key-{name}"}}
    answers = [await panel.http.post("/v1/tenants", **request) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert answers[1].headers["Location"] == answers[0].headers["Location"]
    first, second = (answer.json() for answer in answers)
    assert first["secret_key"]
    assert second == {**first, "secret_key": None}

    other = await panel.http.post("/v1/tenants", json={"instance_name": new_name()}, headers=request["headers"])
    assert other.status_code == 422
    assert other.json()["errors"] == [{"field": "Idempotency-Key", "rule": "was used for another request"}]
    # what failed has changed nothing, and may be tried again
    taken: dict[str, Any] = {"json": {"instance_name": name}, "headers": {"Idempotency-Key": "another"}}
    assert [(await panel.http.post("/v1/tenants", **taken)).status_code for _ in range(2)] == [409, 409]


async def test_many_at_once_with_one_key_are_one(panel: Panel) -> None:
    name = new_name()
    answers = await asyncio.gather(
        *(
            panel.http.post("/v1/tenants", json={"instance_name": name}, headers={"Idempotency-Key": f"at-once-{name}"})
            for _ in range(10)
        )
    )
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len([answer for answer in answers if answer.status_code == 202 and answer.json()["secret_key"]]) == 1
    assert {answer.json()["detail"] for answer in answers if answer.status_code == 409} <= {
        "the request with this Idempotency-Key is under way"
    }


async def test_the_first_operator_comes_with_the_tenant(system: System, panel: Panel) -> None:
    name = new_name()
    body = {"operator": {"username": "bob", "password": "kraftwerk-1974", "nick": "Bob"}}
    answers = [await panel.http.put(f"/v1/tenants/{name}", json=body) for _ in range(2)]
    assert len({answer.json()["operation"]["id"] for answer in answers}) == 1, "asked twice, done once"
    await panel.finished(answers[0].json()["operation"]["id"])
    assert (await panel.http.put(f"/v1/tenants/{name}", json=body)).status_code == 200, "and once more"
    host = system.endpoints["xmpp_host"]
    assert await system.ejabberd("check_password", user=f"bob.{name}", host=host, password="kraftwerk-1974") == 0
    assert await system.ejabberd("srg_get_members", group=f"operators.{name}", host=host) == [f"bob.{name}@{host}"]
    other = await panel.http.put(
        f"/v1/tenants/{name}", json={"operator": {"username": "eve", "password": "kraftwerk-1974"}}
    )
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "operator")


@pytest.mark.parametrize(
    ("operator", "field"),
    [
        ({"username": "visitor.1", "password": "operator-pw"}, "operator.username"),
        ({"username": "bob", "password": "a\x00b-operator-pw"}, "operator.password"),
        ({"username": "bob", "password": "operator-pw", "nick": "a\x00b"}, "operator.nick"),
        ({"username": "bob", "password": "operator-pw", "admin": True}, "operator.admin"),
        ({"username": "bob"}, "operator.password"),
    ],
)
async def test_a_wrong_operator_is_named_and_nothing_is_made(
    panel: Panel, operator: dict[str, Any], field: str
) -> None:
    name = new_name()
    answer = await panel.http.put(f"/v1/tenants/{name}", json={"operator": operator})
    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert "kraftwerk" not in answer.text
    assert (await panel.http.get(f"/v1/tenants/{name}")).status_code == 404


async def test_suspend_and_resume_say_what_there_was_to_do(tenant: Tenant) -> None:
    http, path = tenant.panel.http, f"/v1/tenants/{tenant.name}"
    assert (await http.post(f"{path}/resume")).json()["state"] == "active", "nothing to do"
    asked = await http.post(f"{path}/suspend", params={"reason": "bill not paid"})
    assert asked.status_code == 202
    assert asked.headers["Location"] == f"/v1/operations/{asked.json()['id']}"
    assert (asked.json()["kind"], asked.json()["reason"]) == ("suspend", "bill not paid")
    await tenant.panel.finished(asked.json()["id"])
    again = await http.post(f"{path}/suspend")
    assert (again.status_code, again.json()["state"]) == (200, "suspended")
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).json()["error"] is True
    await tenant.panel.finished((await http.post(f"{path}/resume")).json()["id"])
    assert (await tenant.lhc.new_visitor("visitor.1", PASSWORD)).json() == {"error": False, "msg": ""}

    log = (await http.get("/v1/audit", params={"instance_name": tenant.name})).json()["entries"]
    transitions = [(entry["old_state"], entry["new_state"], entry["reason"]) for entry in log if entry["new_state"]]
    assert transitions[::-1] == [
        ("destroyed", "pending", None),
        ("pending", "provisioning", None),
        ("provisioning", "active", None),
        ("active", "suspending", "bill not paid"),
        ("suspending", "suspended", "bill not paid"),
        ("suspended", "resuming", None),
        ("resuming", "active", None),
    ]
    assert {entry["actor"] for entry in log} == {"panel"}


async def test_both_keys_open_while_they_overlap(tenant: Tenant) -> None:
    http, path = tenant.panel.http, f"/v1/tenants/{tenant.name}/rotate-keys"
    endpoints = tenant.system.endpoints

    async def opens(key: str) -> bool:
        lhc = Lhc(tenant.name, base=f"{endpoints['api']}/t/{tenant.name}", secret_key=key, host=tenant.host)
        return (await lhc.page_view("visitor.1", PASSWORD)).status_code != 403

    rotated = await http.post(path, json={"overlap_seconds": 3600})
    assert rotated.status_code == 202
    second = rotated.json()["secret_key"]
    await tenant.panel.finished(rotated.json()["operation"]["id"])
    assert (await opens(tenant.key), await opens(second)) == (True, True)
    assert (await http.get(f"/v1/tenants/{tenant.name}")).json()["previous_key_until"] is not None

    third = (await http.post(path, json={"overlap_seconds": 0})).json()
    await tenant.panel.finished(third["operation"]["id"])

    async def is_refused() -> bool:
        return not await opens(second)

    # a page view without news is answered from memory: see `tenants.process.cache`
    await until_async(is_refused, "the key is refused", 5)
    assert [await opens(key) for key in (tenant.key, second, third["secret_key"])] == [False, False, True]
    log = (tenant.system.state / "logs" / "api.log").read_text()
    assert [key for key in (second, third["secret_key"]) if key in log] == []


async def test_callbacks_move_with_the_address_and_accounts_stay(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    moved = f"moved-{tenant.name}.localhost"
    answer = await tenant.panel.http.post(
        f"/v1/tenants/{tenant.name}/address",
        json={"callback_url": f"http://{moved}:{tenant.system.endpoints['callback_port']}"},
    )
    await tenant.panel.finished(answer.json()["id"])
    bob.write(tenant.lhc.name("visitor.1"), "Are you there?")
    assert (await tenant.receiver.message("Are you there?")).host.split(":")[0] == moved
    accounts = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"]
    assert accounts == {"operator": 1, "visitor": 1, "chat": 0}


async def test_many_tenants_in_one_request(panel: Panel) -> None:
    names = [new_name() for _ in range(3)]
    await asyncio.gather(*(panel.create(name) for name in names))
    answer = await panel.http.post("/v1/tenants/bulk", json={"action": "suspend", "instance_names": [*names, "nobody"]})
    assert answer.status_code == 202
    bulk = answer.json()
    assert [outcome["instance_name"] for outcome in bulk["outcomes"]] == [*names, "nobody"]
    assert bulk["outcomes"][-1]["problem"] | {"type": ""} == {
        "type": "",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no tenant 'nobody'",
        "errors": None,
    }
    for outcome in bulk["outcomes"][:-1]:
        await panel.finished(outcome["operation_id"])
    found = (await panel.http.get("/v1/operations", params={"bulk_id": bulk["bulk_id"], "limit": 2})).json()
    rest = (await panel.http.get("/v1/operations", params={"bulk_id": bulk["bulk_id"], "after": found["next"]})).json()
    listed = [operation["instance_name"] for operation in [*found["operations"], *rest["operations"]]]
    assert sorted(listed) == sorted(names)


async def test_a_bulk_finds_its_tenants_by_a_search(panel: Panel) -> None:
    part = f"bulk{os.getpid()}"
    names = [f"{part}-{letter}" for letter in "ab"]
    await asyncio.gather(*(panel.create(name) for name in names))
    await panel.finished((await panel.http.post(f"/v1/tenants/{names[0]}/suspend")).json()["id"])

    async def outcomes(**wanted: str) -> list[tuple[str, bool]]:
        answer = (await panel.http.post("/v1/tenants/bulk", json=wanted)).json()
        for outcome in answer["outcomes"]:
            assert outcome["problem"] is None
            if outcome["operation_id"]:
                await panel.finished(outcome["operation_id"])
        return [(outcome["instance_name"], outcome["operation_id"] is not None) for outcome in answer["outcomes"]]

    assert await outcomes(action="resume", search=part, state="suspended") == [(names[0], True)]
    assert await outcomes(action="resume", search=part) == [(names[0], False), (names[1], False)]
    assert await outcomes(action="destroy", search=part) == [(names[0], True), (names[1], True)]
    assert await outcomes(action="destroy", search=part) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"action": "suspend"},
        {"action": "suspend", "instance_names": ["x"], "state": "active"},
        {"action": "suspend", "instance_names": []},
        {"action": "suspend", "instance_names": ["x"] * 1001},
        {"action": "suspend", "instance_names": ["a\x00"]},
        {"action": "provision", "instance_names": ["x"]},
    ],
)
async def test_a_bulk_that_is_not_clear_is_refused(panel: Panel, wanted: dict[str, Any]) -> None:
    assert (await panel.http.post("/v1/tenants/bulk", json=wanted)).status_code == 422


async def events(panel: Panel, operation_id: str, **headers: str) -> list[dict[str, Any]]:
    """All events of the stream until it ends by itself."""
    found: list[dict[str, Any]] = []
    async with panel.http.stream("GET", f"/v1/operations/{operation_id}/events", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        event: dict[str, Any] = {}
        async for line in stream.aiter_lines():
            name, _, value = line.partition(": ")
            if name == "data":
                event["data"] = json.loads(value)
            elif name in {"id", "event"}:
                event[name] = value
            elif not line and event:
                found.append(event)
                event = {}
    return found


async def test_an_operation_is_a_stream_of_events(tenant: Tenant) -> None:
    visitors = [tenant.lhc.name(f"visitor.{number}") for number in range(1, 60)]
    await tenant.system.join(f"visitors.{tenant.name}", *visitors)
    started = (await tenant.panel.http.delete(f"/v1/tenants/{tenant.name}")).json()
    async with asyncio.timeout(30):
        seen = await events(tenant.panel, started["id"])
    assert [event["event"] for event in seen] == ["operation"] * len(seen)
    assert len({event["id"] for event in seen}) == len(seen), "each tells something new"
    progress = [event["data"]["progress"] for event in seen]
    assert progress == sorted(progress)
    assert (seen[-1]["data"]["state"], progress[-1]) == ("succeeded", 1)
    # who comes back knows it all
    assert await events(tenant.panel, started["id"], **{"Last-Event-ID": seen[-1]["id"]}) == []


async def test_what_a_destroyed_tenant_left_can_be_read(panel: Panel) -> None:
    name = new_name()
    await panel.create(name)
    gone = await panel.destroy(name)
    log = (await panel.http.get(f"/v1/tenants/{name}/audit", params={"limit": 2})).json()
    assert log["entries"][0]["operation_id"] == gone["id"]
    older = (await panel.http.get(f"/v1/tenants/{name}/audit", params={"before": log["next"]})).json()
    assert older["entries"][-1]["new_state"] == "pending"
    operations = (await panel.http.get(f"/v1/tenants/{name}/operations", params={"kind": "destroy"})).json()
    assert [operation["id"] for operation in operations["operations"]] == [gone["id"]]
    for nothing in ("audit", "operations"):
        assert (await panel.http.get(f"/v1/tenants/never-was/{nothing}")).status_code == 404
    assert (await panel.http.get(f"/v1/tenants/{name}")).status_code == 404


async def test_a_stream_of_nothing_is_not_found(panel: Panel) -> None:
    answer = await panel.http.get("/v1/operations/none/events")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_operations_refuse_what_makes_no_sense(tenant: Tenant) -> None:
    http = tenant.panel.http
    done = (await http.get(f"/v1/tenants/{tenant.name}")).json()["operation"]["id"]
    for action in ("retry", "cancel", "pause", "resume"):
        answer = await http.post(f"/v1/operations/{done}/{action}")
        assert (answer.status_code, action, done in answer.json()["detail"]) == (409, action, True)
        assert (await http.post(f"/v1/operations/none/{action}")).status_code == 404


async def test_tokens_open_what_their_scope_says(tenant: Tenant, http: httpx.AsyncClient, panel: Panel) -> None:
    other = new_name()
    await panel.create(other)

    async def token(**wanted: Any) -> dict[str, Any]:
        answer = await panel.http.post("/v1/tokens", json=wanted)
        assert answer.status_code == 201
        made: dict[str, Any] = answer.json()
        return made

    reader = await token(name="dashboard", scope="panel:read")
    own = await token(name="acme's LHC", scope="tenant", instance_name=tenant.name)
    writer = await token(name="billing", scope="panel:write")

    async def statuses(made: dict[str, Any]) -> list[int]:
        requests = (
            ("GET", f"/v1/tenants/{tenant.name}"),
            ("GET", f"/v1/tenants/{tenant.name}/deliveries"),
            ("GET", f"/v1/tenants/{tenant.name}/audit"),
            ("GET", f"/v1/tenants/{tenant.name}/operations"),
            ("GET", f"/v1/tenants/{other}"),
            ("GET", f"/v1/tenants/{other}/audit"),
            ("GET", "/v1/tenants"),
            ("GET", "/v1/audit"),
            ("GET", "/v1/tokens"),
            ("PUT", f"/v1/tenants/{tenant.name}"),
            ("POST", f"/v1/tenants/{tenant.name}/deliveries/replay"),
        )
        answers = [await http.request(*request, headers=bearer(made["token"])) for request in requests]
        return [answer.status_code for answer in answers]

    assert await statuses(reader) == [200] * 8 + [403] * 3
    assert await statuses(own) == [200] * 4 + [404] * 2 + [403] * 4 + [202]
    assert await statuses(writer) == [200] * 10 + [202]
    unknown = await http.get("/v1/tenants/nobody", headers=bearer(own["token"]))
    known = await http.get(f"/v1/tenants/{other}", headers=bearer(own["token"]))
    assert unknown.json()["detail"].replace("nobody", other) == known.json()["detail"]

    await http.put(f"/v1/tenants/{tenant.name}/", headers=bearer(writer["token"]))
    await http.post(f"/v1/tenants/{tenant.name}/suspend", headers=bearer(writer["token"]))
    log = (await panel.http.get("/v1/audit", params={"instance_name": tenant.name, "limit": 1})).json()
    assert log["entries"][0]["actor"] == "billing"

    listed = (await panel.http.get("/v1/tokens")).json()["tokens"]
    assert all("token" not in line and "digest" not in line for line in listed)
    assert (await panel.http.delete(f"/v1/tokens/{writer['id']}")).status_code == 204
    assert set(await statuses(writer)) == {401}
    assert writer["id"] not in {line["id"] for line in (await panel.http.get("/v1/tokens")).json()["tokens"]}
    assert (await panel.http.delete("/v1/tokens/none")).status_code == 404
    seen = (await panel.http.get(f"/v1/tokens/{writer['id']}")).json()
    assert seen["revoked_at"]
    assert seen["last_used_at"]


async def test_a_token_ends_with_its_tenant(panel: Panel, http: httpx.AsyncClient) -> None:
    name = new_name()
    wanted = {"name": "own", "scope": "tenant", "instance_name": name}
    refused = await panel.http.post("/v1/tokens", json=wanted)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "instance_name")
    await panel.create(name)
    made = (await panel.http.post("/v1/tokens", json=wanted)).json()
    assert (await http.get(f"/v1/tenants/{name}", headers=bearer(made["token"]))).status_code == 200
    await panel.destroy(name)
    await panel.create(name)
    assert (await http.get(f"/v1/tenants/{name}", headers=bearer(made["token"]))).status_code == 401


async def test_a_revoked_token_is_not_given_what_it_was_answered_before(panel: Panel, http: httpx.AsyncClient) -> None:
    made = (await panel.http.post("/v1/tokens", json={"name": "short-lived", "scope": "panel:write"})).json()
    name = new_name()
    headers = {**bearer(made["token"]), "Idempotency-Key": f"revoked-{name}"}

    async def status() -> int:
        return (await http.post("/v1/tenants", json={"instance_name": name}, headers=headers)).status_code

    assert [await status(), await status()] == [202, 202]
    await panel.http.delete(f"/v1/tokens/{made['id']}")
    assert await status() == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PATCH", "/v1/tenants/x", 405),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/operations/x", 405),
        ("GET", "/v1/tenants?limit=0", 422),
        ("GET", "/v1/tenants?state=happy", 422),
        ("GET", "/v1/operations?after=none", 404),
        ("GET", "/v1/tokens?after=none", 404),
        ("GET", "/v1/tenants/%00", 422),
        ("GET", "/v1/tenants?search=%00", 422),
        ("POST", f"/v1/tenants/x/suspend?reason={'x' * 501}", 422),
        ("DELETE", "/v1/tenants", 405),
        ("QUERY", "/v1/tenants", 405),
        ("GET", "/v1/tenants/x/deliveries/replay", 405),
    ],
)
async def test_every_refusal_is_a_problem_document(panel: Panel, method: str, path: str, status: int) -> None:
    answer = await panel.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"\xff", {"Content-Type": "application/json"}, 400),
        (b"[" * 50_000, {"Content-Type": "application/json"}, 400),
        (b"[]", {"Content-Type": "application/json"}, 422),
        (b'{"\\ud800": 1}', {"Content-Type": "application/json"}, 422),
        (b'{"instance_name": "\\ud800"}', {"Content-Type": "application/json"}, 422),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {}, 415),
        (b"x" * 600_000, {"Content-Type": "application/json"}, 413),
    ],
)
async def test_a_body_that_is_none_changes_nothing(
    panel: Panel, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await panel.http.post("/v1/tenants", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "large"}])
async def test_a_body_that_does_not_say_how_large_it_is_is_cut_off(panel: Panel, key: dict[str, str]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b" " * 10_000

    headers = {"Content-Type": "application/json", **key}
    answer = await panel.http.post("/v1/tenants", content=chunks(), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
