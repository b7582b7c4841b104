"""docs/connect-lhc.md, from the old system to this one: the whole server at once, then tenant by tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from bench.testbed.system import System, start_system
from orchestrator.launcher.up import control

INSTANCE = "shop"
OPERATOR_PASSWORD, VISITOR_PASSWORD = "operator-pw", "0123456789abcdef0123"


@asynccontextmanager
async def pools_stopped(system: System) -> AsyncIterator[None]:
    with control(system.state) as supervisor:
        for name in system.pools():
            supervisor.stopProcess(f"processes:{name}")
        yield
        for name in system.pools():
            supervisor.startProcess(f"processes:{name}")
    await system.ready()


async def old_account(system: System, user: str, password: str, kind: str) -> None:
    """As the old server made it."""
    host = system.endpoints["xmpp_host"]
    await system.ejabberd("register", user=user, host=host, password=password)
    await system.join(f"{kind}.{INSTANCE}", user)


async def test_what_operators_write_meanwhile_is_delivered_and_accounts_go_on_with_their_passwords() -> None:
    with start_system() as system:
        where = system.endpoints
        host, address = where["xmpp_host"], (where["c2s_host"], where["c2s_port"])
        bob = Operator(f"bob.{INSTANCE}", host, OPERATOR_PASSWORD, address)
        # the old server logs visitors in
        seven = Operator(f"visitor.7.{INSTANCE}", host, VISITOR_PASSWORD, address)
        async with (
            Receiver(where["callback_port"]) as receiver,
            Panel(where["api"], where["panel_token"]) as panel,
        ):
            async with pools_stopped(system):
                for kind in ("visitors", "operators"):
                    await system.make_roster(f"{kind}.{INSTANCE}")
                await old_account(system, bob.username, OPERATOR_PASSWORD, "operators")
                await old_account(system, seven.username, VISITOR_PASSWORD, "visitors")
                async with bob, seven:
                    await bob.sees(seven.username)
                    bob.write(seven.username, "Good morning!")
                    await bob.taken()
                    # a browser reads what the pool has stored, and no pool is there
                    assert seven.messages == []
                    compared = (await panel.http.post("/v1/reconcile", params={"dry_run": True})).json()
                    await panel.finished(compared["id"])
                    drift = (await panel.http.get("/v1/drift")).json()["drift"]
                    assert [(one["kind"], one["subject"]) for one in drift] == [("unknown_tenant", INSTANCE)]
                    made = (await panel.http.post(f"/v1/tenants/{INSTANCE}/import", json={"idle_hours": 8760})).json()
                    await panel.finished(made["operation"]["id"])
            await receiver.message("Good morning!")

            lhc = Lhc(INSTANCE, base=f"{where['api']}/t/{INSTANCE}", secret_key=made["secret_key"], host=host)
            async with bob:
                # not moved yet: its visitors have sessions, its operators' messages come to LHC
                async with seven:
                    await bob.sees(seven.username)
                    bob.write(seven.username, "Still there?")
                    await receiver.message("Still there?")
                    await old_account(system, f"visitor.8.{INSTANCE}", VISITOR_PASSWORD, "visitors")
                await bob.sees(seven.username, kind="unavailable")

                # moved
                mended = (await panel.http.post(f"/v1/tenants/{INSTANCE}/reconcile")).json()
                await panel.finished(mended["id"])
                known = (await panel.http.get(f"/v1/tenants/{INSTANCE}")).json()["accounts"]
                assert known == {"operator": 1, "visitor": 2, "chat": 0}
                for visitor in ("visitor.7", "visitor.8"):
                    assert (await lhc.page_view(visitor, VISITOR_PASSWORD, status="Prices")).text == "ok"
                    await bob.sees(lhc.name(visitor), status="Prices")
                await lhc.visitor_writes("visitor.8", VISITOR_PASSWORD, "bob", "How much?")
                await bob.reads("How much?")
                bob.write(lhc.name("visitor.8"), "Nine euros.")
                await receiver.message("Nine euros.")
            assert len(receiver.messages("Good morning!")) == 1
