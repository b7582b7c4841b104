"""What depends on ejabberd's nodes, without one: addresses, which of them is called, and who has gone with a node."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from config.settings import Settings
from orchestrator.launcher.errors import LaunchError
from orchestrator.launcher.local import LocalSystem
from tenants.core.naming import Naming
from tenants.ejabberd.admin_api import AdminApi
from tenants.ejabberd.errors import EjabberdUnavailableError
from xmpp_pool.gateway import Gateway
from xmpp_pool.operator_directory import Connection, OperatorDirectory
from xmpp_pool.operator_presence import OperatorWatch

A, B = "http://a/api", "http://b/api"


@pytest.mark.parametrize(
    ("said", "addresses"),
    [
        ("", (("127.0.0.1", 5275),)),
        ("a,b:1234, [::1]:7", (("a", 5275), ("b", 1234), ("::1", 7))),
    ],
)
def test_addresses_of_the_component(said: str, addresses: tuple[tuple[str, int], ...]) -> None:
    assert Settings.model_validate({"component_hosts": said}).component_addresses == addresses


@pytest.mark.parametrize("said", ["a:b", ":5275", "a:99999"])
def test_what_is_no_address_is_refused(said: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"component_hosts": said})


def test_urls_of_the_admin_api() -> None:
    assert Settings.model_validate({"ejabberd_api_url": A}).api_urls == (A,)
    assert Settings.model_validate({"ejabberd_api_url": A, "ejabberd_api_urls": f"{A}, {B}"}).api_urls == (A, B)


def test_two_nodes_are_not_begun_in_mnesia(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="--database postgresql"):
        LocalSystem.open(tmp_path / "state", ejabberd_nodes=2)


class Nodes:
    """The admin APIs of two nodes. `ill`: how those fail that do not answer."""

    def __init__(self) -> None:
        self.ill: dict[str, Exception] = {}
        self.called: list[str] = []
        self.api = AdminApi([A, B], "localhost", "")
        self.api._http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))  # noqa: SLF001 - no servers

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.called.append(request.url.host)
        if error := self.ill.get(request.url.host):
            raise error
        return httpx.Response(200, json=[])


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    made = Nodes()
    yield made
    await made.api.close()


async def test_a_node_that_takes_no_connection_is_passed_over_in_the_same_call(nodes: Nodes) -> None:
    nodes.ill["a"] = httpx.ConnectError("")
    for _ in range(2):
        assert await nodes.api.call("lhc_rooms") == []
    assert nodes.called == ["a", "b", "b"]
    nodes.ill = {"b": httpx.ConnectTimeout("")}
    assert await nodes.api.call("lhc_rooms") == []
    assert nodes.called[3:] == ["b", "a"]


async def test_a_node_that_does_not_answer_is_passed_over_when_the_call_is_sent_again(nodes: Nodes) -> None:
    nodes.ill["a"] = httpx.ReadTimeout("")
    assert await nodes.api.call("lhc_rooms") == []
    assert nodes.called == ["a", "b"]


async def test_when_no_node_answers_the_call_fails(nodes: Nodes) -> None:
    nodes.ill = {"a": httpx.ConnectError(""), "b": httpx.ConnectError("")}
    with pytest.raises(EjabberdUnavailableError):
        await nodes.api.call("lhc_rooms")


def test_a_connection_that_has_begun_at_another_node_does_not_end_with_the_first() -> None:
    directory = OperatorDirectory()
    jid = "bob.acme@localhost/desk"
    directory.put("acme", "bob.acme", Connection(jid, 0.0, node="a"))
    directory.put("acme", "bob.acme", Connection(jid, 0.0, node="b"))
    directory.remove("acme", "bob.acme", jid, "a")
    assert directory.is_online("acme", "bob.acme")
    directory.remove("acme", "bob.acme", jid, "b")
    assert not directory.is_online("acme", "bob.acme")


@pytest.mark.parametrize("resources", [["desk"], ["phone"], []])
async def test_service_unavailable_is_said_by_a_client_or_of_one_that_is_gone(resources: list[str]) -> None:
    """A client that does not know pings answers so, and so does the server when there is no such client."""
    kicked: list[str] = []

    class Ejabberd:
        def at(self, _host: str) -> "Ejabberd":
            return self

        async def connections(self, _username: str) -> list[Any]:
            return [SimpleNamespace(resource=resource) for resource in resources]

        async def kick(self, _username: str, resource: str, _reason: str) -> None:
            kicked.append(resource)

    class Silent(Gateway):
        def __init__(self) -> None:
            pass

        async def ping(self, *_question: object) -> bool | None:
            return None

    naming = Naming(hosting=True)
    services: Any = SimpleNamespace(settings=Settings(), naming=naming, ejabberd=Ejabberd())
    shards: Any = SimpleNamespace(serves=lambda _: False, lease_of=lambda _: None)
    watch = OperatorWatch(services, Silent(), SimpleNamespace(), OperatorDirectory(), shards)  # type: ignore[arg-type]  # shows nobody
    is_there = await watch._is_connected("bob.acme", "bob.acme@localhost/desk")  # noqa: SLF001 - what `_ping` asks
    assert is_there == ("desk" in resources)
    if not is_there:
        await asyncio.wait_for(watch._ping("acme", "bob.acme", "bob.acme@localhost/desk", "a"), 5)  # noqa: SLF001 - of a loop
        assert kicked == ["desk"]
