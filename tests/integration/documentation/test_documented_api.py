"""docs/tenant-api.md, line by line: what it says to do is done, and what it says comes out does."""

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until, until_async
from tests.world.page import Shell, Step, steps
from xmpp_pool.stanzas import RECEIPTS_NS

PAGE = Path(__file__).parents[3] / "docs" / "tenant-api.md"
INSTANCE = "acme"
EVENTS = ("127.0.0.1", "/events")
"""Host and path to which the page lets events be posted."""


class Reader:
    """Does what the page says, in a folder of its own that holds `.state` as a fresh clone would."""

    def __init__(self, folder: Path, system: System, receiver: Receiver, panel: Panel) -> None:
        self._shell = Shell(folder, os.environ)
        self._system = system
        self._receiver = receiver
        self._panel = panel
        self._operator: Operator | None = None
        self._stack = AsyncExitStack()
        (folder / ".state").symlink_to(system.state)

    async def close(self) -> None:
        await self._stack.aclose()

    async def take(self, step: Step) -> None:
        """Take one step."""
        match step.kind:
            case "sh":
                self._shell.run(step.text)
            case "python":
                self._shell.call(sys.executable, "-c", step.text)
            case "remark":
                await self._meanwhile(step.text)
            case _:
                self._shell.check(step)

    async def _meanwhile(self, remark: str) -> None:
        """What the people on the page do while it is read."""
        what, _, text = remark.partition(": ")
        if found := re.fullmatch(r"bob writes to (\S+)", what):
            self._bob.write(f"{found[1]}.{INSTANCE}", text)
        elif found := re.fullmatch(r"bob sees (\S+)", what):
            await self._bob.sees(f"{found[1]}.{INSTANCE}", nick=text)
        elif what == "bob reads":
            await self._bob.reads(text)
        elif what == "bob has it":
            message = await self._bob.reads(text)
            self._bob.sign(message.username, f"{{{RECEIPTS_NS}}}received", id=message.id)
        elif what == "bob logs in":
            await self._log_in(text)
        elif found := re.fullmatch(r"bob (is invited to|enters|says in|hears in) (\S+)", what):
            await self._in_room(found[1], self._room(found[2]), text)
        elif what == "told":
            event, _, about = text.partition(" ")
            await until(lambda: self._was_told(event, about), text)
        elif what == "acme is active":
            await until_async(self._is_active, what)
        else:
            raise AssertionError(f"the page holds a remark that nobody knows: {remark}")

    @property
    def _bob(self) -> Operator:
        assert self._operator is not None
        return self._operator

    async def _in_room(self, what: str, room: str, text: str) -> None:
        match what:
            case "is invited to":
                assert (await self._bob.invited())[0] == room
            case "enters":
                await self._bob.join(room, "Bob")
            case "says in":
                self._bob.write(room, text, kind="groupchat")
            case "hears in":
                await self._bob.hears(room, text)

    def _room(self, name: str) -> str:
        return f"{name}.{INSTANCE}@conference.{self._system.endpoints['xmpp_host']}"

    async def _log_in(self, password: str) -> None:
        endpoints = self._system.endpoints
        bob = Operator(
            f"bob.{INSTANCE}", endpoints["xmpp_host"], password, (endpoints["c2s_host"], endpoints["c2s_port"])
        )
        self._operator = await self._stack.enter_async_context(bob)
        await until(lambda: self._was_told("operator.connected", ""), "the orchestrator knows that he is online")

    def _was_told(self, event: str, about: str) -> bool:
        # the page's own address: an operator of an earlier test may have come online before
        told = (json.loads(one.raw) for one in self._receiver.callbacks if (one.host, one.path) == EVENTS)
        return any(
            one["type"] == event and about in {"", one["data"].get("message"), one["data"].get("message_id")}
            for one in told
        )

    async def _is_active(self) -> bool:
        return bool((await self._panel.http.get(f"/v1/tenants/{INSTANCE}")).json()["state"] == "active")


@pytest.fixture
async def reader(tmp_path: Path, system: System, receiver: Receiver, panel: Panel) -> AsyncIterator[Reader]:
    receiver.callbacks.clear()
    reader = Reader(tmp_path, system, receiver, panel)
    yield reader
    await reader.close()
    await panel.destroy(INSTANCE)


async def test_the_page_works_as_it_is_written(reader: Reader) -> None:
    for step in steps(PAGE):
        try:
            await reader.take(step)
        except AssertionError as error:
            raise AssertionError(f"{PAGE.name}, line {step.line}: {error}") from error


async def test_the_page_leaves_nothing_out(system: System) -> None:
    """Every path that a tenant's token may call is on it."""
    async with httpx.AsyncClient(timeout=30) as http:
        document = (await http.get(f"{system.endpoints['api']}/openapi.json")).json()
    prefix = "/v1/tenants/{instance_name}/"
    page = PAGE.read_text()
    paths = [path.removeprefix(prefix) for path in document["paths"] if path.startswith(prefix)]
    ours = {"operators", "visitors", "chats", "deliveries", "circuit", "rooms", "returned-messages", "signing-key"} | {
        "operations",
        "audit",
        "drift",
    }
    assert ours <= {path.partition("/")[0] for path in paths}
    for path in paths:
        if path.partition("/")[0] in ours:
            pattern = re.sub(r"\\\{\w+\\\}", r"[\\w.]+", re.escape("/" + path))
            assert re.search(pattern + r"(?![\w/-])", page), f"{path} is not on the page"
