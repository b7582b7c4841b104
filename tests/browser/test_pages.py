"""Each page behind the login, in every look: see `Somebody.look`. Their pictures are the run's artifacts."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import expect

from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from tests.browser.shop import open_shop
from tests.browser.somebody import WIDE, Somebody
from tests.world.tenant import Tenant

NAME = "northwind-bakery"


@pytest.fixture(scope="module", autouse=True)
async def shop(system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[Tenant]:
    async with open_shop(system, receiver, panel, NAME) as shop:
        await panel.create("riverside-books")
        suspend = await panel.http.post("/v1/tenants/riverside-books/suspend")
        await panel.finished(suspend.json()["id"])
        yield shop


@pytest.mark.parametrize(
    ("picture", "path", "title"),
    [
        ("overview", "", "Overview"),
        ("tenants", "tenants/list", "Tenants"),
        ("tenant-new", "tenants/create", "New tenant"),
        ("tenant-edit", f"tenants/edit?pk={NAME}", NAME),
        ("tenant", f"tenant/{NAME}", NAME),
        ("conversation", f"conversation/{NAME}", NAME),
        ("operations", "operations/list", "Operations"),
        ("deliveries", "deliveries/list", "Deliveries"),
        ("audit", "audit/list", "Audit log"),
        ("people", "users/list", "People"),
        ("sessions", "sessions/list", "Sessions"),
        ("person-new", "users/create", "New person"),
    ],
)
async def test_page(admin: Somebody, picture: str, path: str, title: str) -> None:
    await admin.page.goto(f"/console/{path}")
    await expect(admin.page).to_have_title(re.compile(title))
    await admin.look(picture)


async def test_the_page_of_an_operation(admin: Somebody) -> None:
    await admin.page.goto(f"/console/tenant/{NAME}")
    await admin.page.get_by_role("link", name="provision").click()
    await expect(admin.page).to_have_title(re.compile(f"provision of {NAME}"))
    await admin.look("operation")


async def test_the_page_of_a_delivery(admin: Somebody) -> None:
    await admin.page.goto(f"/console/tenant/{NAME}")
    await admin.page.locator("a[href*='deliveries/detail']").click()
    await expect(admin.page).to_have_title(re.compile(r"Delivery \d+"))
    await admin.look("delivery")


async def test_the_page_of_an_audit_entry(admin: Somebody) -> None:
    await admin.page.goto("/console/audit/list")
    await admin.page.get_by_role("row").nth(1).click()
    await expect(admin.page).to_have_title(re.compile("Entry"))
    await admin.look("audit-entry")


async def test_a_form_with_mistakes_in_it(admin: Somebody) -> None:
    admin.expects(422)
    await admin.page.goto("/console/tenants/create")
    await admin.page.get_by_role("textbox", name="Tenant").fill("No Name")
    await admin.page.get_by_role("button", name="Save").click()
    await expect(admin.page.get_by_text("must be lower case")).to_be_visible()
    await admin.look("tenant-new-refused")


async def test_people_and_their_form(admin: Somebody) -> None:
    await admin.page.goto("/console/users/create")
    await admin.page.get_by_label("Name").fill("Marta Kowalska")
    await admin.page.get_by_label("Password").fill("a-password-of-hers")
    await admin.page.get_by_role("button", name="Save").click()
    await admin.page.goto("/console/users/edit?pk=Marta+Kowalska")
    await expect(admin.page).to_have_title(re.compile("Marta Kowalska"))
    await admin.look("person-edit")


async def test_a_key_is_shown_once(admin: Somebody) -> None:
    await admin.page.goto("/console/tenant/riverside-books")
    await admin.page.get_by_role("button", name="Make a new key").click()
    await expect(admin.page).to_have_title(re.compile("Key of riverside-books"))
    await admin.look("key")


@pytest.mark.parametrize(
    ("picture", "path", "status", "text"),
    [
        ("not-found", "no-such-page", 404, "404"),
        ("no-such-tenant", "tenant/nobody-here", 404, "404"),
    ],
)
async def test_pages_of_errors(admin: Somebody, picture: str, path: str, status: int, text: str) -> None:
    admin.expects(status)
    await admin.page.goto(f"/console/{path}")
    await expect(admin.page.get_by_text(text)).to_be_visible()
    await admin.look(picture)


async def test_the_figure_of_the_readme(admin: Somebody, screenshots: Path) -> None:
    """It is kept as docs/figures/console.png; copy it there when the page has changed."""
    await admin.page.goto(f"/console/tenant/{NAME}")
    await admin.page.set_viewport_size(WIDE)
    await expect(admin.page.get_by_role("row", name="Maya Lindgren")).to_be_visible()
    await admin.page.screenshot(path=screenshots / "console.png")
    assert (screenshots / "console.png").stat().st_size < 200_000
