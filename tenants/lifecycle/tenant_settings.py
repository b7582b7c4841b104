"""What a tenant may be told to be, checked by the declaration of its settings (`tenants.store.models`)."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, create_model

from config.settings import Settings
from tenants.core.errors import InvalidInputError
from tenants.core.naming import check_operator
from tenants.core.scram import Verifier
from tenants.outbound import callback_urls
from tenants.store.models import SETTINGS, Setting, Tenant

Schema = TypeVar("Schema", bound=BaseModel)

_LONGEST_NICK = 200
_FIXED = frozenset(setting.name for setting in SETTINGS if setting.is_fixed)


def with_fields(fields: Mapping[str, Any]) -> Callable[[type[Schema]], type[Schema]]:
    """A decorator that gives a schema more fields, behind its own: each has a type, and a default or a `Field`."""

    def extend(schema: type[Schema]) -> type[Schema]:
        return create_model(
            schema.__name__, __base__=schema, __doc__=schema.__doc__, __module__=schema.__module__, **fields
        )

    return extend


def _field(setting: Setting) -> tuple[Any, Any]:
    kind = HttpUrl if setting.is_url else setting.type
    # text is not converted to a number or a boolean
    strict = True if kind in {bool, int, float} else None
    bounds: dict[str, Any] = dict(setting.bounds or {})
    return kind | None, Field(None, strict=strict, description=setting.description, **bounds)


@with_fields({setting.name: _field(setting) for setting in SETTINGS})
class TenantSettings(BaseModel):
    """A tenant's settings. What is left out keeps its value; null takes it back to its default."""

    model_config = ConfigDict(extra="forbid")

    def changes(self) -> dict[str, Any]:
        """The columns of the tenant's row that are to change."""
        return self.model_dump(mode="json", exclude_unset=True, include={setting.name for setting in SETTINGS})


def check_first_operator(value: Mapping[str, Any]) -> dict[str, Any]:
    """The first operator of a tenant that is being made, checked.

    It has a `username` (without the instance), a `nick` or none, and `scram`, the verifier of the password.

    Raises:
        InvalidInputError: naming the first field that breaks a rule.
    """
    if unknown := set(value) - {"username", "nick", "scram"}:
        raise InvalidInputError(f"operator.{min(unknown)}", "is no field of an operator")
    username, nick = value.get("username"), value.get("nick")
    if not isinstance(username, str):
        raise InvalidInputError("operator.username", "must be a string")
    if nick is not None and not (isinstance(nick, str) and 0 < len(nick) <= _LONGEST_NICK and nick.isprintable()):
        raise InvalidInputError("operator.nick", f"must be a string of 1 to {_LONGEST_NICK} printable characters")
    return {
        "username": check_operator(username, "operator.username"),
        "nick": nick,
        "scram": Verifier.read(value.get("scram"), "operator.scram").arguments(),
    }


def check_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that came as plain values, as the columns of a tenant's row.

    Raises:
        InvalidInputError: naming the first field that breaks a rule.
    """
    try:
        return TenantSettings.model_validate(values).changes()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "settings"
        raise InvalidInputError(field, first["msg"]) from None


def defaults(settings: Settings) -> dict[str, Any]:
    """The settings of a tenant of which nothing was said, as columns of its row."""
    return {setting.name: setting.beginning(settings) for setting in SETTINGS}


def apply(tenant: Tenant, changes: Mapping[str, Any], settings: Settings, *, new: bool = False) -> list[str]:
    """Change the tenant's row, and give the names of the columns that are different now.

    None takes a setting back to its default. The address may be one in which `***` stands for the known password.

    Raises:
        InvalidInputError: what a tenant is made with is to change, of one that is not new.
    """
    default = defaults(settings)
    values = {name: default[name] if value is None else value for name, value in changes.items()}
    if "callback_url" in values:
        values["callback_url"] = callback_urls.as_meant(values["callback_url"], tenant.callback_url)
    changed = [name for name, value in values.items() if getattr(tenant, name) != value]
    if not new and (fixed := _FIXED.intersection(changed)):
        name = min(fixed)
        raise InvalidInputError(
            name,
            f"is chosen when a tenant is made: that of '{tenant.instance_name}' is {getattr(tenant, name)}."
            f" `orchestrator tenant move` and POST /v1/tenants/{tenant.instance_name}/host move it",
        )
    for name in changed:
        setattr(tenant, name, values[name])
    return changed
