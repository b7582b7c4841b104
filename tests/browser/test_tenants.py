"""What an administrator does to a tenant, by clicking; and what a viewer is not offered."""

import os
import re

from playwright.async_api import expect

from bench.testbed.system import System
from tests.browser.somebody import Come, Somebody
from tests.world.console import login_link
from tests.world.tenant import Tenant


async def act(somebody: Somebody, name: str) -> None:
    """Press one of the tenant's actions, and say yes."""
    await somebody.page.get_by_role("button", name=name, exact=True).click()
    await somebody.page.get_by_role("dialog").get_by_role("button", name="Yes, Proceed").click()


async def in_state(somebody: Somebody, state: str) -> None:
    """The page comes to show the state by itself."""
    await expect(somebody.page.locator("h2 .badge")).to_have_text(state)


async def test_a_tenants_life(admin: Somebody) -> None:
    page, name = admin.page, f"clicked-{os.getpid()}"
    await page.goto("/console/")
    await page.get_by_role("link", name="Tenants", exact=True).click()
    await page.get_by_role("link", name="New Tenant").click()
    await page.get_by_role("textbox", name="Tenant").fill(name)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text(f"{name}")
    await page.get_by_role("row", name=name).click()
    await in_state(admin, "active")
    await page.get_by_role("link", name="provision").click()
    await expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "100")
    await expect(page.locator(".live .badge").first).to_have_text("succeeded")
    await page.get_by_role("heading", level=1).get_by_role("link", name=name).click()

    await act(admin, "Suspend")
    await in_state(admin, "suspended")
    await expect(page.get_by_role("button", name="Suspend", exact=True)).to_have_count(0)
    await act(admin, "Resume")
    await in_state(admin, "active")
    await act(admin, "Reconcile")
    await expect(page.get_by_role("link", name="reconcile")).to_be_visible()

    await page.get_by_role("button", name="Edit").click()
    await page.get_by_label("Account limit").fill("7")
    await page.get_by_label("Visitor tracking").uncheck()
    await page.get_by_role("button", name="Save").click()
    await page.goto(f"/console/tenant/{name}")
    await expect(page.get_by_role("row", name="Account limit")).to_contain_text("7")
    await expect(page.get_by_role("row", name="Visitor tracking")).to_contain_text("off")

    admin.expects(400)
    await page.get_by_role("button", name="Destroy", exact=True).click()
    await page.get_by_role("dialog").get_by_label(f"Type {name} to destroy it").fill("another-name")
    await page.get_by_role("button", name="Destroy it").click()
    await expect(page.get_by_role("alert")).to_contain_text("not the tenant's name")
    await in_state(admin, "active")
    await page.get_by_role("button", name="Destroy", exact=True).click()
    await page.get_by_role("dialog").get_by_label(f"Type {name} to destroy it").fill(name)
    await page.get_by_role("button", name="Destroy it").click()
    await in_state(admin, "destroyed")
    await expect(page.get_by_role("button", name="Destroy", exact=True)).to_have_count(0)


async def test_a_new_key_is_copied(admin: Somebody, tenant: Tenant) -> None:
    page = admin.page
    await page.goto(f"/console/tenant/{tenant.name}")
    await page.get_by_role("button", name="Make a new key").click()
    assert len(admin.asked) == 1
    await page.get_by_role("button", name="Copy secret_key").click()
    await expect(page.get_by_text("Copied")).to_be_visible()
    key = str(await page.evaluate("navigator.clipboard.readText()"))
    await expect(page.get_by_role("row", name="secret_key")).to_contain_text(key)
    assert len(key) >= 40
    await page.get_by_role("link", name=f"Back to {tenant.name}").click()
    await expect(page.get_by_role("row", name=re.compile("rotate keys.*succeeded"))).to_be_visible()
    assert key not in await page.content()


async def test_a_viewer_is_offered_nothing_to_do(come: Come, system: System, tenant: Tenant) -> None:
    viewer = await come()
    page = viewer.page
    await page.goto(await login_link(system, "viewer"))
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("link", name="Tenants", exact=True)).to_be_visible()
    await expect(page.get_by_role("link", name="People")).to_have_count(0)
    await page.goto("/console/tenants/list")
    await expect(page.get_by_role("row", name=tenant.name)).to_be_visible()
    await expect(page.get_by_role("link", name="New Tenant")).to_have_count(0)
    await page.get_by_role("row", name=tenant.name).click()
    await expect(page).to_have_title(re.compile(f"^{tenant.name}"))
    words = "Edit|Suspend|Reconcile|Destroy|Invite|Disconnect|Make a new key|Add and invite|Replay"
    await expect(page.get_by_role("button", name=re.compile(words))).to_have_count(0)
    await expect(page.get_by_role("link", name=re.compile(words))).to_have_count(0)


async def test_people_come_and_go(admin: Somebody) -> None:
    page, name = admin.page, f"Person {os.getpid()}"
    await page.goto("/console/users/create")
    await page.get_by_label("Name").fill(name)
    await page.get_by_label("Role").select_option("support")
    await page.get_by_label("Password").fill("a-long-password")
    await page.get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name=name)
    await expect(row).to_contain_text("support")
    await row.get_by_role("button", name="Actions").click()
    await row.get_by_text("Remove").click()
    await page.get_by_role("dialog").get_by_role("button", name="Yes, Proceed").click()
    await expect(page.get_by_role("alert")).to_contain_text(f"{name} can no longer log in; their sessions are ended.")
    await expect(row).to_have_count(0)
