"""A tenant at which something is going on, for pages to have something to show."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.testbed.panel import Panel
from bench.testbed.receiver import Callback, Receiver
from bench.testbed.system import System
from bench.testbed.waiting import until_async
from tests.world.tenant import Tenant

PASSWORD = "0123456789abcdef0123"
_VISITORS = (
    ("1", "Maya Lindgren", "SE (Malmö)\n| https://northwind-bakery.example/cakes/birthday\n| Visits - 3"),
    ("2", "Tomas", "LT (Vilnius)\n| https://northwind-bakery.example/delivery\n| Visits - 1"),
    ("3", "Online visitor", "DE (Bremen)\n| https://northwind-bakery.example/\n| Visits - 12"),
)


@asynccontextmanager
async def open_shop(system: System, receiver: Receiver, panel: Panel, name: str) -> AsyncIterator[Tenant]:
    """Two operators, of whom one is online, three visitors, and a message that its LHC does not take."""
    shop = Tenant(system, receiver, panel, await panel.create(name, max_accounts=5000, max_online_visitors=500))

    async def behave(callback: Callback) -> int:
        return 503 if callback.form.get("body") == "Is anybody there?" else 200

    receiver.behaviours[shop.callback_host] = behave
    anna = await shop.operator_online("anna")
    await shop.lhc.new_operator("jonas", "operator-pw")
    for number, nick, status in _VISITORS:
        await shop.lhc.new_visitor(f"visitor.{number}", PASSWORD, nick=nick, status=status)
        await anna.sees(shop.lhc.name(f"visitor.{number}"))
    await shop.lhc.visitor_writes("visitor.1", PASSWORD, "anna", "Do you bake without gluten?", nick="Maya Lindgren")
    await anna.reads("Do you bake without gluten?")
    anna.write(shop.lhc.name("visitor.1"), f"Yes, all of {name}'s cakes.")
    await receiver.message(f"Yes, all of {name}'s cakes.")
    anna.write(shop.lhc.name("visitor.2"), "Is anybody there?")

    async def is_refused() -> bool:
        deliveries = (await panel.http.get(f"/v1/tenants/{name}/deliveries")).json()
        return any(one["attempts"] for one in deliveries["deliveries"])

    await until_async(is_refused, "the message was tried")
    yield shop
    await shop.close()
