"""One call of LHC's extension, whichever face it came to: what it brought, and whom it may concern."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from tenants.core.errors import ForeignNameError, InvalidInputError
from tenants.core.naming import (
    AccountKind,
    AccountName,
    RosterName,
    check_instance,
    local_part,
    rooms_service,
)
from tenants.lifecycle import hosts, served_hosts
from tenants.process.rate_limits import CallKind
from tenants.process.services import Services

_TEXTS = frozenset(
    {
        *("jid", "pass", "host", "nick", "status", "operator_username", "message"),
        *("user", "password", "hostlogin", "group", "grouphost", "name", "desc", "display"),
    }
)
"""All keys of the JSON calls whose values are strings."""


class MissingKeyError(Exception):
    """A required key is absent."""


class ApplicationError(Exception):
    """An error that LHC is told in the words of its old server."""


def tenant_of_path(confined_to: str | None) -> str | None:
    """The tenant of a call's path for the log, if it is a name at all: before it is known who calls."""
    try:
        return check_instance(confined_to) if confined_to is not None else None
    except InvalidInputError:
        return None


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        body: the keys it brought.
        confined_to: the tenant whose names alone it may hold; None for any tenant's.
        hosting_wide: its credentials are the hosting company's, not a tenant's own.
        host: the XMPP host of the tenant whom it concerns, which alone it may name; see `located`.
    """

    services: Services
    body: Mapping[str, Any]
    confined_to: str | None
    hosting_wide: bool
    host: str = field(default="", kw_only=True)

    async def located(self, named: Any) -> Self:
        """The call, with the host of the tenant whom it concerns; of an unknown one, that which it names, if served."""
        instance_name = self.tenant()
        host = None if instance_name is None else await hosts.find(self.services, instance_name)
        if host is None:
            served = await served_hosts.served(self.services)
            host = named.lower() if isinstance(named, str) and named.lower() in served else served[0]
        return replace(self, host=host)

    def require(self, *keys: str) -> None:
        """Check that the keys are there, whatever their values, as the old server did; and that texts are texts.

        Raises:
            MissingKeyError: one is absent.
            InvalidInputError: the value of a key that we know is not a string.
        """
        if any(key not in self.body for key in keys):
            raise MissingKeyError
        for key in _TEXTS & self.body.keys():
            self.text(key)

    def text(self, key: str, default: str = "") -> str:
        """The value of a key.

        Raises:
            InvalidInputError: it is not a string.
        """
        value = self.body.get(key, default)
        if not isinstance(value, str):
            raise InvalidInputError(key, "must be a string")
        return value

    def account(self, key: str) -> AccountName:
        """The account that the value names, as a username or as a JID of the tenant's host."""
        username = local_part(self.text(key), self.host, key)
        name = self.services.naming.parse_username(username, key)
        self._check_tenant(name.instance, key)
        return name

    def visitor(self, key: str) -> AccountName:
        """The visitor's or chat's account that the value names."""
        name = self.account(key)
        if name.kind is AccountKind.OPERATOR:
            raise InvalidInputError(key, "must be a visitor's or chat's account")
        return name

    def roster(self) -> RosterName:
        """The shared roster that `group` names; its host is checked too."""
        roster = self.services.naming.parse_group(self.text("group"))
        self._check_tenant(roster.instance, "group")
        if "grouphost" in self.body:
            self.check_host("grouphost")
        return roster

    async def count(self, kind: CallKind = CallKind.OTHER) -> None:
        """Count the call for the tenant whom it concerns.

        Raises:
            QuotaExceededError: the tenant makes too many.
        """
        instance_name = self.tenant()
        if instance_name is not None:
            await self.services.calls.admit(instance_name, kind)

    def tenant(self) -> str | None:
        """The tenant whom the call concerns; None when it names none, and will be refused."""
        if self.confined_to is not None:
            return self.confined_to
        try:
            for key in ("jid", "user", "from"):
                if key in self.body:
                    return self.services.naming.parse_username(self.text(key).partition("@")[0], key).instance
            return self.services.naming.parse_group(self.text("group")).instance
        except InvalidInputError:
            return None

    def check_host(self, key: str = "host") -> None:
        """Raise InvalidInputError unless the value is the tenant's host."""
        self._check_is(key, self.host)

    def check_rooms_service(self, key: str) -> None:
        """Raise InvalidInputError unless the value is the domain of the tenant's rooms."""
        self._check_is(key, rooms_service(self.host))

    def _check_is(self, key: str, domain: str) -> None:
        if self.text(key).lower() != domain:
            raise ForeignNameError(key, f"must be {domain}")

    def _check_tenant(self, instance_name: str, key: str) -> None:
        if self.confined_to is not None and instance_name != self.confined_to:
            this = "address" if self.hosting_wide else "key"
            raise ForeignNameError(key, f"must be of '{self.confined_to}': this {this} is that tenant's own")
