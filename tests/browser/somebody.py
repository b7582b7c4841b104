"""Somebody at a browser, who notices all that goes wrong in it, and looks at each page in every way."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import ConsoleMessage, Dialog, Page, Request, Response, ViewportSize, WebError

WIDE: ViewportSize = {"width": 1280, "height": 900}
NARROW: ViewportSize = {"width": 390, "height": 844}
Scheme = Literal["light", "dark"]
_LOOKS: tuple[tuple[Scheme, str, ViewportSize], ...] = (
    ("light", "wide", WIDE),
    ("light", "narrow", NARROW),
    ("dark", "narrow", NARROW),
    ("dark", "wide", WIDE),
)
_AXE = """async rules => {
    const found = await axe.run({runOnly: rules, resultTypes: ["violations"]});
    return found.violations.flatMap(one => one.nodes.map(node => `${one.id}: ${node.target} ${node.failureSummary}`));
}"""
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


class Somebody:
    """A person at a browser of their own.

    Args:
        page: what is open in it.
        pictures: where pictures of pages go.
    """

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self.troubles: list[str] = []
        """What went wrong: errors of scripts, answers of 400 and more, dialogs that nobody expects."""
        self.asked: list[str] = []
        """Questions that were answered with yes."""
        self._pictures = pictures
        self._expected: set[int] = set()
        context = page.context
        context.on("console", self._said)
        context.on("weberror", self._failed)
        context.on("requestfailed", self._lost)
        context.on("response", self._answered)
        context.on("dialog", self._interrupted)

    def expects(self, *statuses: int) -> None:
        """Answers with these are no trouble."""
        self._expected |= set(statuses)

    async def look(self, name: str) -> None:
        """Look at the page light and dark, wide and narrow: a picture of each, and nothing is wrong with it."""
        wrong: list[str] = []
        for scheme, width, size in _LOOKS:
            await self.page.set_viewport_size(size)
            await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            await self.page.screenshot(path=self._pictures / f"{name}-{scheme}-{width}.png", full_page=True)
            found = [*await self._outline(), *await self._violations()]
            wrong += [f"{name}, {scheme}, {width}: {one}" for one in found]
        assert not wrong, "\n".join(wrong)

    async def _outline(self) -> list[str]:
        found: dict[str, Any] = await self.page.evaluate(
            """() => ({
                headings: [...document.querySelectorAll("h1")].filter(one => one.checkVisibility()).length,
                lang: document.documentElement.lang,
                over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
            })"""
        )
        right = {"headings": 1, "lang": "en", "over": 0}
        return [f"{what}: {found[what]}" for what in right if found[what] != right[what]]

    async def _violations(self) -> list[str]:
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE_SCRIPT)
        violations: list[str] = await self.page.evaluate(_AXE, _RULES)
        return violations

    def _said(self, message: ConsoleMessage) -> None:
        # an answer of 400 and more is told here as well
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            self.troubles.append(f"{self.page.url}: {message.text}")

    def _failed(self, error: WebError) -> None:
        self.troubles.append(f"{self.page.url}: {error.error}")

    def _lost(self, request: Request) -> None:
        # who goes on to another page ends what the page before was fetching
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"{request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._expected:
            self.troubles.append(f"{response.url}: {response.status}")

    async def _interrupted(self, dialog: Dialog) -> None:
        if dialog.type == "confirm":
            self.asked.append(dialog.message)
            await dialog.accept()
        else:
            self.troubles.append(f"{self.page.url}: {dialog.type} {dialog.message}")
            await dialog.dismiss()


Come = Callable[..., Awaitable[Somebody]]
"""Opens a browser of somebody's own."""
