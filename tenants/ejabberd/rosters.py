"""The two shared rosters of a tenant: visitors show nobody, operators show both."""

from tenants.core.naming import Naming, RosterKind, RosterName
from tenants.ejabberd.client import Roster


def group_of(naming: Naming, instance_name: str, kind: RosterKind) -> str:
    """The name of the tenant's shared roster group."""
    return naming.group(RosterName(kind, instance_name))


def wanted(naming: Naming, instance_name: str, kind: RosterKind) -> Roster:
    """What the roster is to be. Operators see each other and all visitors; visitors see nobody."""
    displayed: tuple[str, ...] = ()
    if kind is RosterKind.OPERATORS:
        displayed = tuple(group_of(naming, instance_name, shown) for shown in (kind, RosterKind.VISITORS))
    label = kind.value.capitalize()
    return Roster(label=label, description=f"{label} of {instance_name}", displayed=displayed)
