"""`orchestrator doctor`: is the system set up as it should be, and what to change."""

from dataclasses import asdict

import typer
from rich.table import Table

from orchestrator.cli.running import Exit, InstanceOption, JsonOption, console, messages, plain, run, show_json
from tenants.process.services import Services
from tenants.status import diagnostics
from tenants.status.diagnostics import Finding
from xmpp_pool import handshake, login_probe

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]?[/]"}


def doctor(*, instance_name: InstanceOption = None, as_json: JsonOption = False) -> None:
    """Examine the configuration and the servers; with --instance also whether that tenant's LHC can be reached."""

    async def examine(services: Services) -> list[Finding]:
        return await diagnostics.examine(
            services, [("component", handshake.check), ("logins", login_probe.check)], instance_name
        )

    findings = run(examine)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _show(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        table.add_row(_MARKS[finding.ok], plain(finding.part), plain(finding.found))
        if finding.advice:
            table.add_row("", "", plain(f"→ {finding.advice}", style="bold"))
    console.print(table)
    wrong = sum(not finding.ok for finding in findings)
    messages.print(f"{wrong} of {len(findings)} to be mended" if wrong else "All is well.")
