"""The demo: a tenant's whole life in a minute, told step by step. Ends with 0 only if every step was seen.

Plays the control panel, the tenant's LHC with its callback receiver, and an operator at a real XMPP client.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from bench.lib.harness import console
from bench.lib.running import running_system
from bench.testbed.lhc import Lhc
from bench.testbed.operator import Operator
from bench.testbed.panel import Panel
from bench.testbed.receiver import Receiver
from tenants.ejabberd.client import Ejabberd

INSTANCE = "acme"
PASSWORD = "0123456789abcdef0123"  # noqa: S105 - of the demo's visitor
OPERATOR_PASSWORD = "demo-operator"  # noqa: S105 - of the demo's operator


class Story:
    """Tells the steps, each with the time it took."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, who: str, what: str) -> None:
        """One line: a step that was seen to have happened."""
        now = time.monotonic()
        console.print(
            f"  [green]✓[/] [bold]{who:<9}[/] {what} [dim]{(now - self._last) * 1000:.0f} ms[/]", soft_wrap=True
        )
        self._last = now


async def play(endpoints: dict[str, str | int]) -> None:
    """The story.

    Raises:
        AssertionError: a step was not seen in time.
    """
    host, api = str(endpoints["xmpp_host"]), str(endpoints["api"])
    story = Story()
    async with (
        Receiver(int(endpoints["callback_port"])) as receiver,
        Panel(api, str(endpoints["panel_token"])) as panel,
    ):
        if (await panel.http.get(f"/v1/tenants/{INSTANCE}")).is_success:
            await panel.destroy(INSTANCE)
            story.tell("panel", f"removed the tenant '{INSTANCE}' that an earlier run left")
        created = await panel.create(INSTANCE)
        story.tell("panel", f"created tenant '{INSTANCE}': a Celery workflow made its rosters in ejabberd")

        lhc = Lhc(INSTANCE, base=f"{api}/t/{INSTANCE}", secret_key=created["secret_key"], host=host)
        bob_jid, visitor = f"{lhc.name('bob')}@{host}", lhc.name("visitor.12")
        await lhc.new_operator("bob", OPERATOR_PASSWORD)
        story.tell("LHC", f"registered operator {bob_jid}")
        address = (str(endpoints["c2s_host"]), int(endpoints["c2s_port"]))
        certificate = Path(str(endpoints["certificate"])) if "certificate" in endpoints else None
        async with Operator(lhc.name("bob"), host, OPERATOR_PASSWORD, address, certificate=certificate) as bob:
            await receiver.status(f'{{"action":"connect","user":"{lhc.name("bob")}","server":"{host}"}}')
            story.tell("bob", "logged in with an XMPP client; LHC was told: connect")

            await _expect_ok(await lhc.new_visitor("visitor.12", PASSWORD))
            await bob.sees(visitor)
            story.tell("visitor", f"came to the website; bob sees the contact {visitor} online")
            status = "LT (Vilnius)\n| https://shop.example/cart\n| Visits - 3"
            await _expect_ok(await lhc.page_view("visitor.12", PASSWORD, status=status))
            await bob.sees(visitor, status=status)
            story.tell("visitor", "opened https://shop.example/cart; bob sees the page as status")

            question, reply = "Hello, do you deliver to Kaunas? 🚚", "Yes, tomorrow before noon."
            nick = "Jonas #7"
            await _expect_ok(
                await lhc.visitor_writes("visitor.12", PASSWORD, "bob", question, nick=nick, status=status)
            )
            await bob.reads(question)
            await bob.sees(visitor, nick=nick)
            story.tell("visitor", f"started a chat as '{nick}' and wrote: {question}")
            bob.write(visitor, reply)
            callback = await receiver.message(reply)
            story.tell("bob", f"answered: {reply}")
            story.tell("LHC", f"received at http://{callback.host}{callback.path}: {callback.raw.decode()}")
        await receiver.status(f'{{"action":"disconnect","user":"{lhc.name("bob")}","server":"{host}"}}')
        story.tell("bob", "logged out; LHC was told: disconnect")

        operation = await panel.destroy(INSTANCE)
        steps = ", ".join(f"{step['name']} {step['done']}/{step['total']}" for step in operation["steps"])
        story.tell("panel", f"destroyed the tenant: {steps}")
        ejabberd = Ejabberd(str(endpoints["ejabberd_api"]), host, str(endpoints["ejabberd_api_secret"]))
        await _check_nothing_left(ejabberd)
        story.tell("ejabberd", "holds nothing of the tenant: no account, no roster, no session")


async def _expect_ok(answer: httpx.Response) -> None:
    accepted = answer.text == "ok" or (answer.is_success and answer.json()["error"] is False)
    if not accepted:
        raise AssertionError(f"{answer.request.url} answered {answer.status_code} {answer.text[:200]}")


async def _check_nothing_left(ejabberd: Ejabberd) -> None:
    try:
        left = await ejabberd.bulk.tenant_left(f".{INSTANCE}", [])
    finally:
        await ejabberd.close()
    if left:
        raise AssertionError(f"still in ejabberd: {left}")


def main(
    endpoints_file: Annotated[
        Path | None, typer.Option("--endpoints", help="Of a system that script/up did not start: its endpoints.json.")
    ] = None,
) -> None:
    """Run the demo on the running system, or on one that is started for it."""
    with running_system(console, endpoints_file) as endpoints:
        console.print(f"[bold]A visitor and an operator of '{INSTANCE}' talk to each other[/]")
        try:
            asyncio.run(play(endpoints))
        except AssertionError as error:
            console.print(f"  [red]✗ {error}[/]")
            raise typer.Exit(1) from None
        console.print("[bold green]Every step was seen.[/]")


if __name__ == "__main__":
    typer.run(main)
