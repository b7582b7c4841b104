"""The control panel's tasks, sent by name as a panel does that has nothing but the broker's address."""

from collections.abc import Iterator
from typing import Any

import pytest

from bench.testbed.lhc import Lhc
from bench.testbed.panel import Panel
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tenants.core.digests import digest
from tests.world.celery_client import Client
from tests.world.tenant import Tenant


@pytest.fixture
def client(system: System) -> Iterator[Client]:
    client = Client(system.endpoints["broker_url"])
    yield client
    client.app.close()


async def _state(panel: Panel, name: str, wanted: str) -> None:
    async def reached() -> bool:
        return bool((await panel.http.get(f"/v1/tenants/{name}")).json().get("state") == wanted)

    await until_async(reached, f"{name} is {wanted}")


async def test_a_whole_life_by_task_names(client: Client, panel: Panel, system: System) -> None:
    name, key = "by-task", "a-key-that-the-panel-has-made-itself"
    result = client.call(
        "tenants.provision", instance_name=name, settings={"online_seconds": 60}, key_digest=digest(name, key)
    )
    assert set(result) == {"instance_name", "operation_id", "kind", "state"}
    assert (result["instance_name"], result["kind"], result["state"]) == (name, "provision", "pending")
    operation = await panel.finished(result["operation_id"])
    assert (operation["state"], operation["requested_by"]) == ("succeeded", "celery")
    lhc = Lhc(
        name,
        base=f"{system.endpoints['api']}/t/{name}",
        secret_key=key,
        host=system.endpoints["xmpp_host"],
    )
    assert (await lhc.new_visitor("visitor.1", "0123456789abcdef0123")).json() == {"error": False, "msg": ""}

    client.call("tenants.suspend", instance_name=name, reason="bill not paid")
    await _state(panel, name, "suspended")
    assert client.call("tenants.suspend", instance_name=name)["operation_id"] is None
    client.call("tenants.resume", instance_name=name)
    await _state(panel, name, "active")

    client.call("tenants.change_address", instance_name=name, callback_url="https://chat.example.com/x")
    client.call("tenants.rotate_keys", instance_name=name, key_digest=digest(name, "the next one"), overlap_seconds=0)

    async def changed() -> bool:
        old_opens = (await lhc.page_view("visitor.1", "0123456789abcdef0123")).status_code != 403
        url = (await panel.http.get(f"/v1/tenants/{name}")).json()["callback_url"]
        return not old_opens and url == "https://chat.example.com/x"

    await until_async(changed, "the address and the key are changed")

    outcome = client.call("tenants.bulk", kind="destroy", instance_names=[name, "nobody"])
    assert outcome[name]["kind"] == "destroy"
    assert outcome["nobody"] == {"error": "there is no tenant 'nobody'"}
    assert (await panel.finished(outcome[name]["operation_id"]))["state"] == "succeeded"
    assert await system.users_of(name) == []
    # a repeat finds what the first one did
    first = outcome[name]["operation_id"]
    assert client.call("tenants.bulk", kind="destroy", instance_names=[name])[name]["operation_id"] == first
    again = client.call("tenants.destroy", instance_name=name)
    assert again == {"instance_name": name, "operation_id": first, "kind": "destroy", "state": "succeeded"}


@pytest.mark.parametrize(
    ("task", "arguments", "rule"),
    [
        ("tenants.provision", {"instance_name": "Chat.X"}, "instance_name: must be lower case"),
        ("tenants.provision", {"instance_name": "x", "settings": {"colour": "red"}}, "colour: Extra inputs"),
        ("tenants.provision", {"instance_name": "x", "key_digest": "a secret"}, "key_digest: must be a SHA-256 digest"),
        (
            "tenants.change_address",
            {"instance_name": "x", "callback_url": "https://lhc:word@chat.example.com/"},
            "callback_url: must not hold a password here",
        ),
        (
            "tenants.provision",
            {"instance_name": "x", "settings": {"callback_url": "https://lhc:word@chat.example.com/"}},
            "callback_url: must not hold a password here",
        ),
        ("tenants.suspend", {"instance_name": "nobody"}, "there is no tenant 'nobody'"),
        ("tenants.destroy", {"instance_name": "nobody"}, "there is no tenant 'nobody'"),
        ("tenants.bulk", {"kind": "provision", "instance_names": ["x"]}, "kind: Input should be 'suspend'"),
    ],
)
def test_who_breaks_a_rule_is_told_so(client: Client, task: str, arguments: dict[str, Any], rule: str) -> None:
    client.fails(rule, task, **arguments)


async def test_results_come_through_rabbitmq_as_well(production: System, production_tenant: Tenant) -> None:
    client = Client(production.endpoints["broker_url"])
    try:
        result = client.call("tenants.suspend", instance_name=production_tenant.name)
    finally:
        # the application does not close the connection that results came on
        client.app.backend.result_consumer.stop()
        client.app.close()
    assert (result["instance_name"], result["kind"]) == (production_tenant.name, "suspend")
    await _state(production_tenant.panel, production_tenant.name, "suspended")
