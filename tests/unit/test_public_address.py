"""Under which names the console is shown."""

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from orchestrator.console.public_address import PublicAddress


async def say_where(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(str(Request(scope).url))(scope, receive, send)


@pytest.mark.parametrize(
    ("public_url", "host", "seen"),
    [
        ("https://console.example", "console.example", "https://console.example/console/"),
        ("https://console.example", "CONSOLE.example:443", "https://console.example/console/"),
        ("https://console.example:8443", "console.example", "https://console.example:8443/console/"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", "http://127.0.0.1:8000/console/"),
        ("https://console.example", "console.example.evil.example", None),
        ("https://console.example", "127.0.0.1", None),
        ("https://console.example", "evil@console.example@evil.example", None),
        ("", "127.0.0.1:8000", "http://127.0.0.1:8000/console/"),
        ("", "[::1]:8000", "http://[::1]:8000/console/"),
        ("", "localhost:8000", "http://localhost:8000/console/"),
        ("", "console.example", None),
        ("", "127.0.0.1.evil.example", None),
        ("", "[", None),
    ],
)
async def test_where_people_find_it(public_url: str, host: str, seen: str | None) -> None:
    transport = httpx.ASGITransport(PublicAddress(say_where, public_url))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.get("/console/", headers={"Host": host})
        elsewhere = await http.get("/t/acme/xmpp", headers={"Host": host})
    assert (answer.text if answer.is_success else None) == seen
    assert answer.status_code in {200, 421}
    assert elsewhere.is_success


def test_an_address_without_its_scheme_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="PUBLIC_URL"):
        PublicAddress(say_where, "console.example")
