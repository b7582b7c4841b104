"""Tenants as resources of the panel's API; what is done to them is an operation."""

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from orchestrator.api.http.auth import ACTS_FOR_TENANT, READS, READS_TENANT, WRITES, CauseDep, ServicesDep
from orchestrator.api.http.idempotency import IdempotentRoute
from orchestrator.api.http.pages import Limit, Page, rows_named
from orchestrator.api.http.problems import Problem, describe
from orchestrator.api.http.views import OperationView, instant, problems
from tenants.access import passwords
from tenants.core.digests import digest, new_key
from tenants.core.errors import DomainError, InvalidInputError
from tenants.core.scram import Verifier, make_verifier
from tenants.lifecycle import keys, operations, registry, requests
from tenants.lifecycle.audit import Cause
from tenants.lifecycle.request_schemas import BULK_LIMIT, CallbackUrl, InstanceNames, OfMany, Overlap, XmppHost
from tenants.lifecycle.tenant_settings import TenantSettings, check_first_operator, with_fields
from tenants.outbound import callback_urls
from tenants.process.services import Services
from tenants.store.models import SETTINGS, Operation, OperationKind, Setting, Tenant, TenantState
from tenants.workflows import move

KEY = Field(None, min_length=20, max_length=200, description="The tenant's own key; one is made when none is given.")


class FirstOperator(BaseModel):
    """The operator that a tenant begins with."""

    model_config = ConfigDict(extra="forbid")

    username: str = Field(description="Without the instance's name.")
    password: SecretStr = Field(
        max_length=1000,
        json_schema_extra=passwords.SCHEMA,
        description="None of the commonest ones. It is not kept: ejabberd gets a verifier of it (RFC 5802).",
    )
    nick: str | None = None


class TenantRequest(TenantSettings):
    """What a tenant is to be. What is left out keeps its value; null takes it back to its default."""

    secret_key: str | None = KEY
    operator: FirstOperator | None = Field(None, description="For a tenant that is being made.")


class NewTenant(TenantRequest):
    """A tenant to be made."""

    instance_name: str


ShownAddress = Annotated[
    str, AfterValidator(callback_urls.shown), Field(description="`***` stands for a password in it.")
]


def _shown(setting: Setting) -> tuple[Any, Any]:
    kind = ShownAddress if setting.is_url else setting.type
    return kind | None if setting.is_optional else kind, ...


class _TenantHead(BaseModel):
    instance_name: str
    state: TenantState
    rosters: list[str]


@with_fields({setting.name: _shown(setting) for setting in SETTINGS})
class _TenantWithSettings(_TenantHead):
    """The fields of `TenantView` in their order: its settings stand in the middle."""


class TenantView(_TenantWithSettings):
    """A tenant."""

    accounts: dict[str, int]
    previous_key_until: datetime | None = Field(description="The key before the present one opens until then.")
    created_at: datetime
    updated_at: datetime
    operation: OperationView | None = Field(description="The newest operation.")
    secret_key: str | None = Field(None, description="Shown once, in the answer that made it.")


class TenantLine(BaseModel):
    """A tenant in a list."""

    instance_name: str
    state: TenantState
    callback_url: ShownAddress | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, tenant: Tenant) -> "TenantLine":
        """The tenant as lists show it."""
        return cls(
            instance_name=tenant.instance_name,
            state=tenant.state,
            callback_url=tenant.callback_url,
            created_at=instant(tenant.created_at),
            updated_at=instant(tenant.updated_at),
        )


class TenantPage(Page[TenantLine, str], alias_generator=rows_named("tenants")):
    """Some tenants, by name."""


class KeyRequest(BaseModel):
    """How a key is to be replaced."""

    model_config = ConfigDict(extra="forbid")

    secret_key: str | None = KEY
    overlap_seconds: Overlap = Field(3600, description="How long the present key opens beside the new one.")


class KeyRotation(BaseModel):
    """A key on its way: it opens when the operation has succeeded."""

    operation: OperationView
    secret_key: str | None = Field(description="Shown once.")


class SigningKeyRequest(BaseModel):
    """How the key of webhooks is to be replaced."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: Overlap = Field(3600, description="How long both keys sign.")


class SigningKey(BaseModel):
    """The key that webhooks are signed with (Standard Webhooks)."""

    signing_key: str | None = Field(description="Shown once.")


class AddressRequest(BaseModel):
    """Where the tenant's LHC is to be called back."""

    model_config = ConfigDict(extra="forbid")

    callback_url: CallbackUrl | None = Field(description="Null: the one that the tenant's name gives.")


class HostRequest(BaseModel):
    """The XMPP host that the tenant is to live on."""

    model_config = ConfigDict(extra="forbid")

    xmpp_host: XmppHost


class BulkRequest(BaseModel):
    """What is to be done with many tenants: those of these names, or all that a search finds."""

    model_config = ConfigDict(extra="forbid")

    action: OfMany
    instance_names: InstanceNames | None = None
    state: TenantState | None = Field(None, description="Instead of names: all in this state.")
    search: str | None = Field(
        None, min_length=1, max_length=63, description="Instead of names: all with this part in theirs."
    )


class BulkOutcome(BaseModel):
    """What came of one of them: an operation, a problem, or neither when there was nothing to do."""

    instance_name: str
    operation_id: str | None = None
    problem: Problem | None = None


class Bulk(BaseModel):
    """Operations of many tenants: `GET /v1/operations?bulk_id=` lists them."""

    bulk_id: str
    outcomes: list[BulkOutcome]


router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=IdempotentRoute)


@router.get("", dependencies=[READS], responses=problems())
async def list_tenants(
    services: ServicesDep,
    state: TenantState | None = None,
    search: Annotated[str | None, Query(max_length=63, description="A part of the name.")] = None,
    after: Annotated[str, Query(max_length=63, description="Only names behind this one.")] = "",
    limit: Limit = 50,
) -> TenantPage:
    """The tenants by name; destroyed ones only when asked for by that state."""
    found = await registry.search(services.database, state=state, part=search, after=after, limit=limit + 1)
    return TenantPage.of(found, limit, TenantLine.of, by="instance_name")


@router.post("", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(409))
async def create_tenant(wanted: NewTenant, services: ServicesDep, response: Response, cause: CauseDep) -> TenantView:
    """Create a tenant; 409 when there is one of that name. `Idempotency-Key` makes it safe to repeat."""
    spec = await _spec(wanted.instance_name, wanted)
    return await made_view(services, response, await registry.create(services, wanted.instance_name, spec, cause))


@router.post("/bulk", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems())
async def bulk(wanted: BulkRequest, services: ServicesDep, cause: CauseDep) -> Bulk:
    """Suspend, resume or destroy many tenants; each has an operation of its own, and may be refused on its own."""
    names = await _names(services, wanted)
    bulk_id = operations.new_id()
    outcomes = await requests.request_many(services, names, OperationKind(wanted.action), cause, bulk_id)
    return Bulk(bulk_id=bulk_id, outcomes=[_bulk_outcome(name, outcome) for name, outcome in outcomes])


@router.put(
    "/{instance_name}",
    dependencies=[WRITES],
    responses={**problems(409), 202: {"model": TenantView, "description": "Its provisioning is under way."}},
)
async def put_tenant(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep, wanted: TenantRequest | None = None
) -> TenantView:
    """Create the tenant, or change it. May be repeated at will.

    202 while its provisioning is under way, else 200.
    """
    spec = await _spec(instance_name, wanted or TenantRequest())
    return await made_view(services, response, await registry.put(services, instance_name, spec, cause))


@router.get("/{instance_name}", dependencies=[READS_TENANT], responses=problems(404))
async def get_tenant(instance_name: str, services: ServicesDep) -> TenantView:
    """The tenant as it is now."""
    return await _view(services, await registry.get(services, instance_name))


@router.delete("/{instance_name}", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409))
async def delete_tenant(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep
) -> OperationView:
    """End the tenant: its sessions, accounts and rosters are removed. The operation tells how far it is."""
    return accepted(response, await requests.destroy(services, instance_name, cause))


@router.post(
    "/{instance_name}/suspend",
    dependencies=[WRITES],
    responses={**problems(404, 409), 202: {"model": OperationView, "description": "It is being suspended."}},
)
async def suspend(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep
) -> TenantView | OperationView:
    """Stop the tenant's traffic; accounts and rosters stay. 200 with the tenant when it is suspended already."""
    return await _request(services, response, instance_name, OperationKind.SUSPEND, cause)


@router.post(
    "/{instance_name}/resume",
    dependencies=[WRITES],
    responses={**problems(404, 409), 202: {"model": OperationView, "description": "It is being resumed."}},
)
async def resume(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep
) -> TenantView | OperationView:
    """Let the tenant's traffic start again. 200 with the tenant when it is active already."""
    return await _request(services, response, instance_name, OperationKind.RESUME, cause)


@router.post(
    "/{instance_name}/rotate-keys",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=[WRITES],
    responses=problems(404, 409),
)
async def rotate_keys(
    instance_name: str, services: ServicesDep, response: Response, cause: CauseDep, wanted: KeyRequest | None = None
) -> KeyRotation:
    """Give the tenant a new key. `Idempotency-Key` makes it safe to repeat."""
    wanted = wanted or KeyRequest()
    key = wanted.secret_key or new_key()
    operation = await keys.rotate_keys(
        services, instance_name, cause, key_digest=digest(instance_name, key), overlap=wanted.overlap_seconds
    )
    return KeyRotation(operation=accepted(response, operation), secret_key=key)


@router.post("/{instance_name}/signing-key", dependencies=[ACTS_FOR_TENANT], responses=problems(404, 429))
async def rotate_signing_key(
    instance_name: str, services: ServicesDep, cause: CauseDep, wanted: SigningKeyRequest | None = None
) -> SigningKey:
    """Sign the tenant's webhooks with a new key from now on; while they overlap, with the one before as well."""
    overlap = (wanted or SigningKeyRequest()).overlap_seconds
    key = await keys.rotate_signing_key(services, instance_name, cause, overlap=overlap)
    return SigningKey(signing_key=key)


@router.post(
    "/{instance_name}/address", status_code=HTTPStatus.ACCEPTED, dependencies=[WRITES], responses=problems(404, 409)
)
async def change_address(
    instance_name: str, wanted: AddressRequest, services: ServicesDep, response: Response, cause: CauseDep
) -> OperationView:
    """Move the tenant's callbacks to another address; accounts stay, and what waited goes there at once."""
    url = str(wanted.callback_url) if wanted.callback_url else None
    return accepted(response, await requests.change_address(services, instance_name, cause, url))


@router.post(
    "/{instance_name}/host",
    dependencies=[WRITES],
    responses={**problems(404, 409, 503), 202: {"model": OperationView, "description": "It is being moved."}},
)
async def move_tenant(
    instance_name: str, wanted: HostRequest, services: ServicesDep, response: Response, cause: CauseDep
) -> TenantView | OperationView:
    """Move the tenant to another XMPP host, with all that it has. 200 with the tenant when it lives there already.

    A call of its own, and no setting that `PUT` changes: everybody is logged out, and has another address afterwards.
    """
    operation = await move.start(services, instance_name, wanted.xmpp_host, cause)
    if operation is None:
        return await _view(services, await registry.get(services, instance_name))
    return accepted(response, operation)


async def _names(services: Services, wanted: BulkRequest) -> Sequence[str]:
    by_search = wanted.state is not None or wanted.search is not None
    if (wanted.instance_names is not None) == by_search:
        raise InvalidInputError("instance_names", "give names; or else a state, a part of the name, or both")
    if wanted.instance_names is not None:
        return wanted.instance_names
    found = await registry.search(services.database, state=wanted.state, part=wanted.search, limit=BULK_LIMIT + 1)
    if len(found) > BULK_LIMIT:
        raise InvalidInputError("state", f"more than {BULK_LIMIT:,} tenants are found: search for fewer, or give names")
    return [tenant.instance_name for tenant in found]


async def _spec(instance_name: str, wanted: TenantRequest) -> registry.TenantSpec:
    operator: dict[str, Any] | None = None
    if wanted.operator is not None:
        operator = check_first_operator(
            {
                "username": wanted.operator.username,
                "nick": wanted.operator.nick,
                "scram": (await _verifier(instance_name, wanted.operator)).arguments(),
            }
        )
    return registry.TenantSpec(wanted.changes(), secret_key=wanted.secret_key, operator=operator)


async def _verifier(instance_name: str, operator: FirstOperator) -> Verifier:
    password = operator.password.get_secret_value()
    try:
        passwords.check_chosen(password, unlike=passwords.names(operator.username, instance_name))
        return await make_verifier(password)
    except InvalidInputError as error:
        raise InvalidInputError("operator.password", error.rule) from None


async def made_view(services: Services, response: Response, created: registry.Stored) -> TenantView:
    """The answer to who made a tenant, or changed it; the only one that shows its key."""
    if created.operation is not None:
        accepted(response, created.operation)
    view = await _view(services, created.tenant)
    view.secret_key = created.secret_key
    return view


async def _request(
    services: Services, response: Response, instance_name: str, kind: OperationKind, cause: Cause
) -> TenantView | OperationView:
    operation = await requests.request(services, instance_name, kind, cause)
    if operation is None:
        return await _view(services, await registry.get(services, instance_name))
    return accepted(response, operation)


def accepted(response: Response, operation: Operation) -> OperationView:
    """The answer to a request whose work is under way."""
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = f"/v1/operations/{operation.id}"
    return OperationView.of(operation)


def _bulk_outcome(instance_name: str, outcome: Operation | DomainError | None) -> BulkOutcome:
    match outcome:
        case DomainError():
            return BulkOutcome(instance_name=instance_name, problem=describe(outcome))
        case None:
            return BulkOutcome(instance_name=instance_name)
    return BulkOutcome(instance_name=instance_name, operation_id=outcome.id)


async def _view(services: Services, tenant: Tenant) -> TenantView:
    async with services.database.read() as session:
        accounts = await registry.count_accounts(session, tenant.instance_name)
    operation = await operations.latest(services.database, tenant.instance_name)
    own = {"rosters", "accounts", "operation", "secret_key"}
    return TenantView(
        **{name: getattr(tenant, name) for name in TenantView.model_fields if name not in own},
        rosters=registry.groups(services.naming, tenant.instance_name),
        accounts={kind.value: count for kind, count in accounts.items()},
        operation=OperationView.of(operation) if operation else None,
    )
