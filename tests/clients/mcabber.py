"""mcabber (https://mcabber.com): contacts to the left, the chosen one's name and status below the conversation."""

import re
from typing import ClassVar

from bench.testbed.waiting import until_async
from tests.clients.client import OPERATOR_PASSWORD, Client, fingerprint_of

_SEARCH_SECONDS = 2.0
"""After which the search is made again."""


class Mcabber(Client):
    """Knows the certificate by its fingerprint. Speaks PLAIN alone, of what ejabberd offers."""

    MECHANISM: ClassVar[str] = "PLAIN"

    def write_files(self) -> None:
        self.write(
            ".mcabber/mcabberrc",
            f"set jid = {self.jid}\nset password = {OPERATOR_PASSWORD}\nset resource = mcabber\n"
            f"set server = {self.server}\nset port = {self.port}\n"
            f"set tls = 1\nset ssl_fingerprint = SHA256:{fingerprint_of(self.tenant.system)}\n"
            "set carbons = 1\nset roster_width = 40\nset buddy_format = 3\n",
        )
        (self.home / ".mcabber").chmod(0o700)

    def command(self) -> list[str]:
        return ["mcabber"]

    async def log_in(self) -> None:
        await self.screen.shows("Carbons enabled")

    async def lists(self, name: str) -> None:
        await self.screen.shows(_contact(name))

    async def lists_no(self, name: str) -> None:
        await self.screen.shows_no(_contact(name))

    async def shows_status(self, visitor: str, name: str, status: str) -> None:
        await self.open(visitor)
        await self.screen.shows(rf"\[o\] Buddy: {re.escape(name)} -- {re.escape(status)}")

    async def open(self, visitor: str) -> None:
        # the line below the conversation says only how the contact is called, so: first to another one
        await self.type("/roster top")
        await self.screen.shows(r"Special buffer: \[status\]")
        await until_async(lambda: self._finds(visitor), f"mcabber finds {visitor}")
        await self.type("")  # Enter alone opens it

    async def _finds(self, visitor: str) -> bool:
        """Whether the search goes to the contact. It says nothing of one that it does not find, who may come later."""
        await self.type(f"/roster search {self.jid_of(visitor)}")
        try:
            await self.screen.shows(r"\[.\] Buddy: ", _SEARCH_SECONDS)
        except AssertionError:
            return False
        return True

    async def rename(self, visitor: str, name: str) -> None:
        await self.open(visitor)
        await self.type(f"/rename {name}")

    async def remove(self, visitor: str) -> None:
        await self.open(visitor)
        await self.type("/del")


def _contact(name: str) -> str:
    """The contact's line."""
    return rf"\[.\] {re.escape(name)} +│"
