"""XML-RPC's send_message: a visitor writes to an operator, with or without an account or a session."""

from typing import Any

import pytest

from bench.testbed.operator import Operator
from bench.testbed.waiting import until_async
from tests.world.rpc import Rpc
from tests.world.tenant import Tenant, rpc_of

HOST = "localhost"
PASSWORD = "0123456789abcdef0123"
DONE = {"res": 0}


def message(tenant: Tenant, sender: str, body: str, receiver: str = "bob") -> dict[str, str]:
    """As the extension writes it: bare JIDs, an empty subject."""
    addresses = {"from": f"{tenant.lhc.name(sender)}@{HOST}", "to": f"{tenant.lhc.name(receiver)}@{HOST}"}
    return {"type": "chat", **addresses, "subject": "", "body": body}


async def accounts_of(tenant: Tenant) -> dict[str, int]:
    counts: dict[str, int] = (await tenant.panel.http.get(f"/v1/tenants/{tenant.name}")).json()["accounts"]
    return counts


async def answered(tenant: Tenant, bob: Operator, visitor: str) -> None:
    """The operator's answer reaches LHC."""
    bob.write(tenant.lhc.name(visitor), f"hello {visitor}")
    await tenant.receiver.message(f"hello {visitor}")


@pytest.mark.parametrize("sender", ["visitor.1", "visitor.1.chat"])
async def test_a_message_needs_no_account(tenant: Tenant, sender: str) -> None:
    """LHC keeps its own row of an account whose registration failed, and later writes from it."""
    bob = await tenant.operator_online()
    assert await rpc_of(tenant).call("send_message", message(tenant, sender, "hi <Bob> & co\n👋")) == DONE
    seen = await bob.reads("hi <Bob> & co\n👋")
    assert (seen.username, seen.type) == (tenant.lhc.name(sender), "chat")
    await bob.has_contact(tenant.lhc.name(sender))
    await bob.sees(tenant.lhc.name(sender), nick="Online visitor")
    assert tenant.lhc.name(sender) in await tenant.system.users_of(tenant.name)
    await answered(tenant, bob, sender)
    # what LHC registers later is this account, with its own password
    registered = await rpc_of(tenant).call(
        "register", {"host": HOST, "user": tenant.lhc.name(sender), "password": PASSWORD}
    )
    assert registered["res"] == 0


async def test_messages_keep_their_order_and_nick_and_status(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    name = tenant.lhc.name("visitor.1")
    await tenant.lhc.new_visitor("visitor.1", PASSWORD, nick="John #1", status="on page 1")
    await bob.sees(name, nick="John #1", status="on page 1")
    rpc = rpc_of(tenant)
    for number in range(5):
        assert await rpc.call("send_message", message(tenant, "visitor.1", f"line {number}")) == DONE
    await bob.reads("line 4")
    assert [seen.body for seen in bob.messages] == [f"line {number}" for number in range(5)]
    latest = bob.latest(name)
    assert latest is not None
    assert (latest.nick, latest.status) == ("John #1", "on page 1")


async def test_addresses_have_no_case(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    wanted = message(tenant, "visitor.1", "in capitals")
    for key in ("from", "to"):
        wanted[key] = wanted[key].upper()
    assert await rpc_of(tenant).call("send_message", wanted) == DONE
    assert (await bob.reads("in capitals")).username == tenant.lhc.name("visitor.1")


async def test_the_same_message_may_be_written_twice(tenant: Tenant) -> None:
    """A person may; there is nothing by which to know a repeat."""
    bob = await tenant.operator_online()
    for _ in range(2):
        assert await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "again")) == DONE
    await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "last"))
    await bob.reads("last")
    assert [seen.body for seen in bob.messages] == ["again", "again", "last"]


async def test_a_message_for_an_operator_who_is_offline_waits(tenant: Tenant) -> None:
    await tenant.lhc.new_operator("bob", "operator-pw")
    assert await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "while you were out")) == DONE
    await (await tenant.online("bob")).reads("while you were out")


async def test_a_message_for_nobody_is_a_success_and_is_kept(tenant: Tenant) -> None:
    """As for ejabberd; but what comes back is there for people to see."""
    assert await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "lost?", "nobody")) == DONE

    async def returned() -> Any:
        page = await tenant.panel.http.get(f"/v1/tenants/{tenant.name}/returned-messages")
        return page.json()["returned_messages"]

    found = await until_async(returned, "the message came back")
    assert [one["operator"] for one in found] == [tenant.lhc.name("nobody")]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"from": "@@"}, f"from: must be an address at {HOST}"),
        ({"from": ""}, "from: must end in .[instance_name]"),
        ({"from": "bob.NAME@localhost"}, "from: must be a visitor's or chat's account"),
        (
            {"from": "visitor.x.NAME@localhost"},
            "from: a visitor's or chat's id must be a positive whole number of at most 19 digits",
        ),
        ({"to": ""}, "to: must end in .[instance_name]"),
        ({"to": "bob"}, "to: must end in .[instance_name]"),
        ({"to": "visitor.2.NAME@localhost"}, "to: must be an operator of the visitor's own instance"),
        ({"to": "bob.NAME@xmpp.example"}, f"to: must be an address at {HOST}"),
        ({"type": "headline"}, "type: must be one of chat"),
        ({"type": ""}, "type: must be one of chat"),
    ],
)
async def test_what_cannot_be_sent_is_a_fault_and_makes_no_account(
    tenant: Tenant, changed: dict[str, str], text: str
) -> None:
    changed = {key: value.replace("NAME", tenant.name) for key, value in changed.items()}
    code, told = await rpc_of(tenant).fault("send_message", {**message(tenant, "visitor.1", "x"), **changed})
    assert code == -118
    assert told.startswith(f"Error -118\n{text}")
    assert await tenant.system.users_of(tenant.name) == []


async def test_a_tenant_that_is_full_makes_no_further_account(tenant: Tenant) -> None:
    await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"max_accounts": 1})
    assert await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "first")) == DONE
    code, _ = await rpc_of(tenant).fault("send_message", message(tenant, "visitor.2", "second"))
    assert code == -118
    assert await rpc_of(tenant).call("send_message", message(tenant, "visitor.1", "third")) == DONE
    assert await accounts_of(tenant) == {"operator": 0, "visitor": 1, "chat": 0}


async def test_the_hosting_wide_credentials_write_for_every_tenant(tenant: Tenant) -> None:
    bob = await tenant.operator_online()
    rpc = Rpc.hosting(tenant.system)
    assert await rpc.call("send_message", message(tenant, "visitor.1", "from the root")) == DONE
    await bob.reads("from the root")
    elsewhere = {**message(tenant, "visitor.1", "x"), "from": f"visitor.1.never-was@{HOST}"}
    code, text = await rpc.fault("send_message", elsewhere)
    assert (code, text) == (-118, "Error -118\nthere is no tenant 'never-was'")
    crossing = {**message(tenant, "visitor.1", "x"), "to": f"bob.never-was@{HOST}"}
    code, text = await rpc.fault("send_message", crossing)
    assert (code, text) == (-118, "Error -118\nto: must be an operator of the visitor's own instance")
