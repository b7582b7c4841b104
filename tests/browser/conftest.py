"""The console in a browser: Debian's Chromium, driven by Playwright, at a running system."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, StorageState, async_playwright, expect

from bench.testbed.system import PROJECT, System
from bench.testbed.waiting import DEADLINE
from tests.browser.somebody import Come, Somebody

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=DEADLINE * 1000)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of all pages are put; ORCHESTRATOR_SCREENSHOTS names another folder."""
    folder = Path(os.environ.get("ORCHESTRATOR_SCREENSHOTS") or PROJECT / ".state" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip("there is no Chromium")
    async with async_playwright() as playwright:
        # without its sandbox, which root cannot have: it opens our own pages alone
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@pytest.fixture
async def come(chromium: Browser, system: System, screenshots: Path) -> AsyncIterator[Come]:
    """Somebody comes with a browser of their own; at the end, nothing may have gone wrong in any of them."""
    people: list[Somebody] = []

    async def come(session: StorageState | None = None) -> Somebody:
        context = await chromium.new_context(
            base_url=system.endpoints["api"],
            storage_state=session,
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(DEADLINE * 1000)
        people.append(Somebody(await context.new_page(), screenshots))
        return people[-1]

    yield come
    for somebody in people:
        await somebody.page.context.close()
    assert [trouble for somebody in people for trouble in somebody.troubles] == []


@pytest.fixture(scope="session")
async def admin_session(chromium: Browser, system: System) -> StorageState:
    """The cookies of somebody who has logged in with the panel token."""
    context = await chromium.new_context(base_url=system.endpoints["api"])
    page = await context.new_page()
    await page.goto("/console/login")
    await page.get_by_label("Password").fill(system.endpoints["panel_token"])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    session = await context.storage_state()
    await context.close()
    return session


@pytest.fixture
async def admin(come: Come, admin_session: StorageState) -> Somebody:
    return await come(admin_session)
