"""The pages before a login: the login itself, a link that lets in once, and an operator's invitation."""

import asyncio
import re

import pytest
from playwright.async_api import expect

from bench.testbed.system import System
from bench.testbed.waiting import DEADLINE
from tests.browser.somebody import Come, Somebody
from tests.world.console import login_link
from tests.world.tenant import Tenant

PASSWORD = "a-long-password"


async def test_a_password_lets_in_and_a_wrong_one_does_not(admin: Somebody, come: Come, tenant: Tenant) -> None:
    name = f"{tenant.name} viewer"
    await admin.page.goto("/console/users/create")
    await admin.page.get_by_label("Name").fill(name)
    await admin.page.get_by_label("Role").select_option("viewer")
    await admin.page.get_by_label("Password").fill(PASSWORD)
    await admin.page.get_by_role("button", name="Save").click()
    await expect(admin.page.get_by_role("alert")).to_contain_text(name)

    viewer = await come()
    viewer.expects(400)
    page = viewer.page
    await page.goto("/console/tenants/list")
    await expect(page).to_have_title(re.compile("^Log in"))
    await viewer.look("login")
    for password in ("a-wrong-password", PASSWORD):
        await page.get_by_label("Name").fill(name)
        await page.get_by_label("Password").fill(password)
        await page.get_by_role("button", name="Log in").click()
        if password != PASSWORD:
            await expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
            await viewer.look("login-refused")
    await expect(page).to_have_title(re.compile("^Tenants"))

    viewer.expects(403)
    await page.goto("/console/users/list")
    await expect(page.get_by_role("heading", name="You may not do this")).to_be_visible()
    await viewer.look("forbidden")
    await page.get_by_role("link", name="To the overview").click()

    await page.get_by_role("link", name="Open user menu").click()
    await page.get_by_role("button", name="Logout").click()
    await expect(page).to_have_title(re.compile("^Log in"))
    await page.goto("/console/")
    await expect(page).to_have_title(re.compile("^Log in"))


async def test_a_link_lets_in_once(come: Come, system: System) -> None:
    link = await login_link(system)
    first, second = await come(), await come()
    await first.page.goto(link)
    await first.look("link")
    await first.page.get_by_role("button", name="Log in").click()
    await expect(first.page.get_by_role("heading", name="Overview")).to_be_visible()
    second.expects(410)
    await second.page.goto(link)
    await expect(second.page.get_by_text("This link is used up")).to_be_visible()
    await second.look("link-used-up")


async def test_an_operator_is_invited_sets_a_password_and_comes_online(
    admin: Somebody, come: Come, tenant: Tenant
) -> None:
    page = admin.page
    await page.goto(f"/console/tenant/{tenant.name}")
    await page.get_by_label("Name, without the instance").fill("carol")
    await page.get_by_role("button", name="Add and invite").click()
    await expect(page).to_have_title(re.compile("^Invitation of carol"))
    await admin.look("invitation")
    await page.get_by_role("button", name="Copy the link").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    link = str(await page.evaluate("navigator.clipboard.readText()"))

    carol = await come()
    await carol.page.goto(link)
    await carol.look("onboarding")
    carol.expects(422, 410)
    await carol.page.get_by_label("Password").fill(PASSWORD)
    await carol.page.get_by_label("The same once more").fill(f"{PASSWORD}x")
    await carol.page.get_by_role("button", name="Set the password").click()
    await expect(carol.page.get_by_role("alert")).to_have_text("The two passwords are not the same.")
    await carol.look("onboarding-refused")
    await carol.page.get_by_label("Password").fill(PASSWORD)
    await carol.page.get_by_label("The same once more").fill(PASSWORD)
    await carol.page.get_by_role("button", name="Set the password").click()
    await expect(carol.page.get_by_role("heading", name="You are ready")).to_be_visible()
    await carol.look("onboarding-done")
    await carol.page.goto(link)
    await expect(carol.page.get_by_role("heading", name="This link is used up")).to_be_visible()
    await carol.look("onboarding-used-up")

    await page.get_by_role("link", name=f"Back to {tenant.name}").click()
    row = page.get_by_role("row", name="carol").first
    await expect(row).to_contain_text("offline")
    await page.evaluate("window.sameLoad = true")
    stranger = tenant.operator("carol", password="not hers")
    with pytest.raises(PermissionError):
        await stranger.connect()
    await stranger.leave()
    async with tenant.operator("carol", password=PASSWORD) as online:
        await expect(row).to_contain_text("online")
        await expect(row).to_contain_text("desk")
        assert await page.evaluate("window.sameLoad"), "the page showed it without being loaded again"
        await row.get_by_role("button", name="Disconnect carol").click()
        await expect(page.get_by_role("alert")).to_contain_text("carol is disconnected")
        assert admin.asked == ["Disconnect carol?"]
        await asyncio.wait_for(online.disconnected.wait(), DEADLINE)
        await expect(row).to_contain_text("offline")
