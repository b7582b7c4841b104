"""Somebody of support wants to read what people say at a tenant, or to let in somebody who may."""

import asyncio
import dataclasses
import os
import re
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from bench.testbed.system import ORCHESTRATOR, System, domain_of
from bench.testbed.waiting import until, until_async
from orchestrator.console.access import COOKIE
from tenants.access import console_sessions, console_users
from tenants.store.models import Role
from tests.world.console import PASSWORD, Address, Browser, OpenBrowser, addresses, let_in, site, tables
from tests.world.tenant import Tenant

CONSOLE_PAGE = Path(__file__).resolve().parents[3] / "docs" / "console.md"

CONSOLE = site()
TABLES = tables(CONSOLE)
OF_EVERYBODY = {"login", "logout", "enter"}
SAID = "my card number is 4929 1234"

SEE = "see overview, tenants, operations, deliveries and audit log, and export them; never what people wrote"
LISTEN = "see what is being said, where a tenant's `live_view` is on"
REPLAY = "replay deliveries, and messages that came back"
OPERATIONS = "try operations again, pause, go on with and cancel them"
COMPARE = "compare a tenant with ejabberd"
DISCONNECT = "disconnect operators"
INVITE = "add and invite operators"
TENANTS = "make, change, import, suspend, resume, move and destroy tenants"
KEY = "make a tenant's key"
PEOPLE = "see, add, change and remove people; see and end sessions"
NOBODY = "nobody"

ROW_OF_ADDRESS = {
    **dict.fromkeys(("index", "live-overview", "tenant", "live-tenant", "operation", "live-operation"), SEE),
    **dict.fromkeys(("conversation", "conversation-lines"), LISTEN),
    "tenant-replay": REPLAY,
    "tenant-kick": DISCONNECT,
    **dict.fromkeys(("tenant-add-operator", "tenant-invite"), INVITE),
    "tenant-key": KEY,
    "file": SEE,  # there are none
}
"""Of addresses that are no table's."""
ROW_OF_TABLE = {
    **dict.fromkeys(("tenants", "operations", "deliveries", "audit"), SEE),
    **dict.fromkeys(("users", "sessions"), PEOPLE),
}
ROW_OF_ACTION = {
    **dict.fromkeys(
        [("tenants", name) for name in ("create", "edit", "import", "suspend", "resume", "move", "destroy")], TENANTS
    ),
    ("tenants", "reconcile"): COMPARE,
    **dict.fromkeys([("operations", name) for name in ("retry", "pause", "go_on", "cancel")], OPERATIONS),
    ("deliveries", "replay"): REPLAY,
    **dict.fromkeys([("users", name) for name in ("create", "edit", "remove")], PEOPLE),
    **dict.fromkeys([("sessions", name) for name in ("end", "end_all")], PEOPLE),
}
"""Of what is done with a table's rows; what is not here nobody does."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """Something that somebody may or may not do; asked about what does not exist, so that nothing comes of it."""

    method: str
    path: str
    row: str


def all_there_is() -> Iterator[Asked]:
    """Each address with what it is for: an address or action that stands in no table above fails here."""
    for address in addresses(CONSOLE):
        if address.name in OF_EVERYBODY:
            continue
        path = address.path.format(
            instance_name="no-such", username="nobody", operation_id="none", storage="s", path="p", key="{key}"
        )
        if "{key}" in path:
            for key in TABLES:
                yield from of_table(address, key, path.format(key=key))
        else:
            yield Asked(address.method, path, ROW_OF_ADDRESS[address.name])


def of_table(address: Address, key: str, path: str) -> Iterator[Asked]:
    table = TABLES[key]
    match address.name:
        case "list" | "detail" | "inline-edit-row":
            yield Asked(address.method, f"{path}?pk=nothing", ROW_OF_TABLE[key])
        case "create" | "edit":
            # asked with a form, both make something
            if address.method == "GET":
                yield Asked("GET", f"{path}?pk=nothing", ROW_OF_ACTION.get((key, address.name), NOBODY))
        case "action":
            for name in table._actions_handlers:  # noqa: SLF001 - no public way
                row = ROW_OF_TABLE[key] if name == "export" else ROW_OF_ACTION.get((key, name), NOBODY)
                yield Asked("POST", f"{path}?name={name}", row)
        case "row-action":
            for name in table._row_actions_handlers:  # noqa: SLF001 - no public way
                row = NOBODY if name in {"view", "edit"} else ROW_OF_ACTION.get((key, name), NOBODY)
                yield Asked("POST", f"{path}?pk=nothing&name={name}", row)
        case "import" | "inline-edit" | "relation-lookup":
            yield Asked(address.method, f"{path}?pk=nothing", NOBODY)
        case _:
            pytest.fail(f"{address} is new: say who may do it")


def documented() -> dict[str, set[Role]]:
    """Which roles may do what, by the table for people."""
    text = CONSOLE_PAGE.read_text().partition("## What each role may do")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    roles = [Role(name.strip("`")) for name in rows[0][1:]]
    assert roles == list(Role)
    return {what: {role for role, cell in zip(roles, cells, strict=True) if cell} for what, *cells in rows[2:]}


async def may(browser: Browser, asked: Asked) -> bool:
    form = {"csrftoken": browser.http.cookies["starlette_admin_csrftoken"], "format": "csv", "scope": "page"}
    data = form if asked.method == "POST" else None
    answer = await browser.http.request(asked.method, asked.path, data=data, follow_redirects=False)
    assert "/login" not in answer.headers.get("Location", "")
    if answer.headers.get("Content-Type") == "application/json":
        return answer.json()["msg"] not in {"Forbidden", "There is no such action."}
    is_nowhere = "relation-lookup" in asked.path and answer.status_code == HTTPStatus.NOT_FOUND
    return answer.status_code != HTTPStatus.FORBIDDEN and not is_nowhere


def test_every_address_and_action_stands_in_the_table_for_people() -> None:
    assert {asked.row for asked in all_there_is()} == {*documented(), NOBODY}


async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    admin: Browser, tenant: Tenant, open_browser: OpenBrowser
) -> None:
    expected = {**documented(), NOBODY: set()}
    wrong = []
    for role in Role:
        person = await let_in(admin, open_browser(), f"{tenant.name} {role}", role)
        wrong += [
            (role.value, asked) for asked in all_there_is() if await may(person, asked) != (role in expected[asked.row])
        ]
    assert wrong == []


async def test_support_cannot_become_an_operator(admin: Browser, tenant: Tenant, open_browser: OpenBrowser) -> None:
    bob = await tenant.operator_online("bob")
    support = await let_in(admin, open_browser(), f"{tenant.name} support", "support")
    page = f"/console/tenant/{tenant.name}"
    assert (await support.post(f"{page}/operators", username="mine")).status_code == HTTPStatus.FORBIDDEN
    assert (await support.post(f"{page}/operators/bob/invite")).status_code == HTTPStatus.FORBIDDEN
    assert "New operator" not in await support.text(f"/console/tenants/detail?pk={tenant.name}")
    assert [name for name in await tenant.system.users_of(tenant.name) if "mine" in name] == []
    assert not bob.disconnected.is_set()


async def test_an_operator_who_is_invited_anew_is_told_and_the_audit_log_knows_all(
    admin: Browser, tenant: Tenant, open_browser: OpenBrowser
) -> None:
    bob = await tenant.operator_online("bob")
    name = f"{tenant.name} manager"
    manager = await let_in(admin, open_browser(), name, "manager")
    page = f"/console/tenant/{tenant.name}"

    again = await manager.post(f"{page}/operators", username="bob")
    assert "has an operator" in again.text, "to add him again would take his account without a word"
    link = re.search(r'<code id="link">([^<]+)', (await manager.post(f"{page}/operators/bob/invite")).text)
    assert link is not None
    await until(lambda: any("invitation" in message.body for message in bob.messages), "bob is told")
    (told,) = [message for message in bob.messages if "invitation" in message.body]
    assert (told.username, told.type) == ("", "chat")
    assert "tell your administrator" in told.body

    async with httpx.AsyncClient() as http:
        used = await http.post(link[1], data={"password": PASSWORD, "again": PASSWORD})
    assert "You are ready" in used.text
    await until(bob.disconnected.is_set, "the connection of the old password is ended")
    with pytest.raises(PermissionError):
        await tenant.operator("bob", resource="again").connect()
    entries = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}/audit")).json()["entries"]
    said = {entry["action"]: (entry["actor"], entry["reason"]) for entry in entries}
    assert said["operator invited"] == (f"console:{name}", "bob")
    assert said["password set"] == (
        "operator bob",
        f"bob, by an invitation that console:{name} made, from 127.0.0.1",
    )


async def test_what_people_said_stands_on_no_page(admin: Browser, tenant: Tenant, open_browser: OpenBrowser) -> None:
    support = await let_in(admin, open_browser(), f"{tenant.name} support", "support")
    bob = await tenant.operator_online("bob")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    away = {"callback_url": "http://127.0.0.1:1/", "history_hours": 1}
    assert (await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json=away)).is_success
    bob.write(tenant.lhc.name("visitor.1"), SAID)

    async def waits() -> str | None:
        page = await support.text(f"/console/deliveries/list?q={tenant.name}")
        found = re.search(r"deliveries/detail\?pk=(\d+)", page)
        return found[1] if found else None

    delivery = await until_async(waits, "it waits for the tenant's server")
    pages = [f"deliveries/detail?pk={delivery}", f"tenants/detail?pk={tenant.name}", f"tenant/{tenant.name}/live"]
    pages += [f"{key}/list?q={tenant.name}" for key in ("tenants", "operations", "deliveries", "audit")]
    for person in (support, admin):
        for page in pages:
            assert SAID not in await person.text(f"/console/{page}"), page
    action = f"/console/_api/deliveries/action?name=export&all=1&_list_query=?q={tenant.name}"
    exported = await support.post(action, format="csv", scope="selected")
    assert tenant.name in exported.text
    assert SAID not in exported.text
    asked = await support.http.get("/console/deliveries/list", params={"filter": "body__contains=card"})
    assert asked.status_code == HTTPStatus.BAD_REQUEST, "nor can it be searched"


async def test_a_replaced_panel_token_ends_its_sessions(system: System, open_browser: OpenBrowser) -> None:
    """The API of the system has the new token, who logged in before had the old one."""
    async with domain_of(system) as now:
        old = SecretStr("the token of last year")
        before = dataclasses.replace(now, settings=now.settings.model_copy(update={"panel_token": old}))
        cookies = {}
        for name, services in (("before", before), ("now", now)):
            presented = services.settings.panel_token.get_secret_value()
            cookies[name] = await console_users.log_in_by_token(services, presented, "127.0.0.1")
            assert await console_sessions.who(services, str(cookies[name])) is not None
    for name, page in (("before", "/console/login"), ("now", "/console/")):
        browser = open_browser()
        browser.http.cookies.set(COOKIE, str(cookies[name]), path="/console")
        assert (await browser.http.get("/console/")).url.path == page


async def test_a_new_password_ends_the_sessions_of_the_old_one(
    admin: Browser, tenant: Tenant, open_browser: OpenBrowser
) -> None:
    name = f"{tenant.name} careless"
    thief = await let_in(admin, open_browser(), name, "support")
    await admin.post(f"/console/users/edit?pk={name}", role="support", password=PASSWORD[::-1])
    assert (await thief.http.get("/console/")).url.path == "/console/login"
    assert (await open_browser().log_in(name, PASSWORD)).status_code == HTTPStatus.BAD_REQUEST


def end_all_of(system: System, actor: str) -> str:
    done = subprocess.run(
        [ORCHESTRATOR, "console", "end", "--all-of", actor],
        env={**os.environ, "ORCHESTRATOR_STATE_DIR": str(system.state)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


async def test_sessions_are_listed_and_ended(admin: Browser, tenant: Tenant, open_browser: OpenBrowser) -> None:
    name = f"{tenant.name} lost-phone"
    phone = await let_in(admin, open_browser(), name, "support")
    desk, tablet = open_browser(), open_browser()
    for browser in (desk, tablet):
        await browser.log_in(name, PASSWORD)
    page = await admin.text(f"/console/sessions/list?q={name}")
    digests = re.findall(r"pks?=([0-9a-f]{64})", page)
    assert "127.1." in page
    assert len(set(digests)) == 3

    assert (await admin.act("sessions", digests[0], "end")).status_code == HTTPStatus.OK
    opens = [(await browser.http.get("/console/")).url.path == "/console/" for browser in (phone, desk, tablet)]
    assert sorted(opens) == [False, True, True]
    ended = await asyncio.to_thread(end_all_of, tenant.system, f"console:{name}")
    assert "2 sessions" in ended
    for browser in (phone, desk, tablet):
        assert (await browser.http.get("/console/")).url.path == "/console/login"
