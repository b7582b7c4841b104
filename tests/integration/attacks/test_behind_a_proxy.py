"""Web servers before the API, and who only says that he is one: addresses, TLS and hosts that are believed, or not."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus

import httpx
import pytest

from bench.testbed.system import System
from orchestrator.console.access import COOKIE
from tests.world.beside import beside
from tests.world.console import Browser, OpenBrowser
from tests.world.ports import free_port
from tests.world.tenant import Tenant

NAME = "console.example"
PROXY, STRANGER = "127.0.0.2", "127.0.3.1"
LIMIT = 50
"""Attempts from one address."""

Come = Callable[..., Browser]


@pytest.fixture(scope="module")
async def behind(system: System) -> AsyncIterator[str]:
    """An API process behind a web server, at 127.0.0.2, that people know as https://console.example."""
    port = free_port()
    env = {"ORCHESTRATOR_TRUSTED_PROXIES": f"{PROXY}/32", "ORCHESTRATOR_PUBLIC_URL": f"https://{NAME}"}
    async with beside(system, "api", port, "/healthz", env):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def come(behind: str) -> AsyncIterator[Come]:
    """Somebody who comes from that address, with these headers."""
    async with AsyncExitStack() as stack:

        def connect(source: str, **headers: str) -> Browser:
            named = {"Host": NAME, **{name.replace("_", "-"): value for name, value in headers.items()}}
            transport = httpx.AsyncHTTPTransport(local_address=source)
            http = httpx.AsyncClient(base_url=behind, headers=named, transport=transport, timeout=20)
            stack.push_async_callback(http.aclose)
            return Browser(http)

        yield connect


async def forms_token(browser: Browser) -> str:
    """By hand: the cookie is for TLS, which is not here."""
    answer = await browser.http.get("/console/login")
    token = str(answer.cookies["starlette_admin_csrftoken"])
    browser.http.headers["Cookie"] = f"starlette_admin_csrftoken={token}"
    return token


async def test_links_and_cookies_are_those_of_the_address_that_people_know(come: Come, system: System) -> None:
    browser = come(PROXY, X_Forwarded_For="203.0.113.5", X_Forwarded_Proto="https")
    form = {"csrftoken": await forms_token(browser), "username": "", "password": system.endpoints["panel_token"]}
    answer = await browser.http.post("/console/login?next=https://evil.example/", data=form)
    assert answer.headers["Location"] == f"https://{NAME}/console/"
    cookies = answer.headers.get_list("Set-Cookie")
    assert [cookie for cookie in cookies if "; Secure" not in cookie] == []
    browser.http.headers["Cookie"] = next(cookie for cookie in cookies if COOKIE in cookie).partition(";")[0]
    page = (await browser.http.get("/console/sessions/list")).text
    assert f'href="https://{NAME}/console/' in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "203.0.113.5" in page, "the session is said to come from the client, not from the proxy"


@pytest.mark.parametrize("path", ["/console/", "/console/login", "/console/enter/x", "/onboarding/x"])
@pytest.mark.parametrize("host", ["evil.example", "console.example.evil.example", "127.0.0.1", "", "[", "a@b"])
async def test_no_page_is_shown_under_another_name(come: Come, path: str, host: str) -> None:
    forged = come(PROXY, Host=host, X_Forwarded_Host="evil.example", Forwarded="host=evil.example")
    answer = await forged.http.get(path)
    assert answer.status_code == HTTPStatus.MISDIRECTED_REQUEST, answer.text
    assert "evil" not in answer.text + str(answer.headers)


async def test_lhc_and_the_panel_come_under_any_name(come: Come, tenant: Tenant) -> None:
    anybody = come(STRANGER, Host="acme.lhc.example")
    assert (await anybody.http.get("/healthz")).is_success
    assert (await anybody.http.get("/v1/tenants")).status_code == HTTPStatus.UNAUTHORIZED
    called = await anybody.http.post(f"/t/{tenant.name}/xmpp-does-account-exists", json={})
    assert called.status_code != HTTPStatus.MISDIRECTED_REQUEST


async def test_who_guesses_behind_a_proxy_is_stopped_and_nobody_else(come: Come) -> None:
    """What he says of himself stands before what the proxy says of him."""
    guesser, other = come(PROXY), come(PROXY)
    form = {"csrftoken": await forms_token(guesser), "username": "", "password": "guess"}
    statuses = []
    for number in range(LIMIT + 1):
        guesser.http.headers["X-Forwarded-For"] = f"6.6.6.{number}, 203.0.113.7"
        statuses.append((await guesser.http.post("/console/login", data=form)).status_code)
    assert statuses == [HTTPStatus.BAD_REQUEST] * LIMIT + [HTTPStatus.TOO_MANY_REQUESTS]
    other.http.headers["X-Forwarded-For"] = "203.0.113.8"
    form["csrftoken"] = await forms_token(other)
    assert (await other.http.post("/console/login", data=form)).status_code == HTTPStatus.BAD_REQUEST


async def test_a_link_beyond_the_limit_is_a_page_and_no_stranger_is_a_proxy(come: Come) -> None:
    stranger = come(STRANGER)
    form = {"csrftoken": await forms_token(stranger)}
    for number in itertools.count():
        stranger.http.headers["X-Forwarded-For"] = f"203.0.113.{number % 250}"
        answer = await stranger.http.post("/console/enter/guess", data=form)
        if answer.status_code != HTTPStatus.GONE:
            break
    assert (number, answer.status_code) == (LIMIT, HTTPStatus.TOO_MANY_REQUESTS)
    assert "Too many attempts; try again in five minutes." in answer.text


async def test_nobody_is_believed_by_default(system: System, open_browser: OpenBrowser) -> None:
    """Not even this machine itself, as uvicorn does unless it is told."""
    async with httpx.AsyncClient(base_url=system.endpoints["api"], follow_redirects=True) as http:
        http.headers.update({"X-Forwarded-For": "198.51.100.9", "X-Forwarded-Proto": "https"})
        browser = Browser(http)
        await browser.log_in("", system.endpoints["panel_token"])
        page = await browser.text("/console/sessions/list")
    assert "198.51.100.9" not in page
    assert "https://" not in str(http.cookies.jar)
    evil = await open_browser().http.get("/console/", headers={"Host": "evil.example"})
    assert evil.status_code == HTTPStatus.MISDIRECTED_REQUEST
