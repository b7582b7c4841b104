"""XMPP hosts: a customer's own domain is added and removed while everything runs."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.api.http.auth import READS, WRITES, CauseDep, ServicesDep
from orchestrator.api.http.views import View, problems
from tenants.lifecycle import served_hosts
from tenants.lifecycle.served_hosts import LONGEST_HOST

HostName = Annotated[str, Path(max_length=LONGEST_HOST, pattern=r"^[^\x00]*$")]


class HostRequest(BaseModel):
    """A host to be served."""

    model_config = ConfigDict(extra="forbid")

    certificate: str | None = Field(
        None,
        min_length=1,
        max_length=1000,
        pattern=r"^/[^\x00-\x1f]*$",
        description="Where ejabberd finds its key and certificate (PEM); null: in a file of all hosts, or by ACME.",
    )


class HostView(View):
    """A host."""

    name: str
    certificate: str | None
    is_fixed: bool = Field(description="It is one of the settings.")
    tenants: int = Field(description="How many live there.")
    is_up: bool = Field(description="ejabberd serves it now.")
    dns: list[str] = Field(description="What whoever has the domain puts into DNS, unless it leads to ejabberd itself.")


class HostList(BaseModel):
    """All hosts, the default first."""

    hosts: list[HostView]


router = APIRouter(prefix="/v1/hosts", tags=["hosts"])


@router.get("", dependencies=[READS], responses=problems())
async def list_hosts(services: ServicesDep) -> HostList:
    """The XMPP hosts that tenants may live on."""
    return HostList(hosts=[HostView.model_validate(host) for host in await served_hosts.find(services)])


@router.put("/{name}", dependencies=[WRITES], responses=problems(409))
async def put_host(
    name: HostName, services: ServicesDep, cause: CauseDep, wanted: HostRequest | None = None
) -> HostView:
    """Serve the host from now on. May be repeated at will; of one that is served, with that certificate.

    `is_up` is false where ejabberd is configured by hand: put it into its `hosts`, and reload.
    """
    certificate = (wanted or HostRequest()).certificate
    return HostView.model_validate(await served_hosts.add(services, name, certificate, cause))


@router.delete("/{name}", status_code=HTTPStatus.NO_CONTENT, dependencies=[WRITES], responses=problems(404, 409))
async def delete_host(name: HostName, services: ServicesDep, cause: CauseDep) -> None:
    """Serve the host no longer; 409 while tenants live there."""
    await served_hosts.remove(services, name, cause)
