"""poezio (https://poez.io): contacts in its first tab, a tab for each conversation, which begins with the status."""

import re

from tests.clients.client import OPERATOR_PASSWORD, Client, certificate_of


class Poezio(Client):
    """Has the certificate as a file."""

    def write_files(self) -> None:
        self.write("certificate.pem", certificate_of(self.tenant.system))
        self.write(
            ".config/poezio/poezio.cfg",
            f"[Poezio]\njid={self.jid}/poezio\npassword={OPERATOR_PASSWORD}\n"
            f"custom_host={self.server}\ncustom_port={self.port}\nca_cert_path={self.home}/certificate.pem\n"
            "enable_carbons=true\nroster_show_offline=true\n",
        )

    def command(self) -> list[str]:
        return ["poezio"]

    async def log_in(self) -> None:
        await self.screen.shows("Your JID is")

    async def type(self, text: str) -> None:
        """With a pause before each Enter and after it: what comes at once is taken for pasted, with its line ends."""
        if text.startswith("/"):
            self.screen.press("/")
            await self.screen.shows_no("Enter commands with")
            text = text.removeprefix("/")
        self.screen.press(text)
        in_the_last_line = rf"{re.escape(text[-40:])}\Z"
        await self.screen.shows(in_the_last_line)
        self.screen.press("\r")
        await self.screen.shows_no(in_the_last_line)

    async def lists(self, name: str) -> None:
        await self._contacts()
        await self.screen.shows(_contact(name))

    async def lists_no(self, name: str) -> None:
        await self._contacts()
        await self.screen.shows_no(_contact(name))

    async def shows_status(self, visitor: str, name: str, status: str) -> None:
        await self.lists(name)
        await self.open(visitor)
        await self.screen.shows(rf"\] {re.escape(name)} \[\| {re.escape(status)}")

    async def open(self, visitor: str) -> None:
        await self.type(f"/message {self.jid_of(visitor)}")
        await self.screen.shows(rf"│\[{self.jid_of(visitor)}")

    async def rename(self, visitor: str, name: str) -> None:
        await self._contacts()
        await self.type(f'/name {self.jid_of(visitor)} "{name}"')

    async def remove(self, visitor: str) -> None:
        await self._contacts()
        await self.type(f"/remove {self.jid_of(visitor)}")

    async def _contacts(self) -> None:
        await self.type("/win 0")
        await self.screen.shows("│Roster: ")


def _contact(name: str) -> str:
    """The contact's line, with its address and the number of its devices."""
    return rf"\[.\] {re.escape(name)} \("
