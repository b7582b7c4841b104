"""`orchestrator doctor`: is the system set up as it should be, what needs attention, and what to do about it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import typer
from rich.table import Table

from orchestrator.cli.running import Exit, InstanceOption, JsonOption, console, messages, plain, run, show_json
from tenants.process.services import Services
from tenants.status import attention, diagnostics
from tenants.status.attention import Attention
from tenants.status.attention_items import Item
from tenants.status.diagnostics import Finding
from xmpp_pool import handshake, login_probe

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]?[/]"}


@dataclass(frozen=True, slots=True)
class _Examined:
    findings: list[Finding]
    needed: Attention | None
    """None: the database could not be asked."""

    @property
    def wrong(self) -> int:
        problems = self.needed.problems if self.needed else []
        return sum(not finding.ok for finding in self.findings) + len(problems)


def doctor(*, instance_name: InstanceOption = None, as_json: JsonOption = False) -> None:
    """Examine configuration and servers, and tell what needs attention; with --instance of that tenant alone."""

    async def examine(services: Services) -> _Examined:
        findings = await diagnostics.examine(
            services, [("component", handshake.check), ("logins", login_probe.check)], instance_name
        )
        has_database = any(finding.ok for finding in findings if finding.part == "database")
        return _Examined(findings, await attention.look(services, instance_name) if has_database else None)

    examined = run(examine)
    if as_json:
        items = examined.needed.items if examined.needed else []
        show_json({"parts": [asdict(one) for one in examined.findings], "attention": [_data(item) for item in items]})
    else:
        _show(examined)
    if examined.wrong:
        raise typer.Exit(Exit.FAILED)


def _data(item: Item) -> dict[str, object]:
    return {**asdict(item), "since": None if item.since is None else datetime.fromtimestamp(item.since, UTC)}


def _show(examined: _Examined) -> None:
    table = Table.grid(padding=(0, 1))
    for finding in examined.findings:
        table.add_row(_MARKS[finding.ok], plain(finding.part), plain(finding.found))
        if finding.advice:
            table.add_row("", "", plain(f"→ {finding.advice}", style="bold"))
    console.print(table)
    items = examined.needed.items if examined.needed else []
    if examined.needed and items:
        _show_items(examined.needed)
    if examined.wrong:
        messages.print(f"{examined.wrong} to be mended")
    else:
        messages.print("Nothing is broken; some things are to be looked at." if items else "All is well.")


def _show_items(needed: Attention) -> None:
    console.print("\nNeeds attention")
    table = Table.grid(padding=(0, 1))
    for item in needed.items:
        since = "" if item.since is None else f" Since {datetime.fromtimestamp(item.since, UTC):%Y-%m-%d %H:%M} UTC."
        mark = "[red]✗[/]" if item.is_problem else "[yellow]![/]"
        table.add_row(mark, plain(item.instance_name or "system"), plain(item.cause + since))
        table.add_row("", "", plain(f"→ {item.action}", style="bold"))
    console.print(table)
    if needed.untold > 0:
        console.print(f"and {needed.untold} more")
