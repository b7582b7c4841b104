"""ejabberd's admin API without its secret, also from a page in a browser; and accounts that are no tenant's."""

import json
from typing import Any

import httpx
import pytest

from bench.testbed.login import Door, Login
from bench.testbed.system import System
from tests.world.tenant import Tenant

PASSWORD = "operator-pw"


def command(system: System, name: str, **changed: Any) -> httpx.Response:
    """The admin command as the orchestrator sends it, but for what is changed; a header that is None is left out."""
    headers = system.ejabberd_headers | {"Content-Type": "application/json"} | changed.pop("headers", {})
    request = {"method": "POST", "content": b"{}", **changed}
    method = request.pop("method")
    headers = {key: value for key, value in headers.items() if value is not None}
    return httpx.request(method, f"{system.endpoints['ejabberd_api']}/{name}", headers=headers, timeout=10, **request)


def test_the_orchestrator_itself_is_answered(system: System) -> None:
    assert "ejabberd" in command(system, "status").text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Authorization": None}, 401, id="no secret"),
        pytest.param({"Authorization": "Bearer another"}, 401, id="another secret"),
        pytest.param({"Authorization": "Basic YWRtaW46YWRtaW4="}, 401, id="an account's password"),
        pytest.param({"Host": "127.0.0.1:5281"}, 403, id="the Host of who goes by the address"),
        pytest.param({"Host": "rebound.example"}, 403, id="the Host of a rebound name"),
        pytest.param({"Content-Type": "text/plain"}, 415, id="the content type of a form"),
        pytest.param({"Content-Type": None}, 415, id="no content type"),
    ],
)
def test_no_command_is_carried_out_for_others(system: System, headers: dict[str, str | None], status: int) -> None:
    answer = command(system, "status", headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (status, "error")
    assert "ejabberd 2" not in answer.text


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "PUT", "HEAD"])
def test_commands_are_sent_by_post_alone(system: System, method: str) -> None:
    """GET needs no content type, and to OPTIONS mod_http_api answers that every site may call."""
    answer = command(system, "status", method=method, content=None)
    assert answer.status_code in {400, 405, 501}
    assert "access-control-allow-origin" not in answer.headers
    assert "ejabberd 2" not in answer.text


async def test_a_page_in_a_browser_sets_no_password(tenant: Tenant) -> None:
    """What `fetch(…, {mode: 'no-cors'})` sends to the loopback address without asking first."""
    await tenant.lhc.new_operator("bob", PASSWORD)
    wanted = {"user": tenant.lhc.name("bob"), "host": tenant.host, "newpass": "the attacker's"}
    async with httpx.AsyncClient(timeout=10) as browser:
        answer = await browser.post(
            f"{tenant.system.endpoints['ejabberd_api']}/change_password",
            content=json.dumps(wanted),
            headers={"Content-Type": "text/plain;charset=UTF-8", "Origin": "https://attacker.example"},
        )
    assert answer.status_code == 401
    await tenant.online("bob")


async def test_nobody_is_an_account_without_a_tenant(system: System, tenant: Tenant) -> None:
    """It may have been made by hand, or be left from before this system. It cannot log in, write, or be written to."""
    host, door = tenant.host, Door.all_of(system.endpoints)[0]
    for name in ("admin", "visitor.7", "helpdesk"):
        await system.ejabberd("register", user=name, host=host, password=PASSWORD)
        try:
            async with Login(door, host) as login:
                assert await login.scram(name, PASSWORD) == "not-authorized"
        finally:
            await system.unregister(name)
    bob = await tenant.operator_online("bob")
    await bob.is_refused(bob.write("admin", "is anybody there?"))
