"""What an operator does all day, with each client: sees who is there and where, reads, answers."""

import re
from pathlib import Path

from bench.testbed.waiting import until
from tests.clients.client import Client
from tests.clients.poezio import Poezio
from tests.clients.profanity import Profanity
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"


async def test_a_visitor_is_a_contact_with_whom_one_talks(client: Client, tenant: Tenant) -> None:
    log = tenant.system.state / "logs" / "ejabberd-own.log"
    login = rf"\(tls\|.*Accepted c2s {client.MECHANISM}.* for {client.jid} "
    await until(lambda: re.search(login, log.read_text()), f"{login} in the log")

    nick = "John Smith #12"
    await tenant.lhc.new_visitor("visitor.7", PASSWORD, nick=nick, status="Prices\n| LT (Vilnius)")
    await client.shows_status("visitor.7", nick, "Prices")
    await tenant.lhc.page_view("visitor.7", PASSWORD, nick=nick, status="Checkout\n| LT (Vilnius)")
    await client.shows_status("visitor.7", nick, "Checkout")

    await tenant.lhc.visitor_writes("visitor.7", PASSWORD, "bob", "Kiek kainuoja? <ąžuolas>", nick=nick)
    await client.reads("visitor.7", "Kiek kainuoja? <ąžuolas>")
    await client.says("visitor.7", "Devynis eurus & centą 😀")
    callback = await tenant.receiver.message("Devynis eurus & centą 😀")
    assert callback.host == tenant.callback_host
    assert callback.form["sender"] == tenant.lhc.name("bob")
    assert callback.form["receiver"] == tenant.lhc.name("visitor.7")
    assert len(tenant.receiver.messages("Devynis eurus & centą 😀")) == 1


async def test_two_devices_see_the_same(client: Client, tenant: Tenant, homes: Path) -> None:
    """Of one operator, each at another client: what the visitor writes, and what is written at the other one."""
    other_kind = Poezio if isinstance(client, Profanity) else Profanity
    await tenant.lhc.new_visitor("visitor.7", PASSWORD, nick="John Smith #12")
    async with other_kind(tenant, "bob", homes / "bob-elsewhere") as other:
        await tenant.lhc.visitor_writes("visitor.7", PASSWORD, "bob", "Anybody there?", nick="John Smith #12")
        await client.reads("visitor.7", "Anybody there?")
        await other.reads("visitor.7", "Anybody there?")
        await client.says("visitor.7", "Good morning!")
        await other.reads("visitor.7", "Good morning!")
        await other.says("visitor.7", "What can I do for you?")
        await client.reads("visitor.7", "What can I do for you?")
    await tenant.receiver.message("What can I do for you?")
    told = [callback.form["body"] for callback in tenant.callbacks() if "body" in callback.form]
    assert told == ["Good morning!", "What can I do for you?"]
