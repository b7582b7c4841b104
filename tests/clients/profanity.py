"""profanity (https://profanity-im.github.io), which shows contacts beside its first window, the console."""

import re

from tests.clients.client import OPERATOR_PASSWORD, Client

_PREFERENCES = """
[ui]
splash=false
beep=false
roster=true
roster.resource=false
roster.presence=true
roster.status=true
roster.size=40
[notifications]
message=false
[connection]
carbons=true
"""


class Profanity(Client):
    """Asks about the certificate when it meets it for the first time."""

    def write_files(self) -> None:
        self.write(".config/profanity/profrc", _PREFERENCES)
        self.write(
            ".local/share/profanity/accounts",
            f"[desk]\nenabled=true\njid={self.jid}\npassword={OPERATOR_PASSWORD}\n"
            f"server={self.server}\nport={self.port}\nresource=profanity\n",
        )

    def command(self) -> list[str]:
        return ["profanity", "--account", "desk"]

    async def log_in(self) -> None:
        found = await self.screen.shows("'/tls always'|logged in successfully")
        if "tls" in found[0]:
            await self.type("/tls always")
            await self.screen.shows("logged in successfully")

    async def lists(self, name: str) -> None:
        await self._console()
        await self.screen.shows(_contact(name))

    async def lists_no(self, name: str) -> None:
        await self._console()
        await self.screen.shows_no(_contact(name))

    async def shows_status(self, visitor: str, name: str, status: str) -> None:  # noqa: ARG002 - others look in the conversation
        await self._console()
        await self.screen.shows(rf'{_contact(name)}\n.* "{re.escape(status)}')

    async def open(self, visitor: str) -> None:
        await self.type(f"/msg {self.jid_of(visitor)}")
        await self.screen.shows(r"^ .*\[unencrypted\]")

    async def rename(self, visitor: str, name: str) -> None:
        await self.type(f'/roster nick {self.jid_of(visitor)} "{name}"')

    async def remove(self, visitor: str) -> None:
        await self.type(f"/roster remove {self.jid_of(visitor)}")

    async def _console(self) -> None:
        await self.type("/win 1")
        await self.screen.shows("^ Profanity. Type /help")


def _contact(name: str) -> str:
    """The contact's line beside the console's, with the number of lines that were not read yet."""
    return rf" {{3}}{re.escape(name)}(?: \(\d+\))?$"
