"""The XML-RPC face: who may call, what is a fault, and the two calls of the JSON mode; see docs/xml-rpc.md."""

import itertools
from collections.abc import AsyncIterator
from typing import Any
from xmlrpc.client import dumps, loads

import httpx
import pytest

from bench.testbed.lhc import rpc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.world.rpc import fault_in, php_request, post
from tests.world.tenant import Tenant

NAME, OTHER = "rpc-face", "rpc-face-2"
HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
VISITOR = f"visitor.1.{NAME}"
REFUSED = (-118, "Error -118\nInvalid authentication data")
ADDRESSED = "stanza: must be addressed to nobody: it is for the visitor's own contacts"
NICK_NAMESPACE = "http://jabber.org/protocol/nick"


@pytest.fixture(scope="module")
async def acme(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    """A tenant with an operator's account and a visitor online."""
    tenant = Tenant(system, receiver, panel, await panel.create(NAME))
    await tenant.lhc.new_operator("bob", "operator-pw")
    assert (await tenant.lhc.new_visitor("visitor.1", PASSWORD, status="on page 1")).text == '{"error":false,"msg":""}'
    return tenant


@pytest.fixture(scope="module")
async def other(system: System, receiver: Receiver, panel: Panel) -> Tenant:
    return Tenant(system, receiver, panel, await panel.create(OTHER))


@pytest.fixture
async def bob(acme: Tenant) -> AsyncIterator[Operator]:
    """The operator, who sees the visitor."""
    async with acme.operator("bob") as client:
        await client.sees(VISITOR)
        yield client


def url_of(tenant: Tenant) -> str:
    return f"{tenant.system.endpoints['api']}/t/{tenant.name}/rpc"


def own(tenant: Tenant) -> dict[str, str]:
    return {"user": tenant.name, "server": HOST, "password": tenant.key}


def hosting(system: System) -> dict[str, str]:
    return {"user": system.endpoints["rpc_user"], "server": HOST, "password": system.endpoints["rpc_password"]}


async def fault_of(url: str, body: str | bytes) -> tuple[int, str]:
    """The fault that is answered; all of them come with HTTP 200."""
    answer = await post(url, body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    return fault_in(answer.content)


async def sessions(tenant: Tenant, credentials: dict[str, str], user: str = VISITOR) -> list[dict[str, Any]]:
    """`user_sessions_info` at the tenant's own address; each session's fields as one dict."""
    info = await rpc(url_of(tenant), credentials, "user_sessions_info", host=HOST, user=user)
    assert list(info) == ["sessions_info"]
    return [
        {key: value for field in entry["session"] for key, value in field.items()} for entry in info["sessions_info"]
    ]


def asking(user: str = VISITOR) -> dict[str, str]:
    return {"host": HOST, "user": user}


def presenting(stanza: str) -> dict[str, str]:
    return {"host": HOST, "user": VISITOR, "resource": "lhc", "stanza": stanza}


# Who may call


async def test_hosting_wide_credentials_ask_about_every_tenant(acme: Tenant) -> None:
    rpc_url = acme.system.endpoints["rpc"]
    info = await rpc(rpc_url, hosting(acme.system), "user_sessions_info", **asking())
    assert len(info["sessions_info"]) == 1


@pytest.mark.parametrize("path", ["/rpc", "/RPC/", "/rpc?x=1", f"/t/{NAME}/rpc", f"/T/{NAME.upper()}/rpc/"])
async def test_a_tenants_credentials_work_at_both_addresses(acme: Tenant, path: str) -> None:
    info = await rpc(acme.system.endpoints["api"] + path, own(acme), "user_sessions_info", **asking())
    assert len(info["sessions_info"]) == 1


async def test_the_names_of_the_credentials_have_no_case(acme: Tenant) -> None:
    """The instance is a part of an address."""
    assert len(await sessions(acme, {**own(acme), "server": "LocalHost", "user": NAME.upper()})) == 1


@pytest.mark.parametrize("path", ["/rpc", f"/t/{NAME}/rpc"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong"},
        {"password": ""},
        {"password": None},
        {"password": 5},
        {"password": ["x"]},
        {"user": ""},
        {"user": "nobody"},
        {"user": "admin"},
        {"user": f"bob.{NAME}", "password": "operator-pw"},
        {"server": "xmpp.example"},
        {"server": ""},
    ],
    ids=repr,
)
async def test_wrong_credentials_are_a_fault(acme: Tenant, path: str, wrong: dict[str, Any]) -> None:
    body = dumps(({**own(acme), **wrong}, asking()), "user_sessions_info", allow_none=True)
    assert await fault_of(acme.system.endpoints["api"] + path, body) == REFUSED


@pytest.mark.parametrize("absent", ["user", "server", "password"])
async def test_credentials_that_are_not_whole_are_a_fault(acme: Tenant, absent: str) -> None:
    credentials = own(acme)
    del credentials[absent]
    assert await fault_of(url_of(acme), dumps((credentials, asking()), "user_sessions_info")) == REFUSED


async def test_a_password_of_another_is_a_fault(acme: Tenant, other: Tenant) -> None:
    rpc_url, everywhere = acme.system.endpoints["rpc"], hosting(acme.system)
    for credentials in (
        {**own(acme), "password": other.key},
        {**own(acme), "password": everywhere["password"]},
        {**everywhere, "password": acme.key},
        {**everywhere, "password": acme.system.endpoints["hosting_key"]},
    ):
        for url in (rpc_url, url_of(acme)):
            assert await fault_of(url, dumps((credentials, asking()), "user_sessions_info")) == REFUSED


async def test_a_tenants_address_takes_nobody_elses_credentials(acme: Tenant, other: Tenant) -> None:
    api = acme.system.endpoints["api"]
    assert await fault_of(url_of(acme), dumps((own(other), asking()), "user_sessions_info")) == REFUSED
    assert await fault_of(f"{api}/t/nobody/rpc", dumps((own(acme), asking()), "user_sessions_info")) == REFUSED


async def test_on_a_tenants_address_the_hosting_wide_credentials_reach_that_tenant_alone(
    acme: Tenant, other: Tenant
) -> None:
    info = await rpc(url_of(acme), hosting(acme.system), "user_sessions_info", **asking())
    assert len(info["sessions_info"]) == 1
    assert await fault_of(url_of(other), dumps((hosting(acme.system), asking()), "user_sessions_info")) == (
        -118,
        f"Error -118\nuser: must be of '{OTHER}': this address is that tenant's own",
    )


@pytest.mark.parametrize("path", ["a.b", "chat", "-", "a" * 64, "%20", "a%00b"])
async def test_what_is_no_tenants_address_opens_nothing(acme: Tenant, path: str) -> None:
    url = f"{acme.system.endpoints['api']}/t/{path}/rpc"
    assert await fault_of(url, dumps((hosting(acme.system), asking()), "user_sessions_info")) == REFUSED


@pytest.mark.parametrize("method", ["user_sessions_info", "send_stanza_c2s"])
async def test_a_tenants_credentials_reach_no_other_tenants_visitor(
    acme: Tenant, other: Tenant, bob: Operator, method: str
) -> None:
    stanza = "<presence><status>forged</status></presence>"
    body = dumps((own(other), asking() if method == "user_sessions_info" else presenting(stanza)), method)
    for url in (acme.system.endpoints["rpc"], url_of(other)):
        assert await fault_of(url, body) == (
            -118,
            f"Error -118\nuser: must be of '{OTHER}': this key is that tenant's own",
        )
    # what comes after shows that the forged one had its chance
    stanza = "<presence><status>real</status></presence>"
    assert await rpc(url_of(acme), own(acme), "send_stanza_c2s", **presenting(stanza)) == {"res": 0}
    await bob.sees(VISITOR, status="real")
    assert "forged" not in {seen.status for seen in bob.presences}


@pytest.mark.parametrize("method", ["user_sessions_info", "no_such_method"])
@pytest.mark.parametrize(
    "params",
    [(), (asking(),), ("x", "y"), ([], asking()), (asking(), asking(), asking()), (asking(), asking())],
    ids=["none", "one", "strings", "an array", "three", "none of them credentials"],
)
async def test_calls_without_credentials_are_a_fault(acme: Tenant, method: str, params: tuple[Any, ...]) -> None:
    """One param is what the extension sends when its credentials are not set."""
    assert await fault_of(url_of(acme), dumps(params, method)) == REFUSED


async def test_credentials_come_before_the_arguments(acme: Tenant) -> None:
    assert await fault_of(url_of(acme), dumps((asking(), own(acme)), "user_sessions_info")) == REFUSED


async def test_get_is_not_for_calls(acme: Tenant) -> None:
    async with httpx.AsyncClient(verify=False) as http:  # noqa: S501 - no TLS here; loading the CAs takes 20 ms
        answer = await http.get(url_of(acme))
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


# What is no call

BOMB = (
    '<!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
CALL = "<methodCall><methodName>{method}</methodName><params></params></methodCall>"
VALUE = "<methodCall><methodName>x</methodName><params><param><value>{}</value></param></params></methodCall>"


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "not XML",
        "{}",
        "<methodCall>",
        "<methodCall/>",
        "<a/>",
        "<methodCall><methodName/><params/></methodCall>",
        "<methodCall><params/></methodCall>",
        "<methodCall><methodName>x</methodName></methodCall></methodCall>",
        "<methodResponse><params/></methodResponse>",
        VALUE.format("<int>x</int>"),
        VALUE.format("<int>" + "9" * 5000 + "</int>"),
        VALUE.format("<boolean>7</boolean>"),
        VALUE.format("<base64>=</base64>"),
        VALUE.format("<struct><member><value/></member></struct>"),
        VALUE.format("<no-such-type/>"),
        VALUE.format("<bigdecimal>x</bigdecimal>"),
        VALUE.format("<dateTime.iso8601>never</dateTime.iso8601>"),
        VALUE.format("<struct><value>1</value><value>2</value></struct>"),
        "<value>" * 5000,
        VALUE.format("<array><data><value>" * 10 + "</value></data></array>" * 10),
        VALUE.format("<array><data>" + "<value/>" * 500 + "</data></array>"),
        b"<methodCall>\xff\xfe</methodCall>",
        b'<?xml version="1.0" encoding="nonsense"?><methodCall/>',
        BOMB + CALL.format(method="&i;"),
        "<!DOCTYPE x>" + CALL.format(method="user_sessions_info"),
        '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + CALL.format(method="&f;"),
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">' + CALL.format(method="x"),
        "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>" + CALL.format(method="x"),
    ],
    ids=itertools.count(),
)
async def test_what_is_no_method_call_is_a_fault(acme: Tenant, body: str | bytes) -> None:
    for url in (acme.system.endpoints["rpc"], url_of(acme)):
        code, text = await fault_of(url, body)
        assert code == -118
        assert text.startswith("Error -118\n")
        assert "root:" not in text


async def test_a_call_over_100_kb_is_413(acme: Tenant) -> None:
    """FAILONERROR makes it "no response" for the extension."""
    answer = await post(url_of(acme), b" " * 102_401)
    assert answer.status_code == 413


async def test_an_unknown_method_is_a_fault(acme: Tenant) -> None:
    assert await fault_of(url_of(acme), dumps((own(acme), asking()), "no_such_method")) == (
        -118,
        "Error -118\nUnknown command",
    )


@pytest.mark.parametrize(
    ("method", "absent"),
    [
        ("user_sessions_info", "user"),
        ("user_sessions_info", "host"),
        ("send_stanza_c2s", "user"),
        ("send_stanza_c2s", "host"),
        ("send_stanza_c2s", "resource"),
        ("send_stanza_c2s", "stanza"),
    ],
)
async def test_a_missing_argument_is_a_fault_of_its_own(acme: Tenant, method: str, absent: str) -> None:
    arguments = presenting("<presence/>")
    del arguments[absent]
    assert await fault_of(url_of(acme), dumps((own(acme), arguments), method)) == (
        -116,
        f"Error -116\nRequired attribute '{absent}' not found",
    )


@pytest.mark.parametrize("wrong", [5, None, True, ["x"], {"a": "b"}, 1.5], ids=repr)
@pytest.mark.parametrize(
    ("method", "key"),
    [
        ("user_sessions_info", "host"),
        ("user_sessions_info", "user"),
        ("send_stanza_c2s", "host"),
        ("send_stanza_c2s", "user"),
        ("send_stanza_c2s", "resource"),
        ("send_stanza_c2s", "stanza"),
    ],
)
async def test_an_argument_that_is_no_string_is_named(acme: Tenant, method: str, key: str, wrong: Any) -> None:
    arguments = {**presenting("<presence/>"), key: wrong}
    assert await fault_of(url_of(acme), dumps((own(acme), arguments), method, allow_none=True)) == (
        -122,
        f"Error -122\nParameter '{key}' must be a string",
    )


async def test_an_argument_that_is_not_the_commands_is_a_fault_of_its_own(acme: Tenant) -> None:
    """It is named, its value is not."""
    arguments = {**asking(), "newpass": "hush", "also": "hush", "x" * 9999: ""}
    code, text = await fault_of(url_of(acme), dumps((own(acme), arguments), "user_sessions_info"))
    assert code == -120
    assert text.startswith("Error -120\nThe call provided additional unused arguments: also, newpass, xxx")
    assert len(text) < 1000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"host": "xmpp.example", "user": VISITOR}, "host: must be localhost"),
        ({"host": "", "user": VISITOR}, "host: must be localhost"),
        ({"host": HOST, "user": ""}, "user: must end in .[instance_name]"),
        (
            {"host": HOST, "user": "visitor.1.chat"},
            "user: must not be 'chat': that word marks direct chats in usernames",
        ),
        ({"host": HOST, "user": "jürgen.rpc-face"}, "user: must be ASCII"),
    ],
)
async def test_a_wrong_argument_is_told_its_rule(acme: Tenant, arguments: dict[str, str], text: str) -> None:
    body = dumps((own(acme), arguments), "user_sessions_info", encoding="utf-8").encode()
    assert await fault_of(url_of(acme), body) == (-118, f"Error -118\n{text}")


# The two calls


async def test_a_session_is_told_field_by_field(acme: Tenant) -> None:
    stanza = "<presence><status>Ąžuolas &amp; &lt;1&gt;\n| 2</status></presence>"
    assert await rpc(url_of(acme), own(acme), "send_stanza_c2s", **presenting(stanza)) == {"res": 0}
    (session,) = await sessions(acme, own(acme), VISITOR.upper())
    assert session == {
        "connection": "component",
        "ip": "",
        "port": 0,
        "priority": 0,
        "node": "lhc.localhost",
        "uptime": 0,
        "status": "available",
        "resource": "lhc",
        "statustext": "Ąžuolas & <1>\n| 2",
    }


@pytest.mark.parametrize("user", [f"visitor.99.{NAME}", f"visitor.1.chat.{NAME}", f"nobody.{NAME}"])
async def test_who_is_not_online_has_no_sessions(acme: Tenant, user: str) -> None:
    assert await sessions(acme, own(acme), user) == []


async def test_the_sessions_of_an_unknown_tenants_user_are_none(acme: Tenant) -> None:
    everywhere, rpc_url = hosting(acme.system), acme.system.endpoints["rpc"]
    info = await rpc(rpc_url, everywhere, "user_sessions_info", **asking("visitor.1.nobody"))
    assert info == {"sessions_info": []}


async def test_the_bytes_of_php_change_nick_and_status(acme: Tenant, bob: Operator) -> None:
    stanza = (
        "\n    &#60;presence&#62;\n      &#60;status&#62;Pending &#38;amp; \u010denge &#128075;&#60;/status&#62;\n"
        "      &#60;nick xmlns=&#39;http://jabber.org/protocol/nick&#39;&#62;Zoë &#38;lt;1&#38;gt; &#34;Z&#34; #9"
        "&#60;/nick&#62;\n    &#60;/presence&#62;\n"
    )
    body = php_request("send_stanza_c2s", own(acme), presenting("STANZA")).replace(b"STANZA", stanza.encode())
    for _ in range(2):
        answer = await post(url_of(acme), body)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
        assert loads(answer.content) == (({"res": 0},), None)
    await bob.sees(VISITOR, nick='Zoë <1> "Z" #9', status="Pending & čenge 👋")


async def test_phps_empty_string_is_a_string(acme: Tenant) -> None:
    assert await fault_of(url_of(acme), php_request("user_sessions_info", own(acme), {**asking(), "host": ""})) == (
        -118,
        "Error -118\nhost: must be localhost",
    )


async def test_the_answer_is_one_struct_in_utf_8(acme: Tenant) -> None:
    stanza = "<presence><status>čia</status></presence>"
    await rpc(url_of(acme), own(acme), "send_stanza_c2s", **presenting(stanza))
    answer = await post(url_of(acme), php_request("user_sessions_info", own(acme), asking()))
    assert answer.content.startswith(b"<?xml version='1.0'?>\n<methodResponse>")
    assert "<name>statustext</name>\n<value><string>čia</string></value>" in answer.content.decode()


async def test_what_a_presence_does_not_say_stays(acme: Tenant, bob: Operator) -> None:
    both = f"<presence><status>s1</status><nick xmlns='{NICK_NAMESPACE}'>n1</nick></presence>"
    for stanza, nick, status in (
        (both, "n1", "s1"),
        ("<presence xmlns='jabber:client'><status>s2</status></presence>", "n1", "s2"),
        (f"<presence><nick xmlns='{NICK_NAMESPACE}'>n2</nick></presence>", "n2", "s2"),
    ):
        assert await rpc(url_of(acme), own(acme), "send_stanza_c2s", **presenting(stanza)) == {"res": 0}
        await bob.sees(VISITOR, nick=nick, status=status)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"resource": "desk"}, "no_session"),
        ({"resource": ""}, "no_session"),
        ({"user": f"visitor.99.{NAME}"}, "no_session"),
        ({"user": f"bob.{NAME}"}, "no_session"),
        ({"stanza": ""}, "stanza: must be one well-formed XML element"),
        ({"stanza": "<presence>"}, "stanza: must be one well-formed XML element"),
        ({"stanza": "<presence/><presence/>"}, "stanza: must be one well-formed XML element"),
        ({"stanza": "<presence>&nbsp;</presence>"}, "stanza: must be one well-formed XML element"),
        ({"stanza": "<!DOCTYPE presence><presence/>"}, "stanza: must be one well-formed XML element"),
        ({"stanza": BOMB + "<presence><status>&i;</status></presence>"}, "stanza: must be one well-formed XML element"),
        ({"stanza": "<presence type='unavailable'/>"}, "stanza: must be an available presence"),
        ({"stanza": "<presence type='subscribe'/>"}, "stanza: must be an available presence"),
        ({"stanza": "<message><body>x</body></message>"}, "stanza: must be an available presence"),
        ({"stanza": "<presence xmlns='urn:x'/>"}, "stanza: must be an available presence"),
        ({"stanza": f"<presence to='bob.{NAME}@localhost'/>"}, ADDRESSED),
        ({"stanza": f"<presence from='bob.{NAME}@localhost'/>"}, ADDRESSED),
    ],
)
async def test_a_stanza_that_is_no_presence_of_a_session_is_a_fault(
    acme: Tenant, changed: dict[str, str], text: str
) -> None:
    before = await sessions(acme, own(acme))
    arguments = {**presenting("<presence><status>new</status></presence>"), **changed}
    body = dumps((own(acme), arguments), "send_stanza_c2s")
    assert await fault_of(url_of(acme), body) == (-118, f"Error -118\n{text}")
    assert await sessions(acme, own(acme)) == before


async def test_a_stanza_for_an_unknown_tenant_is_a_fault(acme: Tenant) -> None:
    body = dumps((hosting(acme.system), {**presenting("<presence/>"), "user": "visitor.1.nobody"}), "send_stanza_c2s")
    code, _ = await fault_of(acme.system.endpoints["rpc"], body)
    assert code == -118


async def test_no_answer_repeats_a_password(acme: Tenant) -> None:
    for password in ("a-wrong-password", acme.key):
        body = dumps(({**own(acme), "password": password}, {"host": password, "user": VISITOR}), "user_sessions_info")
        assert password not in (await post(url_of(acme), body)).text
