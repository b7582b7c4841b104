"""docs/first-steps.md as somebody new takes them: from `script/up` in a clone to `script/down`, in one shell."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.testbed.operator import Operator
from bench.testbed.system import ORCHESTRATOR, PROJECT
from bench.testbed.waiting import until, until_async
from tests.world.page import Shell, Step, steps

PAGE = PROJECT / "docs" / "first-steps.md"
CLONED = (
    *("script", "config", "bench", "pyproject.toml", "requirements.lock", "requirements-dev.lock"),
    ".venv",  # as if it had been made here: that takes a minute
)


@contextmanager
def clone() -> Iterator[Path]:
    """A folder that is this project, but for its state."""
    # or `script/up` would install the project anew, from this folder
    subprocess.run(["bash", "-euc", ". script/lib.sh; install_python requirements-dev.lock"], cwd=PROJECT, check=True)
    # short, because the path of a unix socket is limited to some 100 characters
    folder = Path(tempfile.mkdtemp(prefix="lhc-first-"))
    for name in CLONED:
        (folder / name).symlink_to(PROJECT / name)
    try:
        yield folder
    finally:
        subprocess.run([ORCHESTRATOR, "down", "--state-dir", folder / ".state"], timeout=120, check=True)
        shutil.rmtree(folder)


class Newcomer:
    """Reads the page: types in the shell, sits at bob's client, and keeps an eye on the second terminal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # somebody's settings are not a newcomer's; the ports are this test process's own
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ORCHESTRATOR_") or name == "ORCHESTRATOR_PORTS"
        }
        self._environment = own | {"COLUMNS": "200"}
        self._shell = Shell(folder, self._environment)
        self._second: subprocess.Popen[str] | None = None
        self._seen = folder / "second-terminal.txt"
        self._bob: Operator | None = None
        self._stack = AsyncExitStack()
        self._remark = ""

    async def close(self) -> None:
        await self._stack.aclose()
        if self._second is not None:
            self._second.terminate()
            self._second.wait(30)

    async def take(self, step: Step) -> None:
        """Take one step. A remark is about the block behind it, or says what bob does."""
        remark, self._remark = self._remark, ""
        match step.kind, remark:
            case "sh", "in a second terminal":
                self._open_second_terminal(step.text)
            case "sh", "":
                self._shell.run(step.text)
            case "text", "the second terminal shows":
                await until(lambda: step.text in self._seen.read_text(), f"{step.text}; shows {self._seen.read_text()}")
            case (("json" | "text"), ""):
                self._shell.check(step)
            case "remark", "":
                await self._follow(step.text)
            case _:
                raise AssertionError(f"nobody knows how to take this step after '{remark}'")

    def _open_second_terminal(self, text: str) -> None:
        with self._seen.open("w") as output:
            self._second = subprocess.Popen(
                ["bash", "-euc", f"exec {text}"], cwd=self._folder, env=self._environment, stdout=output, text=True
            )

    async def _follow(self, remark: str) -> None:
        what, _, text = remark.partition(": ")
        if what == "bob logs in":
            await self._log_in(text)
            return
        if what == "it is delivered":
            await until_async(self._is_delivered, what)
            return
        if what in {"in a second terminal", "the second terminal shows"}:
            self._remark = what
            return
        assert self._bob is not None, f"the page holds a remark that nobody knows: {remark}"
        match what.split():
            case ["bob", "sees", visitor]:
                await self._bob.sees(f"{visitor}.acme", nick=text)
            case ["bob", "reads"]:
                await self._bob.reads(text)
            case ["bob", "writes", "to", visitor]:
                self._bob.write(f"{visitor}.acme", text)
            case _:
                raise AssertionError(f"the page holds a remark that nobody knows: {remark}")

    @property
    def _endpoints(self) -> dict[str, Any]:
        return dict(json.loads((self._folder / ".state" / "endpoints.json").read_text()))

    async def _log_in(self, password: str) -> None:
        where = self._endpoints
        bob = Operator("bob.acme", where["xmpp_host"], password, (where["c2s_host"], where["c2s_port"]))
        self._bob = await self._stack.enter_async_context(bob)

    async def _is_delivered(self) -> bool:
        async with httpx.AsyncClient(base_url=self._endpoints["api"]) as http:
            bearer = {"Authorization": f"Bearer {self._endpoints['panel_token']}"}
            answer = await http.get("/v1/tenants/acme/deliveries", headers=bearer)
        return [delivery["state"] for delivery in answer.json()["deliveries"]] == ["delivered"]


@pytest.fixture
async def newcomer() -> AsyncIterator[Newcomer]:
    with clone() as folder:
        newcomer = Newcomer(folder)
        yield newcomer
        await newcomer.close()


async def test_the_first_steps_work_as_they_are_written(newcomer: Newcomer) -> None:
    for step in steps(PAGE):
        try:
            await newcomer.take(step)
        except AssertionError as error:
            raise AssertionError(f"{PAGE.name}, line {step.line}: {error}") from error
