"""The JSON face, field by field, as docs/wire.md has it: answers to the byte, bad input included."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import httpx
import pytest

from bench.testbed.lhc import Lhc, php_json
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.json_bodies import BODIES, DISPLAY_BOTH, DISPLAY_NONE, HOST, NAME, PASSWORD
from tests.world.tenant import Tenant

HTML = "text/html; charset=utf-8"

Said = tuple[int, str, str]
OK: Said = (200, HTML, "ok")
DONE: Said = (200, HTML, '{"error":false,"msg":""}')
INVALID_ARGUMENTS: Said = (200, HTML, '{"error":true,"msg":"Invalid arguments"}')
FORBIDDEN: Said = (403, "text/plain; charset=utf-8", "Forbidden")
UNKNOWN_USER: Said = (200, HTML, r'{"error":true,"msg":"{not_found,\"unknown_user\"}\n"}')
UNKNOWN_HOST: Said = (200, HTML, r'{"error":true,"msg":"Error: cannot_register: Unknown virtual host\n"}')
PLAIN_ENDPOINTS = ("/xmpp", "/xmpp-send-message")
REGISTERING = ("/xmpp-register", "/xmpp-register-online-visitor")
OPTIONAL = {"hostlogin", "nick", "status", "display_array"}
REQUIRED = [
    (endpoint, key)
    for endpoint, body in BODIES.items()
    for key in body
    if endpoint not in PLAIN_ENDPOINTS and key not in OPTIONAL
]
TEXTS = [(endpoint, key) for endpoint, body in BODIES.items() for key in body if key != "display_array"]
HOSTS = [(endpoint, key) for endpoint, key in REQUIRED if key in {"host", "grouphost"}]


@pytest.fixture(scope="module")
async def acme(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    """The tenant that the tests of wrong requests ask about in vain: it has no accounts, and keeps none."""
    return Tenant(system, receiver, panel, await panel.create(NAME))


@pytest.fixture
def root(system: System) -> Lhc:
    """An LHC with the hosting-wide key at the root."""
    return Lhc(NAME, base=system.endpoints["api"], secret_key=system.endpoints["hosting_key"], host=HOST)


def said(answer: httpx.Response) -> Said:
    return answer.status_code, answer.headers["content-type"], answer.text


def failure(msg: str) -> Said:
    return 200, HTML, json.dumps({"error": True, "msg": msg}, separators=(",", ":"), ensure_ascii=False)


def http_client(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, verify=False)  # noqa: S501 - no TLS here; loading the CAs takes 20 ms


async def ask(method: str, url: str) -> httpx.Response:
    async with http_client("") as http:
        return await http.request(method, url)


async def everything(tenant: Tenant) -> list[Any]:
    """All accounts and rosters in ejabberd, and what the registry holds of the tenant."""
    questions: tuple[tuple[str, dict[str, str | int]], ...] = (
        ("lhc_accounts", {"suffix": "", "after": "", "limit": 10_000}),
        ("lhc_shared_rosters", {"after": "", "limit": 10_000}),
        ("srg_get_info", {"group": f"operators.{NAME}"}),
        ("srg_get_members", {"group": f"operators.{NAME}"}),
        ("srg_get_members", {"group": f"visitors.{NAME}"}),
    )
    found = [await tenant.system.ejabberd(command, host=HOST, **keys) for command, keys in questions]
    known = await tenant.panel.http.get(f"/v1/tenants/{NAME}")
    assert known.status_code == 200
    return [*found, known.json()]


@asynccontextmanager
async def nothing_changes(tenant: Tenant) -> AsyncIterator[None]:
    before = await everything(tenant)
    yield
    assert await everything(tenant) == before


async def has_password(tenant: Tenant, user: str, password: str) -> bool:
    """Whether ejabberd itself lets the user in with it."""
    return bool(await tenant.system.ejabberd("check_password", user=user, host=HOST, password=password) == 0)


async def members(tenant: Tenant, kind: str) -> list[str]:
    return sorted(await tenant.system.ejabberd("srg_get_members", group=f"{kind}.{tenant.name}", host=HOST))


async def roster(system: System, group: str) -> dict[str, object]:
    """The shared roster as ejabberd holds it; empty when there is none."""
    found = await system.roster(group)
    return asdict(found) if found else {}


async def registry_accounts(tenant: Tenant) -> dict[str, int]:
    counts: dict[str, int] = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"]
    return counts


def set_up(instance_name: str, kind: str) -> dict[str, Any]:
    """The keys of one of the two calls that the extension makes for a new tenant."""
    groups = [f"operators.{instance_name}", f"visitors.{instance_name}"] if kind == "operators" else []
    return {
        "group": f"{kind}.{instance_name}",
        "host": HOST,
        "name": kind.capitalize(),
        "desc": f"{kind.capitalize()} of LHC",
        "display": r"\"" + r"\\n".join(groups) + r"\"",
        "display_array": groups,
    }


# Common errors


@pytest.mark.parametrize("endpoint", ["/xmpp", "/xmpp-register", "/xmpp-testing-json"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b'"x"',
        b"5",
        b"true",
        b" ",
        b"nonsense",
        b"{'a':'b'}",
        b'{"a":"b"}x',
        b'{"a":"\xff"}',
        b"[" * 50_000,
        b'{"a":NaN}',
        b'{"a":-Infinity}',
    ],
)
async def test_what_is_not_a_json_object_is_400(acme: Tenant, endpoint: str, body: bytes) -> None:
    answer = await acme.lhc.post(endpoint, body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, HTML)
    assert answer.json()["error"] is True


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json; charset=iso-8859-1", b"{}", 415),
        ("application/json", b" " * 102_401, 413),
    ],
)
async def test_who_asks_for_json_gets_the_error_page_as_json(
    acme: Tenant, content_type: str, body: bytes, status: int
) -> None:
    answer = await acme.lhc.post("/xmpp-register", body, content_type, Accept="application/json")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["error"] is True


@pytest.mark.parametrize("charset", ["iso-8859-1", "ISO-8859-13", "windows-1257", '"latin1"'])
async def test_a_charset_other_than_utf_is_415(acme: Tenant, charset: str) -> None:
    answer = await acme.lhc.post("/xmpp-register", b"{}", f"application/json; charset={charset}")
    assert (answer.status_code, answer.headers["content-type"]) == (415, HTML)


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        ("application/json", "utf-8"),
        ("application/json;charset=UTF-8", "utf-8"),
        ('Application/JSON; charset="utf-8"', "utf-8"),
        ("application/json; charset=utf-16", "utf-16"),
    ],
)
async def test_json_in_every_utf_is_read(acme: Tenant, content_type: str, encoding: str) -> None:
    body = php_json({"group": "operators.nobody", "host": HOST, "secret_key": acme.key}).encode(encoding)
    answer = await acme.lhc.post("/xmpp-does-shared-roaster-exists", body, content_type)
    assert said(answer) == failure(f"group: must be of '{NAME}': this key is that tenant's own")


@pytest.mark.parametrize(("size", "status"), [(102_400, 200), (102_401, 413), (300_000, 413)])
async def test_a_body_over_100_kb_is_413(acme: Tenant, size: int, status: int) -> None:
    answer = await acme.lhc.post("/xmpp-testing-json", b'{"a":"' + b"b" * (size - 8) + b'"}')
    assert (answer.status_code, answer.headers["content-type"]) == (status, HTML)


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_wrong_key_is_forbidden(acme: Tenant, endpoint: str) -> None:
    body = php_json({**BODIES[endpoint], "secret_key": "wrong"})
    assert said(await acme.lhc.post(endpoint, body)) == FORBIDDEN


@pytest.mark.parametrize("endpoint", ["/xmpp", "/xmpp-register"])
@pytest.mark.parametrize("key", ["", 5, None, True, "in a list", {"$ne": ""}, "\ud800"], ids=ascii)
async def test_what_is_no_key_at_all_is_forbidden(acme: Tenant, endpoint: str, key: Any) -> None:
    body = php_json({**BODIES[endpoint], "secret_key": [acme.key] if key == "in a list" else key})
    assert said(await acme.lhc.post(endpoint, body)) == FORBIDDEN


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_missing_key_is_forbidden(acme: Tenant, endpoint: str) -> None:
    assert said(await acme.lhc.post(endpoint, php_json(BODIES[endpoint]))) == FORBIDDEN


@pytest.mark.parametrize("endpoint", ["/xmpp", "/xmpp-register"])
@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"]
)
async def test_a_body_that_is_not_said_to_be_json_is_ignored(
    acme: Tenant, endpoint: str, content_type: str | None
) -> None:
    body = php_json({**BODIES[endpoint], "secret_key": acme.key})
    assert said(await acme.lhc.post(endpoint, body, content_type)) == FORBIDDEN


@pytest.mark.parametrize("body", ["", "[]", '[{"secret_key":"x"}]', "{}"])
async def test_a_body_that_cannot_hold_a_key_is_forbidden(acme: Tenant, body: str) -> None:
    assert said(await acme.lhc.post("/xmpp-register", body)) == FORBIDDEN


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", '{"secret_key":"wrong"', 400),
        ("application/json; charset=latin1", '{"secret_key":"wrong"}', 415),
        ("application/json", '{"secret_key":"wrong","user":"' + "b" * 102_400 + '"}', 413),
        ("application/json", '{"secret_key":"wrong"}', 403),
    ],
)
async def test_the_errors_of_a_request_come_before_those_of_its_key(
    acme: Tenant, content_type: str, body: str, status: int
) -> None:
    assert (await acme.lhc.post("/xmpp-register", body, content_type)).status_code == status


async def test_a_missing_key_is_told_before_a_wrong_value(acme: Tenant) -> None:
    assert said(await acme.lhc.call("/xmpp-register", user=5, host=5)) == INVALID_ARGUMENTS


@pytest.mark.parametrize(("endpoint", "key"), REQUIRED)
async def test_a_required_key_that_is_absent(acme: Tenant, endpoint: str, key: str) -> None:
    rest = {name: value for name, value in BODIES[endpoint].items() if name != key}
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **rest)
    if endpoint == "/xmpp-unregister":
        assert said(answer) == (200, HTML, '{"error":false,"msg":"Invalid arguments"}')
    else:
        assert said(answer) == INVALID_ARGUMENTS


@pytest.mark.parametrize("endpoint", PLAIN_ENDPOINTS)
@pytest.mark.parametrize("key", ["jid", "pass"])
async def test_a_visitor_without_name_or_password_is_not_accepted(acme: Tenant, endpoint: str, key: str) -> None:
    """No `ok`, because that says that the command was accepted."""
    rest = {name: value for name, value in BODIES[endpoint].items() if name != key}
    async with nothing_changes(acme):
        assert said(await acme.lhc.call(endpoint, **rest)) == INVALID_ARGUMENTS


EMPTY = {
    "user": "user: must end in .[instance_name]",
    "password": "password: must not be empty",
    "host": "host: must be localhost",
    "grouphost": "grouphost: must be localhost",
    "group": "group: must end in .[instance_name]",
}


@pytest.mark.parametrize(("endpoint", "key"), [(endpoint, key) for endpoint, key in REQUIRED if key in EMPTY])
async def test_an_empty_value_is_present_but_wrong(acme: Tenant, endpoint: str, key: str) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **{**BODIES[endpoint], key: ""})
    if key == "host" and endpoint in REGISTERING:
        assert said(answer) == UNKNOWN_HOST
    else:
        assert said(answer) == failure(EMPTY[key])


@pytest.mark.parametrize("key", ["name", "desc", "display"])
async def test_a_roster_may_have_an_empty_text(tenant: Tenant, key: str) -> None:
    keys = {**set_up(tenant.name, "operators"), key: ""}
    assert said(await tenant.lhc.call("/xmpp-setup-instance-roasters", **keys)) == DONE


@pytest.mark.parametrize("wrong", [5, None], ids=repr)
@pytest.mark.parametrize(("endpoint", "key"), TEXTS)
async def test_a_value_that_is_no_string_is_named(acme: Tenant, endpoint: str, key: str, wrong: Any) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **{**BODIES[endpoint], key: wrong})
    assert said(answer) == failure(f"{key}: must be a string")


@pytest.mark.parametrize("wrong", [5, [5], {}, ["operators.json-face", None], "operators.json-face"], ids=repr)
async def test_display_array_is_a_list_of_strings(acme: Tenant, wrong: Any) -> None:
    keys = {**BODIES["/xmpp-setup-instance-roasters"], "display_array": wrong}
    async with nothing_changes(acme):
        answer = await acme.lhc.call("/xmpp-setup-instance-roasters", **keys)
    assert said(answer) == failure("display_array: must be a list of strings")


@pytest.mark.parametrize("text", ["a\ud83db", "a\x00b", "a\u0627"], ids=ascii)
@pytest.mark.parametrize(("endpoint", "local"), [(REGISTERING[0], "bob"), (REGISTERING[1], "visitor.1")])
async def test_a_password_that_cannot_be_one_leaves_no_account(
    tenant: Tenant, endpoint: str, local: str, text: str
) -> None:
    """Half a character cannot be sent on; SASLprep takes no control characters, no mixed directions."""
    keys = {"user": tenant.lhc.name(local), "host": HOST, "password": text, "group": f"visitors.{tenant.name}"}
    answer = await tenant.lhc.call(endpoint, **keys)
    assert (answer.status_code, answer.headers["content-type"]) == (200, HTML)
    assert answer.json()["error"] is True
    assert "password" in answer.json()["msg"]
    assert await tenant.system.users_of(tenant.name) == []
    assert await registry_accounts(tenant) == {"operator": 0, "visitor": 0, "chat": 0}


@pytest.mark.parametrize("key", ["name", "desc"])
@pytest.mark.parametrize("text", ["a\ud83db", "a\x00b", "a\x0bb"], ids=ascii)
async def test_a_roster_text_that_xml_cannot_carry_does_not_hurt_the_operators(
    tenant: Tenant, key: str, text: str
) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.has_contact(tenant.lhc.name("visitor.1"))
    keys = {**set_up(tenant.name, "visitors"), key: text}
    answer = await tenant.lhc.call("/xmpp-setup-instance-roasters", **keys)
    assert (answer.status_code, answer.headers["content-type"]) == (200, HTML)
    await tenant.lhc.new_visitor("visitor.2", PASSWORD)
    await bob.has_contact(tenant.lhc.name("visitor.2"), seconds=5)
    assert not bob.disconnected.is_set()


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/xmpp-does-shared-roaster-exists",
        "/XMPP-does-shared-Roaster-EXISTS",
        "/xmpp-does-shared-roaster-exists/",
        "/xmpp-does-shared-roaster-exists?a=1&b=/x",
        "/Xmpp-Does-Shared-Roaster-Exists/?a",
    ],
)
async def test_paths_mind_neither_case_nor_slash_nor_query(acme: Tenant, root: Lhc, path: str) -> None:
    keys = {"group": "operators.nobody-at-all", "host": HOST}
    assert said(await root.call(path, **keys)) == failure("")
    capitals = Lhc(NAME, base=f"{acme.system.endpoints['api']}/T/{NAME.upper()}", secret_key=acme.key, host=HOST)
    present = await capitals.call(path, group=f"visitors.{NAME}", host=HOST)
    assert present.json()["error"] is False


@pytest.mark.parametrize("path", ["", "/", "/?a=1", "/t/json-face", "/t/json-face/"])
async def test_the_root_says_ok(acme: Tenant, path: str) -> None:
    assert said(await ask("GET", acme.system.endpoints["api"] + path)) == OK


@pytest.mark.parametrize("endpoint", [*BODIES, "/xmpp-testing-json", "/xmpp-testing-body", "/rpc"])
@pytest.mark.parametrize("tenant_path", ["", "/t/json-face"])
async def test_an_endpoint_takes_only_post(acme: Tenant, tenant_path: str, endpoint: str) -> None:
    answer = await ask("GET", f"{acme.system.endpoints['api']}{tenant_path}{endpoint}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, HTML)
    assert f"<pre>Cannot GET {tenant_path}{endpoint}</pre>" in answer.text


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/nothing", "/xmpp-nothing", "/xmpp/x", "/t/json-face/xmpp/x", "/t"])
async def test_an_unknown_path_is_404(acme: Tenant, method: str, path: str) -> None:
    answer = await ask(method, acme.system.endpoints["api"] + path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, HTML)
    assert f"<pre>Cannot {method} {path}</pre>" in answer.text


async def test_the_error_page_is_no_way_in_for_scripts(acme: Tenant) -> None:
    answer = await ask("GET", acme.system.endpoints["api"] + "/<script>alert(1)</script>")
    assert answer.status_code == 404
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    ("path", "whose_key", "may"),
    [
        ("/t/json-face", "own", True),
        ("", "hosting", True),
        ("/t/json-face", "hosting", False),
        ("", "own", False),
        ("/t/json-face-2", "own", False),
        ("/t/json-face-2", "hosting", False),
        ("/t/chat", "hosting", False),
        ("/t/json%2Dface", "own", True),
    ],
)
async def test_each_path_has_its_own_key(acme: Tenant, path: str, whose_key: str, *, may: bool) -> None:
    endpoints = acme.system.endpoints
    key = acme.key if whose_key == "own" else endpoints["hosting_key"]
    lhc = Lhc(NAME, base=endpoints["api"] + path, secret_key=key, host=HOST)
    answer = await lhc.call("/xmpp-change-password", **BODIES["/xmpp-change-password"])
    assert said(answer) == (UNKNOWN_USER if may else FORBIDDEN)


@pytest.mark.parametrize("endpoint", BODIES)
async def test_a_tenants_key_is_good_for_that_tenant_only(acme: Tenant, endpoint: str) -> None:
    foreign = json.loads(php_json(BODIES[endpoint]).replace(NAME, "next-door"))
    field = next(key for key in ("user", "jid", "group") if key in foreign)
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **foreign)
    assert said(answer) == failure(f"{field}: must be of '{NAME}': this key is that tenant's own")


@pytest.mark.parametrize("endpoint", ["/xmpp-testing-json", "/xmpp-testing-body"])
@pytest.mark.parametrize("tenant_path", ["", "/t/json-face", "/t/nobody"])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("", "application/json"),
        ("{}", "application/json"),
        ("[]", "application/json"),
        ('{"secret_key":"wrong"}', "application/json"),
        ("a=b", "text/plain"),
        ("", None),
    ],
)
async def test_the_testing_endpoints_need_no_key(
    system: System, endpoint: str, tenant_path: str, body: str, content_type: str | None
) -> None:
    lhc = Lhc(NAME, base=system.endpoints["api"] + tenant_path, secret_key="", host=HOST)
    assert said(await lhc.post(endpoint, body, content_type)) == (200, HTML, '{"status":true}')


# Accounts


async def test_an_operator_is_registered(tenant: Tenant) -> None:
    user = tenant.lhc.name("bob")
    answer = await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password="first/пароль")
    assert said(answer) == (200, HTML, rf'{{"error":false,"msg":"User {user}@localhost successfully registered\n"}}')
    assert await has_password(tenant, user, "first/пароль")
    assert await registry_accounts(tenant) == {"operator": 1, "visitor": 0, "chat": 0}
    assert await members(tenant, "operators") == []


async def test_registering_an_operator_again_is_a_success_or_a_conflict(tenant: Tenant) -> None:
    """LHC's form relies on the conflict: two users of LHC would have one address, and one of them no password."""
    user = tenant.lhc.name("bob")
    success = (200, HTML, rf'{{"error":false,"msg":"User {user}@localhost successfully registered\n"}}')
    conflict = (200, HTML, rf'{{"error":true,"msg":"Error: conflict: User {user}@localhost already registered\n"}}')
    for password, answer in (("first", success), ("first", success), ("second", conflict), ("first", success)):
        assert said(await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password=password)) == answer
    in_capitals = await tenant.lhc.call("/xmpp-register", user=user.upper(), host=HOST, password="second")
    assert said(in_capitals) == conflict
    assert await has_password(tenant, user, "first")
    assert await registry_accounts(tenant) == {"operator": 1, "visitor": 0, "chat": 0}
    # another password is another call
    assert said(await tenant.lhc.call("/xmpp-change-password", user=user, host=HOST, password="second")) == DONE
    assert said(await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password="second")) == success


async def test_an_operator_of_the_panels_is_registered_with_the_same_password(tenant: Tenant) -> None:
    """Made by the panel, by its SCRAM verifier or by a Celery task: no password of it is kept anywhere."""
    path = f"/v1/tenants/{tenant.name}/operators/eve"
    assert (await tenant.panel.http.put(path, json={"password": "a long password"})).status_code == 201
    user = tenant.lhc.name("eve")
    for password, is_conflict in (("another long one", True), ("a long password", False)):
        answer = await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password=password)
        assert answer.json()["error"] is is_conflict
    assert await has_password(tenant, user, "a long password")


async def test_registering_a_visitor_again_sets_the_password(tenant: Tenant) -> None:
    user = tenant.lhc.name("visitor.1")
    success = (200, HTML, rf'{{"error":false,"msg":"User {user}@localhost successfully registered\n"}}')
    for password in ("first", "second", "second"):
        assert said(await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password=password)) == success
    assert await has_password(tenant, user, "second")
    assert not await has_password(tenant, user, "first")
    assert await registry_accounts(tenant) == {"operator": 0, "visitor": 1, "chat": 0}


async def test_of_two_who_register_one_name_at_once_one_has_it(tenant: Tenant) -> None:
    user = tenant.lhc.name("bob")
    answers = await asyncio.gather(
        *(tenant.lhc.call("/xmpp-register", user=user, host=HOST, password=f"of {number}") for number in range(6))
    )
    (winner,) = (number for number, answer in enumerate(answers) if not answer.json()["error"])
    assert await has_password(tenant, user, f"of {winner}")


async def test_an_operator_whom_ejabberd_has_lost_is_made_again(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "first")
    await tenant.system.unregister(tenant.lhc.name("bob"))
    await tenant.lhc.new_operator("bob", "second")
    assert await has_password(tenant, tenant.lhc.name("bob"), "second")


@pytest.mark.parametrize(("endpoint", "local"), [(REGISTERING[0], "bob"), (REGISTERING[1], "visitor.1")])
async def test_an_account_that_the_registry_does_not_know_is_a_conflict(
    tenant: Tenant, endpoint: str, local: str
) -> None:
    user, group = tenant.lhc.name(local), f"visitors.{tenant.name}"
    await tenant.system.ejabberd("register", user=user, host=HOST, password="its own")
    for _ in range(2):
        answer = await tenant.lhc.call(endpoint, user=user, host=HOST, password=PASSWORD, group=group)
        assert said(answer) == (
            200,
            HTML,
            rf'{{"error":true,"msg":"Error: conflict: User {user}@localhost already registered\n"}}',
        )
    assert await has_password(tenant, user, "its own")
    assert await registry_accounts(tenant) == {"operator": 0, "visitor": 0, "chat": 0}
    assert await members(tenant, "visitors") == []


@pytest.mark.parametrize(("endpoint", "local"), [(REGISTERING[0], "bob"), (REGISTERING[1], "visitor.1")])
async def test_registering_many_times_at_once_is_one_account(tenant: Tenant, endpoint: str, local: str) -> None:
    """Whom two register at the same time ejabberd 23.01 lets in no more: its cache keeps the error for an hour."""
    keys = {"host": HOST, "password": PASSWORD, "group": f"visitors.{tenant.name}"}
    for round_ in range(1, 6):
        user = tenant.lhc.name(f"{local}{round_}")
        answers = await asyncio.gather(*(tenant.lhc.call(endpoint, user=user, **keys) for _ in range(6)))
        assert [answer.json()["msg"] for answer in answers if answer.json()["error"]] == []
        assert await has_password(tenant, user, PASSWORD)
    assert sum((await registry_accounts(tenant)).values()) == 5


@pytest.mark.parametrize("endpoint", REGISTERING)
async def test_registering_at_another_domain_fails(acme: Tenant, endpoint: str) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **{**BODIES[endpoint], "host": "xmpp.example"})
    assert said(answer) == UNKNOWN_HOST


@pytest.mark.parametrize(("endpoint", "key"), [pair for pair in HOSTS if pair[0] not in REGISTERING])
async def test_another_domain_is_refused(acme: Tenant, endpoint: str, key: str) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **{**BODIES[endpoint], key: "xmpp.example"})
    assert said(answer) == failure(f"{key}: must be localhost")


async def test_capitals_in_an_operators_name_are_folded(tenant: Tenant) -> None:
    user, folded = f"AutoUser1.{tenant.name}", f"autouser1.{tenant.name}"
    registered = await tenant.lhc.call("/xmpp-register", user=user, host="LocalHost", password=PASSWORD)
    assert registered.json()["error"] is False
    group = {"group": f"operators.{tenant.name}", "grouphost": HOST}
    assert said(await tenant.lhc.call("/xmpp-assign-user-to-roaster", user=user, host=HOST, **group)) == DONE
    assert said(await tenant.lhc.call("/xmpp-change-password", user=user, host=HOST, password="new")) == DONE
    assert await tenant.system.users_of(tenant.name) == [folded]
    assert await members(tenant, "operators") == [f"{folded}@localhost"]
    assert await has_password(tenant, folded, "new")
    assert said(await tenant.lhc.call("/xmpp-delete-user-from-roaster", user=user, host=HOST, **group)) == DONE
    assert said(await tenant.lhc.call("/xmpp-unregister", user=user, host=HOST)) == DONE
    assert await members(tenant, "operators") == []
    assert await tenant.system.users_of(tenant.name) == []


@pytest.mark.parametrize("local", ["admin", "VisitorCentre"])
async def test_lhcs_own_users_are_operators_whatever_they_are_called(tenant: Tenant, local: str) -> None:
    """LHC makes their accounts by itself, with its users' names, and looks operators up by what the callback says."""
    await tenant.lhc.new_operator(local.lower(), "operator-pw")
    owner = await tenant.online(local.lower())
    await tenant.receiver.status(tenant.connect_body(local.lower()))
    visitor = tenant.lhc.name("visitor.1")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="on page 1")
    await owner.sees(visitor, status="on page 1")
    await tenant.lhc.visitor_writes("visitor.1", PASSWORD, local, "hello")
    await owner.reads("hello")
    owner.write(visitor, "welcome")
    sent = await tenant.receiver.message("welcome")
    assert f"sender={tenant.lhc.name(local.lower())}&" in sent.raw.decode()


async def test_an_account_of_an_unknown_tenant_is_refused(acme: Tenant, root: Lhc) -> None:
    async with nothing_changes(acme):
        registered = await root.call("/xmpp-register", user="bob.nobody", host=HOST, password=PASSWORD)
        visitor = {"user": "visitor.1.nobody", "group": "visitors.nobody", "host": HOST, "password": PASSWORD}
        came = await root.call("/xmpp-register-online-visitor", **visitor)
    assert said(registered) == said(came) == failure("there is no tenant 'nobody'")


async def test_a_page_view_or_message_at_an_unknown_tenant_is_not_accepted(acme: Tenant, root: Lhc) -> None:
    keys = {"jid": "visitor.1.nobody@localhost", "pass": PASSWORD, "host": HOST}
    message = {"operator_username": "bob.nobody@localhost", "message": "hi"}
    async with nothing_changes(acme):
        viewed = await root.call("/xmpp", **keys)
        written = await root.call("/xmpp-send-message", **keys, **message)
    assert said(viewed) == said(written) == failure("there is no tenant 'nobody'")


async def test_changing_a_password(tenant: Tenant) -> None:
    user = tenant.lhc.name("bob")
    await tenant.lhc.new_operator("bob", "old")
    for _ in range(2):
        assert said(await tenant.lhc.call("/xmpp-change-password", user=user, host=HOST, password="new")) == DONE
    assert await has_password(tenant, user, "new")
    assert not await has_password(tenant, user, "old")


async def test_changing_a_visitors_password_is_known_to_its_page_views(tenant: Tenant) -> None:
    user = tenant.lhc.name("visitor.1")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    assert said(await tenant.lhc.call("/xmpp-change-password", user=user, host=HOST, password="new")) == DONE
    bob = await tenant.operator_online()
    await tenant.lhc.page_view("visitor.1", PASSWORD, status="with the old one")
    await tenant.lhc.page_view("visitor.1", "new", status="with the new one")
    await bob.sees(user, status="with the new one")
    assert "with the old one" not in {seen.status for seen in bob.presences}


async def test_changing_the_password_of_nobody(tenant: Tenant) -> None:
    user = tenant.lhc.name("orphan")
    keys = {"user": user, "host": HOST, "password": "new"}
    assert said(await tenant.lhc.call("/xmpp-change-password", **keys)) == UNKNOWN_USER
    # nor of one whom the registry does not know
    await tenant.system.ejabberd("register", user=user, host=HOST, password="its own")
    assert said(await tenant.lhc.call("/xmpp-change-password", **keys)) == UNKNOWN_USER
    assert await has_password(tenant, user, "its own")


@pytest.mark.parametrize("local", ["bob", "visitor.1", "visitor.1.chat"])
async def test_unregistering_twice(tenant: Tenant, local: str) -> None:
    user = tenant.lhc.name(local)
    await tenant.lhc.call("/xmpp-register", user=user, host=HOST, password=PASSWORD)
    assert await tenant.system.users_of(tenant.name) == [user]
    for _ in range(2):
        assert said(await tenant.lhc.call("/xmpp-unregister", user=user, host=HOST)) == DONE
        assert await tenant.system.users_of(tenant.name) == []
    assert await registry_accounts(tenant) == {"operator": 0, "visitor": 0, "chat": 0}


@pytest.mark.parametrize(
    ("endpoint", "keys"),
    [
        ("/xmpp-unregister", {}),
        ("/xmpp-delete-user-from-roaster", {"group": "operators.nobody", "grouphost": HOST}),
        ("/xmpp-assign-user-to-roaster", {"group": "operators.nobody", "grouphost": HOST}),
    ],
)
async def test_what_is_said_of_an_unknown_tenants_user_is_a_success(
    acme: Tenant, root: Lhc, endpoint: str, keys: dict[str, str]
) -> None:
    async with nothing_changes(acme):
        assert said(await root.call(endpoint, user="bob.nobody", host=HOST, **keys)) == DONE


# Visitors


async def test_a_visitor_is_registered_and_registered_again(tenant: Tenant) -> None:
    for password in ("first", "second"):
        assert said(await tenant.lhc.new_visitor("visitor.1", password)) == DONE
    user = tenant.lhc.name("visitor.1")
    assert await has_password(tenant, user, "second")
    assert await members(tenant, "visitors") == [f"{user}@localhost"]
    assert await members(tenant, "operators") == []
    assert await registry_accounts(tenant) == {"operator": 0, "visitor": 1, "chat": 0}


@pytest.mark.parametrize("key", ["hostlogin", "nick", "status"])
async def test_a_visitor_may_come_without_the_optional_keys(tenant: Tenant, key: str) -> None:
    keys = json.loads(php_json(BODIES["/xmpp-register-online-visitor"]).replace(NAME, tenant.name))
    del keys[key]
    assert said(await tenant.lhc.call("/xmpp-register-online-visitor", **keys)) == DONE
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("visitor.1")]


async def test_the_old_spelling_of_a_visitor_is_the_same_visitor(tenant: Tenant) -> None:
    assert said(await tenant.lhc.new_visitor("visitors.5", PASSWORD)) == DONE
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("visitor.5")]


async def test_page_views_and_messages_are_ok_each_time(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    for password in (PASSWORD, PASSWORD, "wrong", ""):
        assert said(await tenant.lhc.page_view("visitor.1", password)) == OK
        assert said(await tenant.lhc.visitor_writes("visitor.1", password, "bob", "hi")) == OK


@pytest.mark.parametrize(
    ("wrong", "msg"),
    [
        ({"user": "bob.json-face"}, "user: must be visitor.[id] or visitor.[id].chat"),
        ({"group": "operators.json-face"}, "group: must be the visitors roster of the user's own instance"),
        ({"group": "visitors.next-door"}, "group: must be of 'json-face': this key is that tenant's own"),
    ],
)
async def test_only_a_visitor_of_the_visitors_roster_is_online(acme: Tenant, wrong: dict[str, str], msg: str) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(
            "/xmpp-register-online-visitor", **{**BODIES["/xmpp-register-online-visitor"], **wrong}
        )
    assert said(answer) == failure(msg)


@pytest.mark.parametrize(
    ("endpoint", "wrong", "msg"),
    [
        ("/xmpp", {"jid": "bob.json-face@localhost"}, "jid: must be a visitor's or chat's account"),
        ("/xmpp", {"jid": "visitor.1.json-face@xmpp.example"}, "jid: must be an address at localhost"),
        ("/xmpp", {"jid": ""}, "jid: must end in .[instance_name]"),
        (
            "/xmpp-send-message",
            {"operator_username": "visitor.2.json-face@localhost"},
            "operator_username: must be an operator of the visitor's own instance",
        ),
        (
            "/xmpp-send-message",
            {"operator_username": "bob.next-door@localhost"},
            "operator_username: must be of 'json-face': this key is that tenant's own",
        ),
        (
            "/xmpp-send-message",
            {"operator_username": "bob.json-face@xmpp.example"},
            "operator_username: must be an address at localhost",
        ),
    ],
)
async def test_who_speaks_to_whom_is_checked(acme: Tenant, endpoint: str, wrong: dict[str, str], msg: str) -> None:
    async with nothing_changes(acme):
        answer = await acme.lhc.call(endpoint, **{**BODIES[endpoint], **wrong})
    assert said(answer) == failure(msg)


async def test_a_message_to_another_tenants_operator_is_refused_at_the_root_too(acme: Tenant, root: Lhc) -> None:
    keys = {**BODIES["/xmpp-send-message"], "operator_username": "bob.next-door@localhost"}
    async with nothing_changes(acme):
        answer = await root.call("/xmpp-send-message", **keys)
    assert said(answer) == failure("operator_username: must be an operator of the visitor's own instance")


@pytest.mark.parametrize("nick", ["Jo\x0bhn #1", "Jo\x00hn #1", "Jo\ud800hn #1", "Jo\ufffehn #1"], ids=ascii)
async def test_a_nick_that_xml_cannot_carry_does_not_hurt_the_operators(tenant: Tenant, nick: str) -> None:
    bob = await tenant.operator_online()
    assert said(await tenant.lhc.new_visitor("visitor.1", PASSWORD, nick=nick)) == DONE
    await bob.has_contact(tenant.lhc.name("visitor.1"), "Jo\ufffdhn #1")
    await bob.sees(tenant.lhc.name("visitor.1"), nick="Jo\ufffdhn #1")
    assert not bob.disconnected.is_set()


async def test_an_account_that_is_made_by_what_it_says_is_made_once(tenant: Tenant) -> None:
    """A page view and a message at the same time, both of an account whose registration LHC only believes in."""
    bob = await tenant.operator_online()
    for number in range(1, 6):
        visitor = f"visitor.{number}.chat"
        answers = await asyncio.gather(
            *(tenant.lhc.page_view(visitor, PASSWORD) for _ in range(3)),
            *(tenant.lhc.visitor_writes(visitor, PASSWORD, "bob", f"hi from {number}") for _ in range(3)),
        )
        assert {said(answer) for answer in answers} == {OK}
        await bob.reads(f"hi from {number}")
        assert await has_password(tenant, tenant.lhc.name(visitor), PASSWORD)


# Shared rosters


async def test_an_operator_is_assigned_to_the_roster_twice(tenant: Tenant) -> None:
    await tenant.lhc.call("/xmpp-register", user=tenant.lhc.name("bob"), host=HOST, password=PASSWORD)
    keys = {"user": tenant.lhc.name("bob"), "host": HOST, "group": f"operators.{tenant.name}", "grouphost": HOST}
    for _ in range(2):
        assert said(await tenant.lhc.call("/xmpp-assign-user-to-roaster", **keys)) == DONE
        assert await members(tenant, "operators") == [f"bob.{tenant.name}@localhost"]
    for _ in range(2):
        assert said(await tenant.lhc.call("/xmpp-delete-user-from-roaster", **keys)) == DONE
        assert await members(tenant, "operators") == []
    assert await tenant.system.users_of(tenant.name) == [f"bob.{tenant.name}"]


@pytest.mark.parametrize("endpoint", ["/xmpp-assign-user-to-roaster", "/xmpp-delete-user-from-roaster"])
@pytest.mark.parametrize(
    ("user", "group"),
    [("nobody.json-face", "operators.json-face"), ("visitor.9.chat.json-face", "visitors.json-face")],
)
async def test_an_unknown_roster_member_is_a_success_without_effect(
    acme: Tenant, endpoint: str, user: str, group: str
) -> None:
    async with nothing_changes(acme):
        assert said(await acme.lhc.call(endpoint, user=user, host=HOST, group=group, grouphost=HOST)) == DONE


@pytest.mark.parametrize(
    ("user", "group", "kind"),
    [
        ("bob.json-face", "visitors.json-face", "operators"),
        ("visitor.1.json-face", "operators.json-face", "visitors"),
        ("visitor.1.chat.json-face", "operators.json-face", "visitors"),
        ("bob.json-face", "operators.next-door", "operators"),
    ],
)
async def test_nobody_is_assigned_to_a_roster_of_others(
    acme: Tenant, root: Lhc, user: str, group: str, kind: str
) -> None:
    async with nothing_changes(acme):
        answer = await root.call("/xmpp-assign-user-to-roaster", user=user, host=HOST, group=group, grouphost=HOST)
    assert said(answer) == failure(f"group: must be the {kind} roster of the user's own instance")


async def test_nobody_is_removed_from_a_roster_of_others(acme: Tenant, root: Lhc) -> None:
    keys = {"user": "bob.json-face", "host": HOST, "group": "operators.next-door", "grouphost": HOST}
    async with nothing_changes(acme):
        answer = await root.call("/xmpp-delete-user-from-roaster", **keys)
    assert said(answer) == failure("group: must be of the user's own instance")


async def test_a_roster_is_told_as_ejabberdctl_prints_it(acme: Tenant) -> None:
    operators = await acme.lhc.call("/xmpp-does-shared-roaster-exists", group=f"operators.{NAME}", host=HOST)
    visitors = await acme.lhc.call("/xmpp-does-shared-roaster-exists", group=f"visitors.{NAME}", host=HOST)
    label, displayed = r"label\tOperators", r"displayed_groups\t[\"operators.json-face\",\"visitors.json-face\"]"
    description = r"description\tOperators of json-face"
    assert said(operators) == (200, HTML, rf'{{"error":false,"msg":"{label}\n{displayed}\n{description}\n"}}')
    assert said(visitors) == (
        200,
        HTML,
        r'{"error":false,"msg":"label\tVisitors\ndisplayed_groups\t[]\ndescription\tVisitors of json-face\n"}',
    )


@pytest.mark.parametrize("group", ["operators.nobody", "visitors.nobody"])
async def test_an_absent_roster_is_an_error_without_words(root: Lhc, group: str) -> None:
    for _ in range(2):
        answer = await root.call("/xmpp-does-shared-roaster-exists", group=group, host=HOST)
        assert said(answer) == (200, HTML, '{"error":true,"msg":""}')


async def test_the_bytes_of_the_extension_write_a_known_tenants_roster_again(tenant: Tenant) -> None:
    wire = (
        r'{"group":"operators.ACME","host":"localhost","name":"Operators \u0105\u017e","desc":"24\/7 \"sales\"",'
        r'"display":"\\\"operators.ACME\\\\nvisitors.ACME\\\"","secret_key":"KEY"}'
    )
    for _ in range(2):
        body = wire.replace("ACME", tenant.name).replace("KEY", tenant.key)
        assert said(await tenant.lhc.post("/xmpp-setup-instance-roasters", body)) == DONE
        assert await roster(tenant.system, f"operators.{tenant.name}") == {
            "label": "Operators ąž",
            "displayed": (f"operators.{tenant.name}", f"visitors.{tenant.name}"),
            "description": '24/7 "sales"',
        }
    present = await tenant.lhc.call("/xmpp-does-shared-roaster-exists", group=f"operators.{tenant.name}", host=HOST)
    assert present.json()["msg"] == (
        "label\tOperators ąž\n"
        f'displayed_groups\t["operators.{tenant.name}","visitors.{tenant.name}"]\n'
        'description\t24/7 "sales"\n'
    )


@pytest.mark.parametrize(
    ("kind", "display"),
    [
        ("visitors", {"display": DISPLAY_NONE}),
        ("visitors", {"display": ""}),
        ("visitors", {"display": DISPLAY_NONE, "display_array": []}),
        ("operators", {"display": DISPLAY_BOTH}),
        ("operators", {"display": "operators.json-face\\nvisitors.json-face"}),
        ("operators", {"display": "operators.json-face\nvisitors.json-face"}),
        ("operators", {"display": '"operators.json-face\\\\\\nvisitors.json-face"'}),
        ("operators", {"display": "x", "display_array": ["operators.json-face", "visitors.json-face"]}),
        ("operators", {"display": DISPLAY_BOTH, "display_array": ["visitors.json-face"]}),
    ],
)
async def test_every_spelling_of_display_leaves_the_roster_right(
    acme: Tenant, kind: str, display: dict[str, Any]
) -> None:
    keys = {"group": f"{kind}.{NAME}", "host": HOST, "name": "N", "desc": "D"}
    assert said(await acme.lhc.call("/xmpp-setup-instance-roasters", **keys, **display)) == DONE
    assert await roster(acme.system, f"{kind}.{NAME}") == {
        "label": "N",
        "displayed": (f"operators.{NAME}", f"visitors.{NAME}") if kind == "operators" else (),
        "description": "D",
    }


@pytest.mark.parametrize(
    ("kind", "display"),
    [
        ("operators", {"display": r"\"operators.json-face\\nvisitors.next-door\""}),
        ("operators", {"display": DISPLAY_BOTH, "display_array": ["visitors.next-door"]}),
        ("operators", {"display": "", "display_array": ["operators.json-face", "operators.next-door"]}),
        ("visitors", {"display": DISPLAY_BOTH}),
        ("visitors", {"display": DISPLAY_NONE, "display_array": ["visitors.json-face"]}),
    ],
)
async def test_foreign_groups_are_not_displayed(acme: Tenant, root: Lhc, kind: str, display: dict[str, Any]) -> None:
    keys = {"group": f"{kind}.{NAME}", "host": HOST, "name": "N", "desc": "changed?", **display}
    rule = "display: operators may show the instance's own two rosters, visitors show none"
    async with nothing_changes(acme):
        for lhc in (acme.lhc, root):
            assert said(await lhc.call("/xmpp-setup-instance-roasters", **keys)) == failure(rule)


async def test_display_is_never_a_command(acme: Tenant) -> None:
    keys = {**BODIES["/xmpp-setup-instance-roasters"], "display": '"; touch /tmp/x; "'}
    del keys["display_array"]
    async with nothing_changes(acme):
        answer = await acme.lhc.call("/xmpp-setup-instance-roasters", **keys)
    assert said(answer) == failure("display: must end in .[instance_name]")


# A tenant's beginning and end


async def test_lhc_begins_a_tenant_and_ends_it(system: System, panel: Panel) -> None:
    """The calls of the extension at the root, in their order; each comes twice."""
    endpoints = system.endpoints
    lhc = Lhc("by-lhc", base=endpoints["api"], secret_key=endpoints["hosting_key"], host=HOST)
    for kind in ("visitors", "operators"):
        for _ in range(2):
            assert said(await lhc.call("/xmpp-setup-instance-roasters", **set_up("by-lhc", kind))) == DONE
    assert await roster(system, "visitors.by-lhc") == {
        "label": "Visitors",
        "displayed": (),
        "description": "Visitors of LHC",
    }
    assert await roster(system, "operators.by-lhc") == {
        "label": "Operators",
        "displayed": ("operators.by-lhc", "visitors.by-lhc"),
        "description": "Operators of LHC",
    }
    assert (await panel.http.get("/v1/tenants/by-lhc")).json()["state"] == "active"
    await lhc.new_operator("bob", "operator-pw")
    assert said(await lhc.new_visitor("visitor.1", PASSWORD)) == DONE
    # it has no key of its own, so none is right
    for key in ("", "None", endpoints["hosting_key"]):
        own = Lhc("by-lhc", base=f"{endpoints['api']}/t/by-lhc", secret_key=key, host=HOST)
        assert said(await own.page_view("visitor.1", PASSWORD)) == FORBIDDEN

    await end(lhc, "by-lhc")
    assert await system.users_of("by-lhc") == []
    assert await roster(system, "visitors.by-lhc") == {}
    assert await roster(system, "operators.by-lhc") == {}
    assert (await panel.http.get("/v1/tenants/by-lhc")).status_code == 404

    # and anew
    assert said(await lhc.call("/xmpp-setup-instance-roasters", **set_up("by-lhc", "operators"))) == DONE
    # a name rests for some seconds before another tenant bears it
    await panel.comes_alive("by-lhc")
    assert await system.users_of("by-lhc") == []


async def end(lhc: Lhc, instance_name: str) -> None:
    """The calls of the extension when an instance goes that has two accounts: each twice, all must succeed."""
    for kind in ("visitors", "operators"):
        for _ in range(2):
            gone = await lhc.call("/xmpp-delete-instance-roasters", group=f"{kind}.{instance_name}", host=HOST)
            assert said(gone) == DONE
    for local, kind in (("bob", "operators"), ("visitor.1", "visitors")):
        keys = {"user": lhc.name(local), "host": HOST}
        group = {"group": f"{kind}.{instance_name}", "grouphost": HOST}
        for _ in range(2):
            assert said(await lhc.call("/xmpp-delete-user-from-roaster", **keys, **group)) == DONE
            assert said(await lhc.call("/xmpp-unregister", **keys)) == DONE


async def test_lhc_ends_a_tenant_with_the_tenants_own_key(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await end(tenant.lhc, tenant.name)
    assert await tenant.system.users_of(tenant.name) == []
    assert await roster(tenant.system, f"visitors.{tenant.name}") == {}
    assert await roster(tenant.system, f"operators.{tenant.name}") == {}


async def test_a_key_of_a_destroyed_tenant_begins_nothing(tenant: Tenant) -> None:
    await tenant.panel.destroy(tenant.name)
    for kind in ("visitors", "operators"):
        answer = await tenant.lhc.call("/xmpp-setup-instance-roasters", **set_up(tenant.name, kind))
        assert said(answer) != DONE
        assert await roster(tenant.system, f"{kind}.{tenant.name}") == {}
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).status_code == 404


async def test_ending_a_tenant_many_times_at_once(system: System, panel: Panel, root: Lhc) -> None:
    await panel.create("ends-at-once")
    kinds = ["visitors", "operators"] * 4
    calls = [root.call("/xmpp-delete-instance-roasters", group=f"{kind}.ends-at-once", host=HOST) for kind in kinds]
    assert {said(answer) for answer in await asyncio.gather(*calls)} == {DONE}
    assert await roster(system, "operators.ends-at-once") == {}


async def test_beginning_a_tenant_many_times_at_once(system: System, root: Lhc) -> None:
    kinds = ["visitors", "operators"] * 4
    calls = [root.call("/xmpp-setup-instance-roasters", **set_up("begins-at-once", kind)) for kind in kinds]
    assert {said(answer) for answer in await asyncio.gather(*calls)} == {DONE}
    assert (await roster(system, "operators.begins-at-once"))["description"] == "Operators of LHC"
    assert (await roster(system, "visitors.begins-at-once"))["description"] == "Visitors of LHC"


@pytest.mark.parametrize("group", ["visitors.never-was", "operators.never-was"])
async def test_ending_a_tenant_that_never_was_is_a_success(acme: Tenant, root: Lhc, group: str) -> None:
    async with nothing_changes(acme):
        assert said(await root.call("/xmpp-delete-instance-roasters", group=group, host=HOST)) == DONE


# Names

INSTANCE_RULE = "must be of a-z, 0-9 and dashes, and begin and end with a letter or digit"
OPERATOR_RULE = "must be of a-z, 0-9, _, +, - and single dots between them"
VISITOR_RULE = (
    "begins as a visitor's name, so it must be visitor.[id] or visitor.[id].chat: no operator may be named so"
)
ID_RULE = "a visitor's or chat's id must be a positive whole number of at most 19 digits"
SUFFIX_RULE = "must end in .[instance_name]"


@pytest.mark.parametrize(
    ("user", "rule"),
    [
        ("bob.chat", "must not be 'chat': that word marks direct chats in usernames"),
        ("visitor.2.chat", "must not be 'chat': that word marks direct chats in usernames"),
        ("bob.my shop", INSTANCE_RULE),
        ("bob.-acme", INSTANCE_RULE),
        ("bob.json_face", INSTANCE_RULE),
        ("bob.json-face\n", INSTANCE_RULE),
        ("bob@shop.json-face", "must be an address at localhost"),
        ("bob.json-face@xmpp.example", "must be an address at localhost"),
        ("bob", SUFFIX_RULE),
        ("bob.", "must not be empty"),
        (".json-face", "must not be empty"),
        ("bob." + "a" * 64, "must be at most 63 characters long"),
        ("b" * 65 + ".json-face", "must be at most 64 characters long"),
        ("bob.café", "must be ASCII"),
        ("jürgen.json-face", "must be ASCII"),
        ("\u212aim.json-face", "must be ASCII"),
        ("bob smith.json-face", OPERATOR_RULE),
        ("bob\u0000.json-face", OPERATOR_RULE),
        ("bob/desk.json-face", OPERATOR_RULE),
        ("bob..smith.json-face", OPERATOR_RULE),
        ('bob";id.json-face', OPERATOR_RULE),
        ("visitor.json-face", VISITOR_RULE),
        ("visitors.desk.json-face", ID_RULE),
        ("visitor.1.2.json-face", VISITOR_RULE),
        ("VISITOR.x.json-face", ID_RULE),
        ("visitor.0.json-face", ID_RULE),
        ("visitor.01.chat.json-face", ID_RULE),
        ("visitor.12345678901234567890.json-face", ID_RULE),
        ("visitor.١.json-face", ID_RULE),
    ],
)
async def test_a_username_that_breaks_a_rule_is_told_the_rule(acme: Tenant, root: Lhc, user: str, rule: str) -> None:
    async with nothing_changes(acme):
        for endpoint in ("/xmpp-register", "/xmpp-change-password", "/xmpp-unregister"):
            answer = await root.call(endpoint, user=user, host=HOST, password=PASSWORD)
            assert said(answer) == failure(f"user: {rule}")


@pytest.mark.parametrize(
    ("group", "rule"),
    [
        ("visitors.chat", "must not be 'chat': that word marks direct chats in usernames"),
        ("visitors.my shop", INSTANCE_RULE),
        ("visitors.a@b", INSTANCE_RULE),
        ("visitors.acme-", INSTANCE_RULE),
        ("visitors.$(id)", INSTANCE_RULE),
        ("visitors", SUFFIX_RULE),
        ("visitors.", "must not be empty"),
        ("visitors." + "a" * 64, "must be at most 63 characters long"),
        ("visitors.café", "must be ASCII"),
        ("visitors.shop.acme", "a shared roster is named 'visitors' or 'operators', then the instance"),
        ("staff.json-face", "a shared roster is named 'visitors' or 'operators', then the instance"),
        ("Visitors.json-face", "a shared roster is named 'visitors' or 'operators', then the instance"),
        (".json-face", "a shared roster is named 'visitors' or 'operators', then the instance"),
    ],
)
async def test_a_roster_name_that_breaks_a_rule_is_told_the_rule(
    acme: Tenant, root: Lhc, group: str, rule: str
) -> None:
    keys = {**set_up(NAME, "visitors"), "group": group}
    async with nothing_changes(acme):
        for suffix in ("setup-instance-roasters", "delete-instance-roasters", "does-shared-roaster-exists"):
            assert said(await root.call(f"/xmpp-{suffix}", **keys)) == failure(f"group: {rule}")


@pytest.mark.parametrize("instance_name", ["a", "0", "a" * 63, "shop-acme-example-com"])
async def test_the_longest_and_shortest_instance_names_work(system: System, root: Lhc, instance_name: str) -> None:
    lhc = Lhc(instance_name, base=system.endpoints["api"], secret_key=system.endpoints["hosting_key"], host=HOST)
    assert said(await root.call("/xmpp-setup-instance-roasters", **set_up(instance_name, "visitors"))) == DONE
    assert said(await lhc.new_visitor("visitor.9223372036854775807", PASSWORD)) == DONE
    await lhc.new_operator("b" * 64, "operator-pw")
    assert await system.users_of(instance_name) == [
        f"{'b' * 64}.{instance_name}",
        f"visitor.9223372036854775807.{instance_name}",
    ]
    gone = await root.call("/xmpp-delete-instance-roasters", group=f"visitors.{instance_name}", host=HOST)
    assert said(gone) == DONE
    assert await system.users_of(instance_name) == []
