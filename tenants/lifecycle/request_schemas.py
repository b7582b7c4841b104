"""Schemas of requests about tenants: one for each request, and one for each part that several requests have.

The panel's API and the Celery tasks `tenants.*` accept the same values, so both use these schemas.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StrictBool, ValidationError

from tenants.core.digests import check_digest
from tenants.core.errors import InvalidInputError
from tenants.lifecycle import audit
from tenants.lifecycle.served_hosts import LONGEST_HOST
from tenants.lifecycle.tenant_settings import TenantSettings, check_first_operator

MAX_OVERLAP = 30 * 86400.0
"""Seconds that a key may open beside its successor."""
BULK_LIMIT = 1000
"""Tenants in one request."""
_LONGEST_NAME = 63


def _rule_of(error: InvalidInputError) -> ValueError:
    return ValueError(error.rule)


def _digest(value: str) -> str:
    try:
        return check_digest("", value)
    except InvalidInputError as error:
        raise _rule_of(error) from None


# PostgreSQL takes no text with a zero byte
InstanceName = Annotated[str, Field(strict=True, max_length=_LONGEST_NAME, pattern=r"^[^\x00]*$")]
"""Text that may be a tenant's name; whether there is such a tenant is seen when it is looked up."""
InstanceNames = Annotated[list[InstanceName], Field(strict=True, min_length=1, max_length=BULK_LIMIT)]
Reason = Annotated[str, Field(strict=True, max_length=audit.REASON_LIMIT, pattern=r"^[^\x00]*$")]
KeyDigest = Annotated[str, Field(strict=True), AfterValidator(_digest)]
Overlap = Annotated[float, Field(strict=True, ge=0, le=MAX_OVERLAP, allow_inf_nan=False)]
CallbackUrl = Annotated[HttpUrl, Field(max_length=2000)]
XmppHost = Annotated[
    str, Field(strict=True, max_length=LONGEST_HOST, pattern=r"^[^\x00]*$", description="One of those that are served.")
]
OfMany = Literal["suspend", "resume", "destroy"]
"""What can be done with many tenants at once."""


class Request(BaseModel):
    """The base of all requests: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = None


class OneTenant(Request):
    """To suspend, resume or destroy a tenant."""

    instance_name: InstanceName


class Import(OneTenant):
    """To read a tenant that exists in ejabberd."""

    settings: TenantSettings | None = None
    key_digest: KeyDigest | None = None


class Provision(Import):
    """To make a tenant, or to change its settings. `check_first_operator` says what `operator` is."""

    operator: dict[str, Any] | None = None

    def first_operator(self) -> dict[str, Any] | None:
        """The first operator, checked.

        Raises:
            InvalidInputError: naming the first field that breaks a rule.
        """
        return None if self.operator is None else check_first_operator(self.operator)


class ChangeAddress(OneTenant):
    """To move a tenant's callbacks; without a URL to the one that its name gives."""

    callback_url: CallbackUrl | None = None


class Move(OneTenant):
    """To move a tenant to another XMPP host."""

    xmpp_host: XmppHost


class RotateKeys(OneTenant):
    """To give a tenant the key of that digest."""

    key_digest: KeyDigest
    overlap_seconds: Overlap = 3600.0


class Reconcile(Request):
    """To compare one tenant, or all, with ejabberd."""

    instance_name: InstanceName | None = None
    dry_run: StrictBool = False


class ManyTenants(Request):
    """To suspend, resume or destroy many."""

    kind: OfMany
    instance_names: InstanceNames


Model = TypeVar("Model", bound=BaseModel)


def check(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The request that came as plain values.

    Raises:
        InvalidInputError: naming the first field that breaks a rule, and the rule.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "arguments"
        raise InvalidInputError(field, first["msg"].removeprefix("Value error, ")) from None
