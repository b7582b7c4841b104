"""Flower: nothing of it opens without its login, guessing the login is bounded, and nothing in it changes anything."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from flower.urls import handlers

from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tenants.core import scram
from tenants.core.digests import digest
from tests.world.beside import beside
from tests.world.celery_client import Client
from tests.world.tenant import Tenant

ALL = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPEN = "/healthcheck"
READING = {
    *("/", "/workers", "/worker/x", "/task/x", "/tasks", "/tasks/datatable", "/broker", "/api/workers", "/api/tasks"),
    *("/api/task/types", "/api/queues/length", "/api/task/info/x", "/metrics", "/static/x", "/x"),
}
"""What may be read, by who has logged in."""


def paths() -> Iterator[str]:
    """Each address that Flower knows, with `x` for what is to be filled in."""
    for handler in handlers:
        pattern = str((getattr(handler, "matcher", None) and handler.matcher.regex.pattern) or handler[0]).rstrip("$")
        yield "/x" if pattern == ".*" else pattern.replace("(.+)", "x").replace("(.*)", "x").replace("/?", "")


@pytest.fixture
async def anybody(system: System) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=system.endpoints["flower"], timeout=20) as http:
        yield http


@pytest.fixture
def login(system: System) -> tuple[str, str]:
    return system.endpoints["flower_user"], system.endpoints["flower_password"]


async def test_nothing_opens_without_the_login(anybody: httpx.AsyncClient) -> None:
    every = set(paths())
    assert {"/tasks", "/metrics", "/api/task/send-task/x", "/api/worker/shutdown/x"} <= every
    answers = {(method, path): await anybody.request(method, path) for path in every for method in ALL}
    opened = {one: answer.status_code for one, answer in answers.items() if answer.status_code != 401}
    assert {path for _, path in opened} == {OPEN}, opened
    assert {answer.text for (method, path), answer in answers.items() if path != OPEN and method != "HEAD"} == {
        "Unauthorized\n"
    }


async def test_who_has_logged_in_reads_and_changes_nothing(
    anybody: httpx.AsyncClient, login: tuple[str, str], tenant: Tenant
) -> None:
    answers = {
        (method, path): (await anybody.request(method, path, auth=login)).status_code
        for path in set(paths()) - {OPEN}
        for method in ALL
    }
    let_through = {one for one, status in answers.items() if status != 403}
    reading = {(method, path) for method in ("GET", "HEAD") for path in READING}
    assert let_through == reading | {("POST", "/tasks/datatable")}
    assert {answers["GET", path] for path in ("/", "/tasks", "/broker", "/metrics", "/api/tasks")} == {200}

    # what it was used for
    task = {"kwargs": {"instance_name": tenant.name}}
    for call in ("send-task", "async-apply", "apply"):
        sent = await anybody.post(f"/api/task/{call}/tenants.destroy", json=task, auth=login)
        assert sent.status_code == 403
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["state"] == "active"


async def test_verifiers_are_not_shown(
    anybody: httpx.AsyncClient, login: tuple[str, str], system: System, panel: Panel
) -> None:
    """On a verifier guesses can be tried, and a panel may have taken an argument for a password's place."""
    verifier = (await scram.make_verifier("a long one")).arguments()
    name = "unseen"
    wanted = {"operator": {"username": "bob", "scram": verifier}, "key_digest": digest(name, "its key")}
    client = Client(system.endpoints["broker_url"])
    try:
        sent = client.app.send_task("tenants.provision", kwargs={"instance_name": name, **wanted}, queue="lifecycle")
        await panel.finished((await asyncio.to_thread(sent.get, timeout=20))["operation_id"])
        client.fails("password: Extra inputs", "tenants.destroy", instance_name=name, password="hush")
    finally:
        client.app.close()

    async def known() -> bool:
        return bool((await anybody.get(f"/api/task/info/{sent.id}", auth=login)).json().get("state") == "SUCCESS")

    await until_async(known, "Flower knows the task")
    shown = await anybody.get(f"/api/task/info/{sent.id}", auth=login)
    assert f"'instance_name': '{name}'" in shown.json()["kwargs"]
    pages = [shown.text]
    pages += [(await anybody.get(path, auth=login)).text for path in (f"/task/{sent.id}", "/api/tasks", "/tasks")]
    log = (system.state / "logs" / "lifecycle.log").read_text()
    for secret in (verifier["salt"], verifier["stored_key"], verifier["server_key"], wanted["key_digest"], "hush"):
        assert not any(str(secret) in text for text in (*pages, log))


async def test_guessing_is_bounded(system: System, free_port: int) -> None:
    """At a Flower of its own: nobody would get into the other one afterwards."""
    login = (system.endpoints["flower_user"], system.endpoints["flower_password"])
    async with (
        beside(system, "flower", free_port, OPEN),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{free_port}", timeout=20) as http,
    ):
        assert (await http.get("/workers", auth=login)).status_code == 200
        answers = [(await http.get("/workers", auth=("admin", f"{guess:04}"))).status_code for guess in range(30)]
        assert answers == [401] * 10 + [429] * 20
        right = await http.get("/workers", auth=login)
        assert right.status_code == 429, "the right one would tell a guesser"
        assert int(right.headers["retry-after"]) > 0
