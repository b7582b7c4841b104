"""Tokens of the API: made, listed and revoked by who may change things."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from orchestrator.api.http.auth import WRITES, CauseDep, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import AfterKey, Limit, Page, rows_named
from orchestrator.api.http.views import View, problems
from tenants.access import tokens
from tenants.store.models import Scope


class TokenRequest(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Whose it is; the actor of what is done with it.")
    scope: Scope
    instance_name: str | None = Field(None, description="Of scope `tenant`: the one tenant that it opens.")
    expires_at: AwareDatetime | None = None


class TokenView(View):
    """A token, without what opens doors."""

    id: str
    name: str
    scope: Scope
    instance_name: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class NewTokenView(TokenView):
    """A token that was made just now."""

    token: str | None = Field(description="Shown once.")


class TokenPage(Page[TokenView, str], alias_generator=rows_named("tokens")):
    """Some tokens, newest first."""


router = APIRouter(prefix="/v1/tokens", tags=["tokens"], dependencies=[WRITES], route_class=IdempotentRoute)


@router.get("", responses=problems(404))
async def list_tokens(
    services: ServicesDep,
    instance_name: Annotated[str | None, Query(max_length=63)] = None,
    *,
    revoked: Annotated[bool, Query(description="Also those that were revoked.")] = False,
    after: AfterKey = None,
    limit: Limit = 50,
) -> TokenPage:
    """The tokens, newest first."""
    found = await tokens.find(
        services.database, instance_name=instance_name, revoked=revoked, after=after, limit=limit + 1
    )
    return TokenPage.of(found, limit, TokenView.model_validate)


@router.post("", status_code=HTTPStatus.CREATED, responses=problems())
async def create_token(
    wanted: TokenRequest, services: ServicesDep, response: Response, cause: CauseDep
) -> NewTokenView:
    """Make a token. It is shown in this answer, and never again."""
    token, shown = await tokens.create(
        services,
        name=wanted.name,
        scope=wanted.scope,
        instance_name=wanted.instance_name,
        expires_at=wanted.expires_at.timestamp() if wanted.expires_at else None,
        created_by=cause.actor,
        reason=cause.reason,
    )
    response.headers["Location"] = f"/v1/tokens/{token.id}"
    return NewTokenView(**TokenView.model_validate(token).model_dump(), token=shown)


@router.get("/{token_id}", responses=problems(404))
async def get_token(token_id: str, services: ServicesDep) -> TokenView:
    """The token, also one that was revoked."""
    return TokenView.model_validate(await tokens.get(services.database, token_id))


@router.delete("/{token_id}", status_code=HTTPStatus.NO_CONTENT, responses=problems(404))
async def revoke_token(token_id: str, services: ServicesDep, cause: CauseDep) -> None:
    """Let the token open nothing any more, from now on."""
    await tokens.revoke(services, token_id, cause)
