"""The console as a browser without scripts sees it: who may in, what each role may do, and that text stays text."""

import asyncio
import csv
import re
from http import HTTPStatus

from bench.testbed.waiting import DEADLINE, until_async
from tests.world.console import FORM, PASSWORD, Browser, OpenBrowser, let_in
from tests.world.tenant import Tenant

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}"
HOSTILE_AS_TEXT = "&lt;script&gt;alert(1)&lt;/script&gt;"


async def test_nobody_sees_anything_without_a_login(tenant: Tenant, open_browser: OpenBrowser) -> None:
    browser = open_browser()
    for path in ("", "tenants/list", "tenants/detail?pk=x", f"tenant/{tenant.name}/live", "live/overview"):
        assert (await browser.http.get(f"/console/{path}")).url.path == "/console/login", path
    for name, password in (("", "no token"), ("nobody", PASSWORD), ("", tenant.key)):
        assert (await browser.log_in(name, password)).status_code == HTTPStatus.BAD_REQUEST
    assert (await browser.http.get("/console/tenants/list")).url.path == "/console/login"


async def test_who_guesses_is_stopped_for_a_while(open_browser: OpenBrowser) -> None:
    browser = open_browser()
    said = [(await browser.log_in("somebody-who-guesses", f"guess {n}")).text for n in range(11)]
    assert all("Name or password is wrong." in text for text in said[:10])
    assert "Too many attempts" in said[10]


async def test_pages_are_for_this_site_alone(admin: Browser) -> None:
    answer = await admin.http.get("/console/")
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = next(c for c in admin.http.cookies.jar if c.name == "orchestrator_console")
    assert cookie.path == "/console"
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert "https://" not in re.sub(r"<svg.*?</svg>", "", answer.text, flags=re.DOTALL), "nothing comes from elsewhere"


async def test_a_forged_request_is_refused(admin: Browser, tenant: Tenant) -> None:
    for path in (f"/console/tenant/{tenant.name}/key", "/console/users/create", "/console/logout"):
        assert (await admin.http.post(path, data={"csrftoken": "forged"})).status_code == HTTPStatus.FORBIDDEN
    params = {"pk": tenant.name, "name": "suspend"}
    assert (
        await admin.http.post("/console/_api/tenants/row-action", params=params)
    ).status_code == HTTPStatus.FORBIDDEN


async def test_each_role_may_its_own(admin: Browser, tenant: Tenant, open_browser: OpenBrowser) -> None:
    viewer = await let_in(admin, open_browser(), f"{tenant.name} viewer", "viewer")
    support = await let_in(admin, open_browser(), f"{tenant.name} support", "support")
    page = f"/console/tenant/{tenant.name}"
    assert tenant.name in await viewer.text(f"/console/tenants/list?q={tenant.name}")
    for path in (f"{page}/key", f"{page}/operators", f"{page}/replay", f"{page}/operators/bob/kick"):
        assert (await viewer.post(path, username="eve")).status_code == HTTPStatus.FORBIDDEN
    for browser in (viewer, support):
        for path in ("/console/users/list", "/console/users/create", "/console/tenants/create"):
            assert (await browser.http.get(path)).status_code == HTTPStatus.FORBIDDEN
        assert (await browser.act("tenants", tenant.name, "suspend")).json() == {"msg": "Forbidden"}
        assert (await browser.act("tenants", tenant.name, "destroy", confirmed=tenant.name)).json() == {
            "msg": "Forbidden"
        }
    assert (await support.post(f"{page}/replay")).url.path == "/console/tenants/detail"
    assert (await support.post(f"{page}/key")).status_code == HTTPStatus.FORBIDDEN


async def test_who_is_removed_is_out_at_once(admin: Browser, tenant: Tenant, open_browser: OpenBrowser) -> None:
    name = f"{tenant.name} leaver"
    browser = await let_in(admin, open_browser(), name, "support")
    assert (await admin.act("users", name, "remove")).status_code == HTTPStatus.OK
    assert (await browser.http.get("/console/")).url.path == "/console/login"
    assert (await browser.log_in(name, PASSWORD)).status_code == HTTPStatus.BAD_REQUEST


async def test_a_tenant_is_made_changed_and_destroyed(admin: Browser, tenant: Tenant) -> None:
    name = f"{tenant.name}-second"
    broken = await admin.post("/console/tenants/create", **FORM, instance_name="No Name")
    assert broken.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "must be lower case" in broken.text
    negative = await admin.post("/console/tenants/create", **{**FORM, "max_accounts": "-1"}, instance_name=name)
    assert "greater than or equal to 1" in negative.text
    made = await admin.post("/console/tenants/create", **FORM, instance_name=name, visitor_tracking="on")
    assert made.url.path == "/console/tenants/list"

    async def is_in(state: str) -> bool:
        return bool((await tenant.panel.http.get(f"/v1/tenants/{name}")).json().get("state") == state)

    await until_async(lambda: is_in("active"), "it is active")
    view = (await tenant.panel.http.get(f"/v1/tenants/{name}")).json()
    assert (view["xmpp"], view["visitor_tracking"], view["max_accounts"]) == (True, True, None)

    changes = {"max_accounts": "5", "online_seconds": "60"}
    changed = await admin.post(f"/console/tenants/edit?pk={name}", **{**FORM, **changes})
    assert changed.url.path == "/console/tenants/list", changed.text
    view = (await tenant.panel.http.get(f"/v1/tenants/{name}")).json()
    assert (view["max_accounts"], view["online_seconds"], view["visitor_tracking"]) == (5, 60, False)

    shown = (await admin.post(f"/console/tenant/{name}/key")).text
    key = re.search(r"secret_key</th>\s*<td><div class=\"copy-line\"><code>([^<]+)", shown)
    assert key is not None
    assert key[1] not in await admin.text(f"/console/tenants/detail?pk={name}")

    refused = await admin.act("tenants", name, "destroy", confirmed="something else")
    assert "not the tenant's name" in refused.json()["msg"]
    assert (await admin.act("tenants", name, "destroy", confirmed=name)).status_code == HTTPStatus.OK
    await until_async(lambda: is_gone(tenant, name), "it is gone")
    entries = (await tenant.panel.http.get(f"/v1/tenants/{name}/audit")).json()["entries"]
    assert {entry["actor"] for entry in entries if entry["action"] == "settings changed"} == {"panel"}


async def is_gone(tenant: Tenant, name: str) -> bool:
    return (await tenant.panel.http.get(f"/v1/tenants/{name}")).status_code == HTTPStatus.NOT_FOUND


async def test_the_overview_links_to_the_tenants_of_a_state(admin: Browser, tenant: Tenant) -> None:
    links = re.findall(r'href="([^"]*tenants/list\?filter=[^"]*=active)"', await admin.text("/console/"))
    assert links
    assert tenant.name in await admin.text(f"{links[0]}&q={tenant.name}")
    assert tenant.name not in await admin.text("/console/tenants/list?filter=state__eq=suspended")


async def test_a_table_is_exported(admin: Browser, tenant: Tenant) -> None:
    headers = {"X-CSRFToken": await admin.csrf()}
    params = {"name": "export", "all": "1", "_list_query": f"?q={tenant.name}"}
    form = {"format": "csv", "scope": "selected"}
    answer = await admin.http.post("/console/_api/tenants/action", params=params, data=form, headers=headers)
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = csv.DictReader(answer.text.splitlines())
    assert [row["Tenant"] for row in rows] == [tenant.name]


async def test_an_operator_is_invited_and_sets_a_password(
    admin: Browser, tenant: Tenant, open_browser: OpenBrowser
) -> None:
    answer = await admin.post(f"/console/tenant/{tenant.name}/operators", username="carol")
    link = re.search(r'<code id="link">([^<]+)', answer.text)
    assert link is not None, answer.text
    operator = open_browser().http
    assert f"carol.{tenant.name}@" in (await operator.get(link[1])).text
    short = await operator.post(link[1], data={"password": "short", "again": "short"})
    assert short.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    other = await operator.post(link[1], data={"password": PASSWORD, "again": PASSWORD + "x"})
    assert "not the same" in other.text
    ready = await operator.post(link[1], data={"password": PASSWORD, "again": PASSWORD})
    assert "You are ready" in ready.text
    assert f"xmpp:carol.{tenant.name}@" in ready.text
    assert PASSWORD not in ready.text
    for again in (await operator.get(link[1]), await operator.post(link[1], data={"password": "x", "again": "x"})):
        assert again.status_code == HTTPStatus.GONE
    assert "carol" in await admin.text(f"/console/tenant/{tenant.name}/live")


async def test_what_visitors_write_stays_text(admin: Browser, tenant: Tenant) -> None:
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, nick=HOSTILE, status=HOSTILE)

    async def is_shown() -> bool:
        return "alert(1)" in await admin.text(f"/console/tenant/{tenant.name}/live")

    await until_async(is_shown, "the visitor is shown")
    for path in (f"tenant/{tenant.name}/live", f"tenants/detail?pk={tenant.name}"):
        page = await admin.text(f"/console/{path}")
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<script>alert" not in page
        assert "<img src=x" not in page


async def test_messages_are_counted_by_the_minute(admin: Browser, tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    bob.write(tenant.lhc.name("visitor.1"), "hello")
    await tenant.receiver.message("hello")

    async def counted() -> bool:
        label = re.search(r"to visitors (\d+) within", await admin.text("/console/live/overview"))
        return label is not None and int(label[1]) >= 1

    await until_async(counted, "the message is counted")


async def test_support_sees_what_is_said_when_the_switch_is_on(
    admin: Browser, tenant: Tenant, open_browser: OpenBrowser
) -> None:
    support = await let_in(admin, open_browser(), f"{tenant.name} listener", "support")
    viewer = await let_in(admin, open_browser(), f"{tenant.name} looker", "viewer")
    page, lines = f"/console/conversation/{tenant.name}", f"/console/conversation/{tenant.name}/lines"
    assert (await viewer.http.get(page)).status_code == HTTPStatus.FORBIDDEN
    assert (await viewer.http.get(lines)).status_code == HTTPStatus.FORBIDDEN
    assert "is off" in await support.text(page)
    assert (await support.http.get(lines)).status_code == HTTPStatus.CONFLICT
    assert await looks(tenant) == []

    await admin.post(f"/console/tenants/edit?pk={tenant.name}", **FORM, visitor_tracking="on", live_view="on")
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    async with support.http.stream("GET", lines) as stream, asyncio.timeout(DEADLINE):
        assert stream.status_code == HTTPStatus.OK
        heard = stream.aiter_text()
        seen = await anext(heard)
        assert seen.startswith("event: begun")
        # its switch is known to every pool process a moment later, and nobody can be asked when
        while HOSTILE_AS_TEXT not in seen:
            await tenant.lhc.visitor_writes("visitor.1", PASSWORD, "bob", HOSTILE)
            seen += await anext(heard)
        # it may go by another pool process, which knows of the switch a moment later too
        while "how may I help?" not in seen:
            bob.write(tenant.lhc.name("visitor.1"), "how may I help?")
            seen += await anext(heard)
        assert "<script>" not in seen
        assert "<img" not in seen
        assert f"{tenant.lhc.name('bob')} → {tenant.lhc.name('visitor.1')}" in seen

        await admin.post(f"/console/tenants/edit?pk={tenant.name}", **FORM, visitor_tracking="on")
        async for text in heard:
            seen += text
    assert f"event: ended\ndata: The live view of {tenant.name} is off." in seen
    assert await looks(tenant) == [f"console:{tenant.name} listener"]


async def looks(tenant: Tenant) -> list[str]:
    """Who looked, by the audit log."""
    entries = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}/audit")).json()["entries"]
    return [entry["actor"] for entry in entries if entry["action"] == "live view"]
