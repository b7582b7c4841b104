"""The console without a mouse: every stop is seen, questions take the focus, and Escape ends them."""

import os
import re

from playwright.async_api import Page, expect

from bench.testbed.system import System
from tests.browser.somebody import Come, Somebody
from tests.world.tenant import Tenant

_FOCUS = """() => {
    const at = document.activeElement;
    if (!at || at === document.body) return null;
    const look = () => { const s = getComputedStyle(at); return [s.outline, s.boxShadow, s.borderColor].join(); };
    const focused = look();
    at.blur();
    const plain = look();
    at.focus({focusVisible: true});
    return {name: at.getAttribute("aria-label") || at.innerText || at.id, id: at.id, seen: focused !== plain};
}"""


async def tab_to(page: Page, name: str) -> None:
    """Go on from stop to stop until one of that name or id; each stop on the way is seen."""
    unseen: list[str] = []
    passed: list[str] = []
    for _ in range(60):
        await page.keyboard.press("Tab")
        stop = await page.evaluate(_FOCUS)
        if stop is None:
            continue
        passed.append(stop["name"])
        if not stop["seen"]:
            unseen.append(stop["name"])
        if name in {stop["id"], stop["name"].strip()}:
            assert unseen == []
            return
    raise AssertionError(f"the keyboard does not reach {name}; it passed {passed}")


async def test_a_tenant_is_made_with_the_keyboard_alone(come: Come, system: System) -> None:
    page, name = (await come()).page, f"typed-{os.getpid()}"
    await page.goto("/console/login")
    await expect(page.get_by_label("Name")).to_be_focused()
    await tab_to(page, "password")
    await page.keyboard.type(system.endpoints["panel_token"])
    await page.keyboard.press("Enter")
    await expect(page).to_have_title(re.compile("^Overview"))
    await tab_to(page, "Tenants")
    await page.keyboard.press("Enter")
    await expect(page).to_have_title(re.compile("^Tenants"))
    await tab_to(page, "New Tenant")
    await page.keyboard.press("Enter")
    await expect(page).to_have_title(re.compile("^New tenant"))
    await tab_to(page, "instance_name")
    await page.keyboard.type(name)
    await tab_to(page, "Save")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("row", name=name)).to_be_visible()


async def test_a_question_takes_the_focus_and_escape_ends_it(admin: Somebody, tenant: Tenant) -> None:
    page = admin.page
    await page.goto(f"/console/tenant/{tenant.name}")
    await tab_to(page, "Destroy")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    await expect(page.locator("[role=dialog]:focus, [role=dialog] :focus")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="Destroy", exact=True)).to_be_focused()
