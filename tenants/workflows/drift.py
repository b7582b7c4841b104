"""Drift: how what ejabberd holds of a tenant differs from what the registry says. Without any I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tenants.core.errors import InvalidInputError
from tenants.core.naming import AccountKind, AccountName, Naming, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.store.models import AccountState, RoomState

OLD_SPELLING = "the old spelling of a visitor's name"
YOUNG_SECONDS = 60.0
"""What is younger may be half done just now, so it is not compared."""
PENDING_SECONDS = 300.0
"""An account that is pending for longer was given up by who began it."""


class DriftKind(StrEnum):
    """How ejabberd may differ from the registry, and what mending does."""

    ROSTER = "roster"
    """A shared roster is missing, or other than it should be: it is written again; its members stay."""
    MEMBER_MISSING = "member_missing"
    """An account is no member of its roster: it is made one."""
    MEMBER_EXTRA = "member_extra"
    """A member that is no account at all, or one for the other roster: it is removed from this one."""
    MEMBER_FOREIGN = "member_foreign"
    """A member that bears another tenant's name: a person decides what was meant."""
    ACCOUNT_UNKNOWN = "account_unknown"
    """ejabberd has an account of the tenant's that the registry does not know: the registry learns of it."""
    OPERATOR_UNKNOWN = "operator_unknown"
    """The same, of an operator who is not in the roster either: a person decides whether it is to be one."""
    ACCOUNT_LOST = "account_lost"
    """A visitor's or chat's account is gone: the registry forgets it, and the next page view makes it again."""
    OPERATOR_LOST = "operator_lost"
    """An operator's account is gone: a person must set a password, which nobody else knows."""
    ACCOUNT_PENDING = "account_pending"
    """A registration that was never finished: what ejabberd has decides what becomes of it."""
    CONTACT_GONE = "contact_gone"
    """Somebody's own contacts hold a name that has no account: it is removed from them."""
    ROOM = "room"
    """A group chat is missing, or there though the registry does not know it: it is made, or removed."""
    LEFTOVER = "leftover"
    """Something is there of a tenant that was destroyed: it is removed."""
    UNKNOWN_TENANT = "unknown_tenant"
    """Something is there of a name that the registry does not know: a person may import it."""
    OTHER_HOST = "other_host"
    """Something bears the tenant's name on a host that is not the tenant's: a person removes it."""
    UNREADABLE = "unreadable"
    """A name, of an account or in a roster, that cannot be one of ours: it is only reported."""


FOR_A_PERSON = (
    DriftKind.MEMBER_FOREIGN,
    DriftKind.OPERATOR_UNKNOWN,
    DriftKind.OPERATOR_LOST,
    DriftKind.UNKNOWN_TENANT,
    DriftKind.OTHER_HOST,
    DriftKind.UNREADABLE,
)
"""Reported, never mended."""
OF_LOSS = (
    DriftKind.ROSTER,
    DriftKind.MEMBER_EXTRA,
    DriftKind.ACCOUNT_LOST,
    DriftKind.CONTACT_GONE,
    DriftKind.ROOM,
    DriftKind.LEFTOVER,
)
"""To mend them something is removed, forgotten or made anew: of an ejabberd that has lost its data, all."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference of one tenant. `subject`: the account, roster, room, tenant or host that differs."""

    kind: DriftKind
    subject: str
    detail: str | None = None


@dataclass(slots=True)
class Seen:
    """What ejabberd holds of one tenant; only names that can be read."""

    accounts: set[str] = field(default_factory=set)
    rosters: dict[RosterKind, tuple[Roster, frozenset[str]]] = field(default_factory=dict)
    """Each with its members."""

    rooms: set[str] = field(default_factory=set)
    """Their local parts."""

    strays: set[str] = field(default_factory=set)
    """Names in somebody's own contacts that have no account."""

    def members(self, kind: RosterKind) -> frozenset[str]:
        """Who is in that roster; nobody when it is missing."""
        return self.rosters[kind][1] if kind in self.rosters else frozenset()

    def counts(self) -> str:
        """How much there is, for a person."""
        return f"{len(self.accounts)} accounts, {len(self.rosters)} shared rosters, {len(self.rooms)} rooms"


@dataclass(frozen=True, slots=True)
class KnownAccount:
    """What the registry says of one account."""

    name: AccountName
    state: AccountState
    created_at: float
    last_active_at: float


@dataclass(frozen=True, slots=True)
class KnownRoom:
    """What the registry says of one room."""

    state: RoomState
    changed_at: float


@dataclass(frozen=True, slots=True)
class Pictures:
    """What ejabberd and the registry have of one tenant, by username and room, and when it was read."""

    naming: Naming
    instance_name: str
    there: Seen
    known: Mapping[str, KnownAccount]
    now: float
    rooms: Mapping[str, KnownRoom] = field(default_factory=dict)

    def differences(self) -> Iterator[Difference]:
        """All of them; rosters before their members."""
        yield from self._rosters()
        yield from self._members()
        yield from self._accounts()
        # of an account that the registry knows all goes, if it is lost
        yield from (Difference(DriftKind.CONTACT_GONE, username) for username in self.there.strays - self.known.keys())
        yield from self._rooms()

    def _rosters(self) -> Iterator[Difference]:
        """Both are to be there; what they are called is the tenant's matter (LHC writes label and description)."""
        for kind in RosterKind:
            group = rosters.group_of(self.naming, self.instance_name, kind)
            if kind not in self.there.rosters:
                yield Difference(DriftKind.ROSTER, group, "it is missing")
            elif self.there.rosters[kind][0].displayed != self._wanted(kind).displayed:
                yield Difference(DriftKind.ROSTER, group, "it shows other rosters than it should")

    def _wanted(self, kind: RosterKind) -> Roster:
        return rosters.wanted(self.naming, self.instance_name, kind)

    def _members(self) -> Iterator[Difference]:
        for username, one in self.known.items():
            is_stable = one.state is AccountState.ACTIVE and self._is_old(one)
            if is_stable and username in self.there.accounts and username not in self.there.members(one.name.roster):
                yield Difference(DriftKind.MEMBER_MISSING, username)
        extra: dict[str, list[str]] = {}
        for kind in RosterKind:
            group = rosters.group_of(self.naming, self.instance_name, kind)
            for username in self.there.members(kind):
                name = self._name(username)
                if isinstance(name, Difference):
                    yield name
                elif self._is_extra(username, name, kind):
                    extra.setdefault(username, []).append(group)
        for username, groups in extra.items():
            yield Difference(DriftKind.MEMBER_EXTRA, username, f"in {' and '.join(groups)}")

    def _name(self, member: str) -> AccountName | Difference:
        """What the member is called, or what is wrong with that."""
        if member in self.known:
            return self.known[member].name
        try:
            name = self.naming.parse_username(member)
        except InvalidInputError as error:
            return Difference(DriftKind.UNREADABLE, member, f"in a roster: {error.rule}")
        if name.instance != self.instance_name:
            return Difference(DriftKind.MEMBER_FOREIGN, member)
        if self.naming.username(name) != member:
            return Difference(DriftKind.UNREADABLE, member, OLD_SPELLING)
        return name

    def _is_extra(self, username: str, name: AccountName, kind: RosterKind) -> bool:
        one = self.known.get(username)
        if one is not None:
            return name.roster is not kind and one.state is not AccountState.REMOVING and self._is_old(one)
        return name.roster is not kind or username not in self.there.accounts

    def _accounts(self) -> Iterator[Difference]:
        for username, one in self.known.items():
            if one.state is AccountState.PENDING and one.last_active_at < self.now - PENDING_SECONDS:
                yield Difference(DriftKind.ACCOUNT_PENDING, username)
            elif one.state is AccountState.ACTIVE and username not in self.there.accounts and self._is_old(one):
                operator = one.name.kind is AccountKind.OPERATOR
                yield Difference(DriftKind.OPERATOR_LOST if operator else DriftKind.ACCOUNT_LOST, username)
        for username in self.there.accounts - self.known.keys():
            operator = self.naming.parse_username(username).kind is AccountKind.OPERATOR
            doubtful = operator and username not in self.there.members(RosterKind.OPERATORS)
            yield Difference(DriftKind.OPERATOR_UNKNOWN if doubtful else DriftKind.ACCOUNT_UNKNOWN, username)

    def _rooms(self) -> Iterator[Difference]:
        for local, one in self.rooms.items():
            if one.changed_at >= self.now - YOUNG_SECONDS:
                continue
            if one.state is not RoomState.ACTIVE:
                yield Difference(DriftKind.ROOM, local, f"it is {one.state} for too long")
            elif local not in self.there.rooms:
                yield Difference(DriftKind.ROOM, local, "it is missing")
        for local in sorted(self.there.rooms - self.rooms.keys()):
            yield Difference(DriftKind.ROOM, local, "the registry does not know it")

    def _is_old(self, one: KnownAccount) -> bool:
        return one.created_at < self.now - YOUNG_SECONDS
