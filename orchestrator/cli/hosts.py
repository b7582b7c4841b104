"""`orchestrator host`: XMPP hosts added, listed and removed while everything runs."""

from dataclasses import asdict
from typing import Annotated

import typer

from orchestrator.cli.running import JsonOption, ReasonOption, cause, run, show_json, show_line, show_table
from tenants.lifecycle import served_hosts
from tenants.lifecycle.served_hosts import ServedHost
from tenants.process.services import Services

app = typer.Typer(no_args_is_help=True, help="XMPP hosts, which tenants live on.")

_LINE = ("name", "is_up", "is_fixed", "tenants", "certificate")
NameArgument = Annotated[str, typer.Argument(metavar="HOST", help="The domain: chat.customer.example.")]


@app.command("list")
def list_hosts(*, as_json: JsonOption = False) -> None:
    """List all hosts, the default first."""
    found = run(served_hosts.find)
    if as_json:
        show_json([asdict(host) for host in found])
    else:
        show_table(found, _LINE)


@app.command()
def add(
    name: NameArgument,
    *,
    certificate: Annotated[
        str | None, typer.Option(help="Where ejabberd finds its key and certificate (PEM), an absolute path.")
    ] = None,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve a host from now on, and show what belongs into DNS."""

    async def serve(services: Services) -> tuple[ServedHost, str]:
        host = await served_hosts.add(services, name, certificate, cause(reason))
        return host, await served_hosts.lines(services)

    host, lines = run(serve)
    if as_json:
        show_json(asdict(host))
        return
    show_line(f"In DNS, unless {name} leads to ejabberd itself:")
    for line in host.dns:
        show_line(f"  {line}")
    if not host.is_up:
        show_line(
            "ejabberd does not serve it yet: put these lines into its configuration, then ejabberdctl reload_config"
        )
        show_line(lines)


@app.command()
def remove(name: NameArgument, *, reason: ReasonOption = None) -> None:
    """Serve a host no longer, which no tenant lives on."""
    run(lambda services: served_hosts.remove(services, name, cause(reason)))
    show_line(f"{name} is served no longer.")
