"""What visitors and operators write is text on every page, whatever it looks like."""

from contextlib import suppress
from urllib.parse import quote

from playwright.async_api import TimeoutError as PlaywrightTimeoutError
from playwright.async_api import expect

from bench.testbed.waiting import until_async
from tests.browser.somebody import Somebody
from tests.world.tenant import NewTenant
from tests.world.tenant_api import api_of

PASSWORD = "0123456789abcdef0123"
SCRIPT = "<script>window.owned=1;alert(1)</script>"
TAG = '"\'><img src=x onerror="window.owned=1;alert(2)">{{7*7}}${7*7}'
HREF = "javascript:window.owned=1"
NICK = f"nick {SCRIPT}{TAG}"
STATUS = f"status {TAG} {HREF} {SCRIPT}"
BODY = f"body {SCRIPT}{TAG} {HREF}"


async def shows(somebody: Somebody, *texts: str) -> None:
    """The texts are there as text, and nothing in them has become anything else."""
    for text in texts:
        await expect(somebody.page.get_by_text(text).first).to_be_visible()
    assert await somebody.page.evaluate("window.owned") is None
    await expect(somebody.page.locator("img[src=x], [href^=javascript]")).to_have_count(0)


async def test_what_visitors_and_operators_write(admin: Somebody, new_tenant: NewTenant) -> None:
    tenant = await new_tenant(routing="orchestrator", live_view=True)
    async with api_of(tenant) as api:
        bob = await api.operator("bob", nick=f"operator {NICK}")
        bob.set_presence("away", status=f"operator {STATUS}")
        await tenant.lhc.new_visitor("visitor.1", PASSWORD, nick=NICK, status=STATUS)
        await bob.sees(tenant.lhc.name("visitor.1"))
        await api.chat("7", nick=f"chat {NICK}", department=f"department {SCRIPT}")
    await admin.page.goto(f"/console/tenant/{tenant.name}")
    await shows(admin, NICK, STATUS, f"operator {NICK}", f"operator {STATUS}", f"chat {NICK}")
    await admin.page.goto(f"/console/conversation/{tenant.name}")
    await admin.page.get_by_role("button", name="Look now").click()
    await expect(admin.page.get_by_role("button", name="Stop")).to_be_visible()
    line = admin.page.get_by_role("log").get_by_text(BODY).first

    async def is_shown() -> bool:
        bob.write(tenant.lhc.name("visitor.1"), BODY)
        with suppress(PlaywrightTimeoutError):
            await line.wait_for(timeout=1000)
        return bool(await line.count())

    # its switch is known to every pool process a moment later, and nobody can be asked when
    await until_async(is_shown, "it is seen while it passes by")
    await shows(admin, BODY)


async def test_what_people_at_the_console_write(admin: Somebody) -> None:
    admin.expects(404, 422)
    page = admin.page
    name = f"person {SCRIPT}{{{{7*7}}}}"
    await page.goto("/console/users/create")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Save").click()
    await shows(admin, name)
    for path in (f"users/edit?pk={quote(name)}", f"users/detail?pk={quote(name)}", "audit/list"):
        await page.goto(f"/console/{path}")
        await shows(admin)
        assert name in (await page.title()) + await page.inner_text("body"), path
    await page.goto(f"/console/tenants/list?q={quote(TAG)}")
    await expect(page.get_by_label("Search in list")).to_have_value(TAG)
    await shows(admin)
    await page.goto("/console/tenants/create")
    await page.get_by_role("textbox", name="Tenant").fill(SCRIPT)
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".invalid-feedback")).to_be_visible()
    await expect(page.get_by_role("textbox", name="Tenant")).to_have_value(SCRIPT)
    await shows(admin)
    await page.goto(f"/console/tenant/{quote(TAG, safe='')}")
    await shows(admin)
