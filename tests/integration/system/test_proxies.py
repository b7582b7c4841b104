"""nginx and Caddy before the API and /ws, by the very files of docs/proxy."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from bench.testbed.browser import Browser
from bench.testbed.system import System, domain_of
from bench.testbed.waiting import until_async
from tenants.store.models import Operation, OperationKind, OperationState
from tests.world.beside import beside
from tests.world.console import Browser as Console
from tests.world.ports import free_port
from tests.world.proxies import Proxy, start_proxy
from tests.world.raw import Raw, raw
from tests.world.tenant import Tenant

MB = 1024 * 1024
PASSWORD = "0123456789abcdef0123"
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module", params=["nginx", "caddy"])
async def proxy(request: pytest.FixtureRequest, system: System) -> AsyncIterator[Proxy]:
    """Before an API process that trusts it."""
    api = free_port()
    websocket = int(system.endpoints["websocket"].rpartition(":")[2].partition("/")[0])
    port = free_port()
    env = {"ORCHESTRATOR_TRUSTED_PROXIES": "127.0.0.1/32", "ORCHESTRATOR_PUBLIC_URL": f"https://localhost:{port}"}
    async with beside(system, "api", api, "/healthz", env):
        with start_proxy(request.param, port, api, websocket) as started:
            async with client(started) as http:

                async def is_up() -> bool:
                    try:
                        return (await http.get("/healthz")).is_success
                    except httpx.TransportError:
                        return False

                await until_async(is_up, f"{started.kind} answers", 30)
            yield started


def client(proxy: Proxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, verify=unverified(), timeout=20, follow_redirects=True)


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_page_view_goes_through(proxy: Proxy, tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    token = {"name": "shop", "scope": "tenant", "instance_name": tenant.name}
    made = (await tenant.panel.http.post("/v1/tokens", json=token)).json()["token"]
    async with client(proxy) as http:
        path = f"/v1/tenants/{tenant.name}/visitors/7/pageviews"
        seen = await http.post(path, json={"nick": "Ann"}, headers={"Authorization": f"Bearer {made}"})
        assert seen.status_code == 202, seen.text
    await bob.sees(tenant.lhc.name("visitor.7"))


async def test_the_console_knows_that_it_is_behind_tls(proxy: Proxy, system: System) -> None:
    async with client(proxy) as http:
        answer = await Console(http).log_in("", system.endpoints["panel_token"])
        assert answer.url == f"{proxy.url}/console/", answer.text
        (login,) = [one for one in answer.history if one.headers.get("set-cookie", "").startswith("orchestrator_")]
        assert "; Secure" in login.headers["set-cookie"]
        assert login.headers["location"].startswith((f"{proxy.url}/console/", "/console/"))


async def test_a_stream_of_events_is_passed_on_at_once(proxy: Proxy, tenant: Tenant) -> None:
    name = f"rests-{proxy.kind}"
    async with domain_of(tenant.system) as services, services.database.write() as session:
        resting = Operation(id=name, kind=OperationKind.RECONCILE, state=OperationState.PAUSED, requested_by="test")
        resting.instance_name, resting.created_at = tenant.name, time.time()
        session.add(resting)
    bearer = {"Authorization": tenant.panel.http.headers["Authorization"]}
    async with (
        asyncio.timeout(20),
        client(proxy) as http,
        http.stream("GET", f"/v1/operations/{name}/events", headers=bearer) as stream,
    ):
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        while not (await anext(lines)).startswith("data:"):
            pass


async def test_a_visitors_browser_logs_in_by_websocket(proxy: Proxy, tenant: Tenant) -> None:
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    name, url = tenant.lhc.name("visitor.1"), f"wss://localhost:{proxy.port}/ws"
    async with Browser(url, name, tenant.host, PASSWORD, tls=unverified()) as browser:
        await browser.taken()


async def test_half_a_request_ends(proxy: Proxy) -> None:
    async with asyncio.timeout(20), raw(proxy.port, tls=unverified()) as connection:
        await connection.send(HEAD)
        await drip(connection)


async def drip(connection: Raw) -> None:
    """Until the connection is closed."""
    listening = asyncio.create_task(connection.rest())
    while not listening.done():
        await connection.send(b"X-More: of it\r\n")
        await asyncio.wait([listening], timeout=0.05)


async def test_150_MB_of_headers_are_not_read(proxy: Proxy) -> None:  # noqa: N802 - megabytes
    async with asyncio.timeout(60), raw(proxy.port, tls=unverified()) as connection:
        await connection.send(HEAD + b"X-Long: ")
        refused, sent = asyncio.create_task(connection.answer()), 0
        while not refused.done() and sent < 150 * MB and await connection.send(b"x" * 65_536):
            sent += 65_536
            # the answer is looked for each time, however quickly the server takes what is sent
            await asyncio.sleep(0)
        # Debian's nginx says 400, and takes what comes for a while, lest the client miss that
        assert (await refused)[0] in {400, 431}
        assert sent < 30 * MB
    async with client(proxy) as http:
        assert (await http.get("/healthz")).is_success
