"""Somebody at the console, in a browser without scripts; and what there is to be asked for."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import httpx
from fastapi import FastAPI
from starlette.routing import Mount, Route

from bench.testbed.system import ORCHESTRATOR, PROJECT, System
from bench.testbed.waiting import DEADLINE
from config.settings import Settings
from orchestrator.console.site import Console
from orchestrator.console.tables import Table

PASSWORD = "0123456789abcdef0123"
"""Of everybody who is let in by a test."""

FORM = {
    "callback_url": "",
    "online_seconds": "300",
    "idle_hours": "24",
    "max_accounts": "",
    "max_online_visitors": "",
    "max_rooms": "",
    "language": "",
    "max_waiting_messages": "",
    "calls_per_second": "",
    "xmpp": "on",
    "routing": "lhc",
    "owner_offline": "store",
    "history_hours": "0",
    "event_format": "lhc",
}
"""Of a tenant, as a browser sends it."""


class Browser:
    """Somebody at the console."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def csrf(self) -> str:
        await self.http.get("/console/login")
        return str(self.http.cookies["starlette_admin_csrftoken"])

    async def log_in(self, name: str, password: str) -> httpx.Response:
        form = {"csrftoken": await self.csrf(), "username": name, "password": password}
        return await self.http.post("/console/login", data=form)

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.http.post(path, data={"csrftoken": await self.csrf(), **form})

    async def act(self, key: str, pk: str, name: str, **form: str) -> httpx.Response:
        """A row's action, as the page's script asks for it."""
        headers = {"X-CSRFToken": await self.csrf()}
        path = f"/console/_api/{key}/row-action"
        return await self.http.post(path, params={"pk": pk, "name": name}, data=form, headers=headers)

    async def text(self, path: str) -> str:
        answer = await self.http.get(path)
        assert answer.status_code == HTTPStatus.OK, answer.text
        return answer.text


async def let_in(admin: Browser, browser: Browser, name: str, role: str) -> Browser:
    """Somebody with that role, logged in with a password."""
    await admin.post("/console/users/create", name=name, role=role, password=PASSWORD)
    assert (await browser.log_in(name, PASSWORD)).url.path == "/console/"
    return browser


def site() -> Console:
    """The console as the API puts it together."""
    console = Console(Settings(_env_file=None, console_key="for forms"))
    console.mount(FastAPI())
    return console


@dataclass(frozen=True)
class Address:
    """One of the console's routes, asked by one of its methods. `name`: as the code knows it."""

    name: str
    method: str
    path: str


def addresses(console: Console) -> Iterator[Address]:
    """All there are but those of files."""
    for route in console.app.routes:
        if isinstance(route, Mount):
            assert route.name == "static"
            continue
        assert isinstance(route, Route)
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield Address(route.name, method, f"/console{route.path.replace(':path', '')}")


def tables(console: Console) -> dict[str, Table]:
    """All tables by their key, as it stands in paths."""
    return {str(view.key): view for view in console._model_views if isinstance(view, Table)}  # noqa: SLF001 - no public way


OpenBrowser = Callable[[], Browser]
"""Opens the console as somebody who is not logged in."""


async def login_link(system: System, role: str = "admin") -> str:
    """A link as the command line prints it."""
    process = await asyncio.create_subprocess_exec(
        ORCHESTRATOR,
        "console",
        "link",
        "--role",
        role,
        cwd=PROJECT,
        env=system.env | {"ORCHESTRATOR_STATE_DIR": str(system.state)},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 2 * DEADLINE)
    return printed.decode().strip()
