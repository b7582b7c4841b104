"""An operator's client at a terminal: its files as a user writes them, its commands, and how its screen is read."""

import hashlib
import os
import re
import shutil
import ssl
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, Self

from bench.testbed.system import System
from tests.world.containers import unprivileged
from tests.world.tenant import Tenant
from tests.world.terminal import Terminal

OPERATOR_PASSWORD = "operator-pw"
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\n", re.DOTALL)


class Client(ABC):
    """One device of an operator. It logs in when it is entered.

    Args:
        tenant: whose operator it is.
        local: the operator's name, without the instance.
        home: the user's folder, in which the client keeps what it keeps. It need not be there.
    """

    MECHANISM: ClassVar[str] = "SCRAM-SHA-"
    """How the mechanism begins by which it logs in."""

    def __init__(self, tenant: Tenant, local: str, home: Path) -> None:
        self.tenant = tenant
        self.jid = self.jid_of(local)
        self.home = home
        endpoints = tenant.system.endpoints
        self.server, self.port = str(endpoints["c2s_host"]), int(endpoints["c2s_port"])
        self.screen: Terminal
        self._stack = AsyncExitStack()
        if not home.exists():
            home.mkdir()
            self.write_files()
            give(home)

    async def __aenter__(self) -> Self:
        self.screen = await self._stack.enter_async_context(Terminal(self.command(), {"HOME": str(self.home)}))
        await self.log_in()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._stack.aclose()

    async def log_in_again(self) -> None:
        """Quit, and start anew."""
        await self.type("/quit")
        await self.screen.ended()
        await self._stack.aclose()
        await self.__aenter__()

    def jid_of(self, local: str) -> str:
        """The address of an operator, a visitor or a chat."""
        return f"{self.tenant.lhc.name(local)}@{self.tenant.host}"

    def write(self, name: str, text: str) -> None:
        """Write a file below the user's folder."""
        file = self.home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    async def type(self, text: str) -> None:
        """Type that, and the Enter key."""
        self.screen.press(f"{text}\r")

    async def reads(self, visitor: str, line: str) -> None:
        """Wait until the line stands in the conversation with the visitor."""
        await self.open(visitor)
        await self.screen.shows(re.escape(line))

    async def says(self, visitor: str, line: str) -> None:
        """Write to the visitor."""
        await self.open(visitor)
        await self.type(line)

    @abstractmethod
    def write_files(self) -> None:
        """Write what the user writes before the first start."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    async def log_in(self) -> None:
        """Do what the user does until the client says that it is online."""

    @abstractmethod
    async def lists(self, name: str) -> None:
        """Wait until there is a contact called so."""

    @abstractmethod
    async def lists_no(self, name: str) -> None:
        """Wait until there is no contact called so."""

    @abstractmethod
    async def shows_status(self, visitor: str, name: str, status: str) -> None:
        """Wait until the visitor's contact is called so, is online, and has the status (its first line)."""

    @abstractmethod
    async def open(self, visitor: str) -> None:
        """Open the conversation with the visitor."""

    @abstractmethod
    async def rename(self, visitor: str, name: str) -> None:
        """Call the visitor's contact otherwise."""

    @abstractmethod
    async def remove(self, visitor: str) -> None:
        """Remove the visitor's contact."""


def certificate_of(system: System) -> str:
    """The system's own certificate, as PEM."""
    found = _CERTIFICATE.search((system.state / "ejabberd" / "server.pem").read_text())
    assert found is not None
    return found[0]


def fingerprint_of(system: System) -> str:
    """The SHA-256 of the system's own certificate."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate_of(system))).hexdigest()


def give(home: Path) -> None:
    """Give the folder to the user without power."""
    if os.getuid() == 0:
        user = unprivileged()
        for path in (home, *home.rglob("*")):
            shutil.chown(path, user.pw_uid, user.pw_gid)
