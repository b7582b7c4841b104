"""What suspension and features mean for traffic, in the running system."""

import asyncio
import time
from typing import Any
from xmlrpc.client import Fault

import pytest

from bench.testbed.lhc import rpc
from bench.testbed.operator import Operator
from bench.testbed.receiver import Callback
from bench.testbed.waiting import until, until_async
from config.settings import Settings
from tenants.shards.commands import ShowVisitor
from tenants.shards.queues import open_publisher
from tests.world.rpc import METHODS, named
from tests.world.tenant import NewTenant, Tenant

PASSWORD = "0123456789abcdef0123"

IN_EFFECT = 5.0
"""Seconds within which page views of visitors who are known are refused."""


async def do(tenant: Tenant, action: str) -> None:
    """Suspend or resume the tenant, and wait until it is done."""
    answer = await tenant.panel.http.post(f"/v1/tenants/{tenant.name}/{action}", json={"reason": "a test"})
    assert answer.status_code == 202, answer.text
    await tenant.panel.finished(answer.json()["id"])


async def in_effect(tenant: Tenant) -> None:
    """Wait until the API process knows that the tenant is suspended."""

    async def is_refused() -> bool:
        answer = await tenant.lhc.page_view("visitor.1", PASSWORD)
        return answer.text != "ok" and answer.json() == {
            "error": True,
            "msg": f"tenant '{tenant.name}' is suspended, not active",
        }

    await until_async(is_refused, "page views are refused", IN_EFFECT)


async def change(tenant: Tenant, **settings: Any) -> None:
    answer = await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json=settings)
    assert answer.is_success, answer.text


def seen_by_lhc(tenant: Tenant) -> list[Callback]:
    return tenant.callbacks()


async def refused(tenant: Tenant, operator: Operator, visitor: str) -> str:
    """The operator writes to the visitor, and is told why that does not go."""
    sent = operator.write(tenant.lhc.name(visitor), "is anybody there?")
    answer = await until(lambda: next((m for m in operator.messages if m.id == sent), None), "it is refused")
    assert answer.error == "forbidden"
    return answer.reason


async def own_rpc(tenant: Tenant, method: str, **arguments: str) -> Any:
    """A call over XML-RPC with the tenant's own key."""
    credentials = {"user": tenant.name, "server": tenant.host, "password": tenant.key}
    return await rpc(f"{tenant.system.endpoints['api']}/rpc", credentials, method, **arguments)


def _statuses(session: Any) -> list[str]:
    return [field["statustext"] for field in session["session"] if "statustext" in field]


async def test_nothing_goes_while_suspended_and_what_waited_goes_after(new_tenant: NewTenant) -> None:
    tenant, other = await new_tenant(), await new_tenant()
    lhc, receiver = tenant.lhc, tenant.receiver
    bob, ann = await tenant.operator_online(), await tenant.operator_online("ann")
    await lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(lhc.name("visitor.1"))

    async def busy(_callback: Callback) -> int:
        return 503

    receiver.behaviours[tenant.callback_host] = busy
    body = f"hello {tenant.name}"
    bob.write(lhc.name("visitor.1"), body)
    await receiver.message(body)
    await do(tenant, "suspend")
    await bob.sees(lhc.name("visitor.1"), kind="unavailable")
    del receiver.behaviours[tenant.callback_host]
    # those that were under way have ended now
    await until(lambda: not any(c.at > time.monotonic() - 1 for c in seen_by_lhc(tenant)), "LHC is left alone")
    before = len(seen_by_lhc(tenant))

    for operator in (bob, ann):
        await until(operator.disconnected.is_set, "the operators are disconnected")

    await in_effect(tenant)

    # retries are due; of another tenant all is told
    carl = await other.operator_online("carl")
    await other.lhc.new_visitor("visitor.1", PASSWORD)
    carl.write(other.lhc.name("visitor.1"), f"hello {other.name}")
    await receiver.message(f"hello {other.name}")
    await receiver.status(f'{{"action":"ping","user":"{other.lhc.name("carl")}@{other.host}/desk"}}', count=4)
    assert len(seen_by_lhc(tenant)) == before

    await do(tenant, "resume")
    await until(lambda: len(receiver.messages(body)) > 1, "the message goes now", 60)
    for local in ("ann", "bob"):
        await receiver.status(tenant.connect_body(local, "disconnect"))
    assert (await lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    bob = await tenant.online("bob")
    await bob.sees(lhc.name("visitor.1"))
    bob.write(lhc.name("visitor.1"), f"again {tenant.name}")
    await receiver.message(f"again {tenant.name}")


async def test_a_late_command_shows_a_visitor_of_a_tenant_that_is_shut_for_a_moment_only(tenant: Tenant) -> None:
    """As of a page view that was accepted just before the door was closed."""
    bob = await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await bob.sees(tenant.lhc.name("visitor.1"))
    await change(tenant, xmpp=False)
    await bob.sees(tenant.lhc.name("visitor.1"), kind="unavailable")
    publisher = open_publisher(tenant.system.endpoints["broker_url"], Settings().shard_count)
    await publisher.publish(
        ShowVisitor(
            instance_name=tenant.name,
            username=tenant.lhc.name("visitor.1"),
            nick="ghost",
            status="-",
            online_until=time.time() + 300,
            version=1000,
        )
    )
    await publisher.close()
    await until(lambda: any(seen.nick == "ghost" for seen in bob.presences), "the ghost is there")
    await bob.sees(tenant.lhc.name("visitor.1"), kind="unavailable")


CALLS: list[tuple[str, dict[str, str]]] = [
    ("/xmpp", {"jid": "{visitor}@{host}", "pass": PASSWORD}),
    (
        "/xmpp-send-message",
        {"jid": "{visitor}@{host}", "pass": PASSWORD, "operator_username": "{bob}@{host}", "message": "hello"},
    ),
    (
        "/xmpp-register-online-visitor",
        {"user": "{visitor}", "host": "{host}", "password": PASSWORD, "group": "visitors.{name}"},
    ),
    ("/xmpp-register", {"user": "{bob}", "host": "{host}", "password": "another-pw"}),
    ("/xmpp-change-password", {"user": "{bob}", "host": "{host}", "password": "another-pw"}),
    (
        "/xmpp-assign-user-to-roaster",
        {"user": "{bob}", "host": "{host}", "group": "operators.{name}", "grouphost": "{host}"},
    ),
    (
        "/xmpp-setup-instance-roasters",
        {"group": "visitors.{name}", "host": "{host}", "name": "V", "desc": "V", "display": '""'},
    ),
    ("/xmpp-does-shared-roaster-exists", {"group": "visitors.{name}", "host": "{host}"}),
]
RPC_CALLS = sorted(METHODS.keys() - {"unregister", "srg_user_del", "srg_delete"})
"""What LHC removes goes in any state."""


async def call_all(tenant: Tenant) -> list[Any]:
    """What the tenant's LHC is told at each endpoint, and over XML-RPC."""
    names = {
        "name": tenant.name,
        "host": tenant.host,
        "bob": tenant.lhc.name("bob"),
        "visitor": tenant.lhc.name("visitor.1"),
    }
    answers = []
    for endpoint, keys in CALLS:
        values = {key: value.format(**names) if "{" in value else value for key, value in keys.items()}
        answers.append((await tenant.lhc.call(endpoint, **values)).json())
    for method in RPC_CALLS:
        with pytest.raises(Fault) as fault:
            await own_rpc(tenant, method, **named(METHODS[method], tenant.name))
        code, _, message = fault.value.faultString.partition("\n")
        answers.append({"error": code == "Error -118", "msg": message})
    return answers


async def test_every_call_of_a_suspended_tenant_is_refused_by_its_state(tenant: Tenant) -> None:
    await tenant.operator_online()
    await tenant.lhc.new_visitor("visitor.1", PASSWORD)
    await do(tenant, "suspend")
    await in_effect(tenant)
    why = {"error": True, "msg": f"tenant '{tenant.name}' is suspended, not active"}
    assert await call_all(tenant) == [why] * (len(CALLS) + len(RPC_CALLS))
    # the old way in opens it no more than its own key
    assert (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["state"] == "suspended"
    # but what LHC removes goes
    removed = await tenant.lhc.call("/xmpp-unregister", user=tenant.lhc.name("visitor.1"), host=tenant.host)
    assert removed.json() == {"error": False, "msg": ""}
    assert await tenant.system.users_of(tenant.name) == [tenant.lhc.name("bob")]


async def test_without_xmpp_every_call_is_refused_and_visitors_leave(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    for visitor in ("visitor.1", "visitor.2.chat"):
        await tenant.lhc.new_visitor(visitor, PASSWORD)
        await bob.sees(tenant.lhc.name(visitor))
    await change(tenant, xmpp=False)
    for visitor in ("visitor.1", "visitor.2.chat"):
        await bob.sees(tenant.lhc.name(visitor), kind="unavailable")
    why = f"tenant '{tenant.name}' does not have the feature 'xmpp'"
    assert await call_all(tenant) == [{"error": True, "msg": why}] * (len(CALLS) + len(RPC_CALLS))
    assert await refused(tenant, bob, "visitor.1") == why
    await change(tenant, xmpp=True)
    assert (await tenant.lhc.page_view("visitor.1", PASSWORD)).text == "ok"
    await bob.sees(tenant.lhc.name("visitor.1"))


async def test_without_visitor_tracking_chats_go_on_and_visitors_leave(tenant: Tenant) -> None:
    lhc = tenant.lhc
    bob = await tenant.operator_online()
    for visitor in ("visitor.1", "visitor.2.chat"):
        await lhc.new_visitor(visitor, PASSWORD)
        await bob.sees(lhc.name(visitor))
    await change(tenant, visitor_tracking=False)
    await bob.sees(lhc.name("visitor.1"), kind="unavailable")
    refusal = {"error": True, "msg": f"tenant '{tenant.name}' does not have the feature 'visitor_tracking'"}
    assert (await lhc.page_view("visitor.1", PASSWORD)).json() == refusal
    assert (await lhc.new_visitor("visitor.3", PASSWORD)).json() == refusal
    assert (
        await lhc.call("/xmpp-register", user=lhc.name("visitor.4"), host=tenant.host, password="x")
    ).json() == refusal
    assert lhc.name("visitor.3") not in await tenant.system.users_of(tenant.name)
    assert (await lhc.new_visitor("visitor.5.chat", PASSWORD)).json() == {"error": False, "msg": ""}
    assert (await lhc.page_view("visitor.2.chat", PASSWORD, status="still here")).text == "ok"
    await bob.sees(lhc.name("visitor.2.chat"), status="still here")
    assert (await lhc.visitor_writes("visitor.2.chat", PASSWORD, "bob", f"hello {tenant.name}")).text == "ok"
    await bob.reads(f"hello {tenant.name}")


async def test_page_views_while_suspended_and_resumed_again_and_again_leave_no_ghost(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    visitors = [f"visitor.{number}" for number in range(1, 9)]
    for visitor in visitors:
        await tenant.lhc.new_visitor(visitor, PASSWORD)
    over = asyncio.Event()

    async def browse(visitor: str) -> None:
        while not over.is_set():
            await tenant.lhc.page_view(visitor, PASSWORD)

    browsing = [asyncio.create_task(browse(visitor)) for visitor in visitors]
    for _ in range(3):
        await do(tenant, "suspend")
        await do(tenant, "resume")
    await do(tenant, "suspend")
    over.set()
    await asyncio.gather(*browsing)
    await until(bob.disconnected.is_set, "the operator is disconnected")

    await do(tenant, "resume")
    bob = await tenant.online("bob")

    async def all_agree() -> bool:
        """The operator sees online whom LHC is told of: a page view of just before may come after the resumption."""
        for username in map(tenant.lhc.name, visitors):
            told = await own_rpc(tenant, "user_sessions_info", host=tenant.host, user=username)
            # of a visitor without a session LHC is told a session without a status
            is_online = any(value for one in told["sessions_info"] for value in _statuses(one))
            seen = bob.latest(username)
            if is_online != (seen is not None and seen.type == "available"):
                return False
        return True

    await until_async(all_agree, "no ghost is left")
