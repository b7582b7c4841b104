"""Webhooks against real HTTP servers: signatures, redirects, and the addresses that nothing is sent to."""

import asyncio
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.responses import RedirectResponse, Response, StreamingResponse
from yarl import URL

from bench.testbed.receiver import Behaviour, Callback, Receiver
from bench.testbed.waiting import DEADLINE
from config.settings import Settings
from tenants.outbound.addresses import Resolve, resolve
from tenants.outbound.poster import Answer
from tenants.outbound.webhooks import WebhookClient, signing_key, signing_keys
from tenants.store.models import Tenant
from tests.world.registry import Clock

PAGE = Path(__file__).resolve().parents[3] / "docs" / "webhooks.md"
LOOPBACK = (ip_network("127.0.0.0/8"),)
SETTINGS = Settings(signing_master_key=SecretStr("master"), webhook_networks=LOOPBACK, callback_timeout=10)
KEY = signing_key(SETTINGS, "acme", 1)
BODY = json.dumps({"type": "message.created", "data": {"body": "ąž 🙂 مرحبا"}}, ensure_ascii=False).encode()


@pytest.fixture
async def receiver(free_port: int) -> AsyncIterator[Receiver]:
    async with Receiver(free_port) as receiver:
        yield receiver


@asynccontextmanager
async def opened(
    settings: Settings = SETTINGS, clock: Clock | None = None, resolve: Resolve = resolve
) -> AsyncIterator[WebhookClient]:
    client = WebhookClient(settings, clock or time.time, resolve)
    try:
        yield client
    finally:
        await client.close()


async def post(client: WebhookClient, url: str, keys: Sequence[str] = (KEY,)) -> Answer:
    return await client.post(url, event_id="evt_1", body=BODY, keys=keys)


def verified(callback: Callback, key: str = KEY) -> object:
    return Webhook(key).verify(callback.raw, dict(callback.headers))


def known(**hosts: list[str]) -> Resolve:
    """A resolver that knows `{name}.example` only."""

    async def resolve(host: str, _port: int) -> Sequence[str]:
        return hosts[host.removesuffix(".example")]

    return resolve


async def test_a_receiver_can_verify_it(receiver: Receiver) -> None:
    async with opened() as client:
        answer = await post(client, f"http://acme.localhost:{receiver.port}/hooks?of=acme")
    assert (answer.error, answer.http_status) == (None, 200)
    (callback,) = receiver.callbacks
    assert verified(callback) == json.loads(BODY)
    assert (callback.host, callback.path, callback.content_type) == ("acme.localhost", "/hooks", "application/json")
    assert (callback.raw, callback.headers["webhook-id"]) == (BODY, "evt_1")
    for wrong in (signing_key(SETTINGS, "acme", 2), signing_key(SETTINGS, "other", 1)):
        with pytest.raises(WebhookVerificationError):
            verified(callback, wrong)


async def test_both_keys_open_it_while_they_overlap(receiver: Receiver) -> None:
    tenant = Tenant(instance_name="acme", signing_version=2, previous_signing_until=100.0)
    async with opened() as client:
        for now in (99.0, 101.0):
            await post(client, f"http://acme.localhost:{receiver.port}", signing_keys(SETTINGS, tenant, now))
    during, after = receiver.callbacks
    new = signing_key(SETTINGS, "acme", 2)
    assert verified(during, KEY) == verified(during, new) == verified(after, new)
    with pytest.raises(WebhookVerificationError):
        verified(after, KEY)


async def test_each_try_is_signed_with_its_own_time(receiver: Receiver) -> None:
    clock = Clock(time.time() - 3600)
    async with opened(clock=clock) as client:
        await post(client, f"http://acme.localhost:{receiver.port}")
        clock.now += 3600
        await post(client, f"http://acme.localhost:{receiver.port}")
    first, again = receiver.callbacks
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    verified(again)
    with pytest.raises(WebhookVerificationError, match="too old"):
        verified(first)


async def test_nothing_is_sent_without_a_key(receiver: Receiver) -> None:
    async with opened() as client:
        answer = await post(client, f"http://acme.localhost:{receiver.port}", keys=[])
    assert answer.error == "no signing_master_key is set"
    assert receiver.callbacks == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_error(receiver: Receiver, status: int) -> None:
    async def elsewhere(_callback: Callback) -> Response:
        return RedirectResponse(f"http://acme.localhost:{receiver.port}/elsewhere", status)

    answer = await answer_of(receiver, elsewhere)
    assert answer.http_status == status
    assert answer.error == f"HTTP {status}: redirects are not followed; callback_url must be where it leads"
    assert [callback.path for callback in receiver.callbacks] == ["/"]


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_told(receiver: Receiver, status: int) -> None:
    async def busy(_callback: Callback) -> Response:
        return Response(status_code=status, headers={"Retry-After": "50"})

    answer = await answer_of(receiver, busy)
    assert (answer.error, answer.retry_after) == (f"HTTP {status}", 50.0)


async def test_an_answer_that_drips_ends_with_the_time(receiver: Receiver) -> None:
    done = asyncio.Event()

    async def drip() -> AsyncIterator[bytes]:
        while not done.is_set():
            yield b"x"
            await asyncio.sleep(0.01)

    async def dripping(_callback: Callback) -> Response:
        return StreamingResponse(drip())

    answer = await answer_of(receiver, dripping, SETTINGS.model_copy(update={"callback_timeout": 0.5}))
    done.set()
    assert (answer.error, answer.warning) == (None, "received, but no end of the answer within 0.5 s")


async def answer_of(receiver: Receiver, behaviour: Behaviour, settings: Settings = SETTINGS) -> Answer:
    receiver.behaviours["acme.localhost"] = behaviour
    async with opened(settings) as client, asyncio.timeout(DEADLINE):
        return await post(client, f"http://acme.localhost:{receiver.port}/")


@asynccontextmanager
async def counting_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[object]]]:
    """Answers 200 to one request after another. Gives its port, and the connections as they come."""
    connections: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(BODY))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    # every address of this machine: who were let through to one would be seen
    server = await asyncio.start_server(serve, "0.0.0.0", ssl=tls)  # noqa: S104
    async with server:
        yield server.sockets[0].getsockname()[1], connections


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0", "0",  # noqa: S104
        "[::1]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "localhost", "acme.localhost", "LOCALHOST", "169.254.169.254",
    ],
)  # fmt: skip
async def test_nothing_connects_to_this_machine(host: str) -> None:
    """However its address is written, and as the system's resolver reads it."""
    async with counting_server() as (port, connections):
        async with opened(SETTINGS.model_copy(update={"webhook_networks": ()})) as client:
            answer = await post(client, f"http://{host}:{port}/")
            name = re.escape(URL(f"http://{host}").host or "")
            refusal = rf"the address of {name} is not public; see webhook_networks"
            oddness = rf".* {name} - is not a canonical IPv4 address"
            assert re.fullmatch(
                rf"{refusal}|{oddness}",
                answer.error or "",
            )
            assert answer.http_status is None
        assert connections == []
        async with opened() as client:
            assert (await post(client, f"http://127.0.0.1:{port}/")).error is None
        assert len(connections) == 1


async def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    async with counting_server() as (port, connections):
        for addresses in (["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "fd00::1"]):
            async with opened(resolve=known(mixed=addresses)) as client:
                answer = await post(client, f"http://mixed.example:{port}/")
            assert answer.error == "the address of mixed.example is not public; see webhook_networks"
        assert connections == []


async def test_it_goes_to_the_address_that_was_looked_at(receiver: Receiver) -> None:
    """The name is known to the one look alone, so that a second look, at another address, would be seen."""
    looks: list[str] = []

    async def once(host: str, _port: int) -> Sequence[str]:
        looks.append(host)
        return ["127.0.0.1"] if len(looks) == 1 else ["169.254.169.254"]

    async with opened(resolve=once) as client:
        assert (await post(client, f"http://hooks.example:{receiver.port}/")).error is None
    assert looks == ["hooks.example"]
    assert [callback.headers["host"] for callback in receiver.callbacks] == [f"hooks.example:{receiver.port}"]


async def test_the_next_address_is_tried(receiver: Receiver) -> None:
    async with opened(resolve=known(two=["127.0.0.2", "127.0.0.1"], none=["127.0.0.2", "127.0.0.3"])) as client:
        assert (await post(client, f"http://two.example:{receiver.port}/")).error is None
        answer = await post(client, f"http://none.example:{receiver.port}/")
    assert (answer.error or "").startswith("ClientConnectorError")
    assert len(receiver.callbacks) == 1


async def test_a_name_without_an_address_and_strange_urls_are_errors() -> None:
    async with opened() as client:
        for url in (
            "http://nobody.invalid/",
            "ftp://acme.localhost/",
            "http://",
            "http://[::1",
            "acme",
            "http://0177.0.0.1/",
        ):
            answer = await post(client, url)
            assert answer.error
            assert answer.http_status is None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and the certificate of `hooks.example`, signed by itself."""
    key, certificate = tmp_path / "tls.key", tmp_path / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hooks.example",
         "-addext", "subjectAltName=DNS:hooks.example", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    certificate.write_text(key.read_text() + certificate.read_text())
    return certificate


async def test_a_certificate_is_checked_by_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is chosen by us, the name is not lost over it: nor is a connection kept for another name."""
    names: list[str | None] = []
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    resolve = known(hooks=["127.0.0.1"], other=["127.0.0.1"])
    async with counting_server(tls) as (port, connections), opened(resolve=resolve) as client:
        for _ in range(2):
            assert (await post(client, f"https://hooks.example:{port}/")).error is None
        refused = await post(client, f"https://other.example:{port}/")
    assert "certificate" in (refused.error or "")
    assert names == ["hooks.example", "other.example"]
    assert len(connections) == 1


def example(language: str) -> str:
    """The page's example in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


async def test_the_pages_python_receives_what_we_send(receiver: Receiver) -> None:
    async with opened() as client:
        await post(client, f"http://acme.localhost:{receiver.port}")
    (callback,) = receiver.callbacks
    page: dict[str, Any] = {}
    exec(example("python"), page)  # noqa: S102 - our own page
    assert page["receive"](KEY, dict(callback.headers), callback.raw) == json.loads(BODY)
    assert page["receive"](KEY, dict(callback.headers), callback.raw + b" ") is None


async def test_the_pages_curl_signs_as_we_do(receiver: Receiver) -> None:
    variables = {"key": KEY, "url": f"http://127.0.0.1:{receiver.port}/", "body": BODY.decode()}
    done = await asyncio.create_subprocess_exec("bash", "-euc", example("sh"), env={**os.environ, **variables})
    assert await asyncio.wait_for(done.wait(), DEADLINE) == 0
    (callback,) = receiver.callbacks
    assert verified(callback) == json.loads(BODY)
