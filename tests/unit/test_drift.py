"""Two pictures of a tenant: what differs is found, and what was mended differs no more."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tenants.core.naming import AccountKind, AccountName, Naming, RosterKind
from tenants.ejabberd import rosters
from tenants.ejabberd.client import Roster
from tenants.store.models import AccountState, RoomState
from tenants.workflows.drift import DriftKind, KnownAccount, KnownRoom, Pictures, Seen

NAMING = Naming(hosting=True)
NOW = 1_700_000_000.0
OLD, YOUNG = NOW - 1000, NOW - 10

names = st.one_of(
    st.integers(1, 6).map(lambda number: AccountName(AccountKind.VISITOR, str(number), "acme")),
    st.integers(1, 3).map(lambda number: AccountName(AccountKind.CHAT, str(number), "acme")),
    st.sampled_from("abc").map(lambda letter: AccountName(AccountKind.OPERATOR, letter, "acme")),
)
times = st.sampled_from([OLD, YOUNG])
known = st.dictionaries(names, st.tuples(st.sampled_from(AccountState), times, times), max_size=8).map(
    lambda rows: {NAMING.username(name): KnownAccount(name, *row) for name, row in rows.items()}
)
usernames = st.sets(names.map(NAMING.username))
members = st.sets(
    st.one_of(names.map(NAMING.username), st.sampled_from(["boss.other", "visitors.1.acme", "admin", "visitor.x.acme"]))
)
displayed = st.sampled_from([(), ("operators.acme", "visitors.acme"), ("visitors.acme",)])


@st.composite
def seen(draw: st.DrawFn) -> Seen:
    there = Seen(draw(usernames))
    for kind in draw(st.sets(st.sampled_from(RosterKind))):
        there.rosters[kind] = Roster("x", "y", draw(displayed)), frozenset(draw(members))
    return there


class Mended:
    """Both pictures as they are after each difference was mended, or decided by a person."""

    def __init__(self, before: Pictures) -> None:
        self.rows, self.accounts = dict(before.known), before.there.accounts
        self.inside = {kind: set(before.there.members(kind)) for kind in RosterKind}
        for difference in before.differences():
            self._mend(difference.kind, difference.subject)
        self.pictures = replace(before, there=right(self.accounts, self.inside), known=self.rows)

    def _mend(self, kind: DriftKind, username: str) -> None:
        match kind:
            case DriftKind.MEMBER_MISSING | DriftKind.ACCOUNT_UNKNOWN | DriftKind.OPERATOR_UNKNOWN:
                self._adopt(username)
            case DriftKind.ACCOUNT_PENDING if username in self.accounts:
                self._adopt(username)
            case DriftKind.MEMBER_EXTRA if username in self.accounts:
                for roster in set(RosterKind) - {NAMING.parse_username(username).roster}:
                    self.inside[roster].discard(username)
            case DriftKind.ROSTER:
                pass
            case _:
                self.rows.pop(username, None)
                for members_ in self.inside.values():
                    members_.discard(username)

    def _adopt(self, username: str) -> None:
        name = NAMING.parse_username(username)
        unknown = KnownAccount(name, AccountState.ACTIVE, OLD, OLD)
        self.rows[username] = replace(self.rows.get(username, unknown), state=AccountState.ACTIVE)
        self.inside[name.roster].add(username)


def right(accounts: set[str], inside: Mapping[RosterKind, AbstractSet[str]]) -> Seen:
    """What ejabberd holds when both rosters are what they should be."""
    put_right = {kind: (rosters.wanted(NAMING, "acme", kind), frozenset(inside[kind])) for kind in RosterKind}
    return Seen(set(accounts), put_right)


def equal(usernames_: set[str]) -> Pictures:
    """Both pictures of a tenant that has these accounts and nothing else."""
    rows = {one: KnownAccount(NAMING.parse_username(one), AccountState.ACTIVE, OLD, OLD) for one in usernames_}
    inside = {kind: {one for one in rows if rows[one].name.roster is kind} for kind in RosterKind}
    return Pictures(NAMING, "acme", right(usernames_, inside), rows, NOW)


@given(seen(), known)
def test_what_was_mended_differs_no_more(there: Seen, rows: dict[str, KnownAccount]) -> None:
    pictures = Pictures(NAMING, "acme", there, rows, NOW)
    assert list(Mended(pictures).pictures.differences()) == []


@given(usernames)
def test_equal_pictures_do_not_differ(accounts: set[str]) -> None:
    assert list(equal(accounts).differences()) == []


@given(usernames, names.map(NAMING.username), st.sampled_from(["accounts", "rows", *RosterKind]))
def test_each_single_change_is_found(accounts: set[str], username: str, where: str | RosterKind) -> None:
    """A name more, or less, in one of the four places."""
    pictures = equal(accounts)
    if where == "accounts":
        pictures.there.accounts ^= {username}
    elif where == "rows":
        one = KnownAccount(NAMING.parse_username(username), AccountState.ACTIVE, OLD, OLD)
        less = {name: known_ for name, known_ in pictures.known.items() if name != username}
        pictures = replace(pictures, known=less if username in accounts else {**less, username: one})
    else:
        roster, inside = pictures.there.rosters[RosterKind(where)]
        pictures.there.rosters[RosterKind(where)] = roster, inside ^ {username}
    assert username in {one.subject for one in pictures.differences()}


@given(seen(), known)
def test_what_is_young_is_left_alone(there: Seen, rows: dict[str, KnownAccount]) -> None:
    young = {name: replace(one, created_at=YOUNG, last_active_at=YOUNG) for name, one in rows.items()}
    found = {one.subject for one in Pictures(NAMING, "acme", there, young, NOW).differences()}
    assert not found & young.keys()


def test_an_operator_whom_nobody_knows_is_for_a_person_to_decide() -> None:
    there = Seen({"eve.acme", "visitor.1.acme"})
    found = {one.subject: one.kind for one in Pictures(NAMING, "acme", there, {}, NOW).differences()}
    assert found["eve.acme"] is DriftKind.OPERATOR_UNKNOWN
    assert found["visitor.1.acme"] is DriftKind.ACCOUNT_UNKNOWN


def found_among(
    inside: dict[RosterKind, set[str]], accounts: set[str], rows: dict[str, KnownAccount]
) -> set[tuple[str, str]]:
    pictures = Pictures(NAMING, "acme", right(accounts, inside), rows, NOW)
    return {(one.kind, one.subject) for one in pictures.differences()}


def test_a_visitor_among_the_operators_is_one_too_many() -> None:
    rows = {"visitor.1.acme": KnownAccount(NAMING.parse_username("visitor.1.acme"), AccountState.ACTIVE, OLD, OLD)}
    everywhere = {kind: {"visitor.1.acme"} for kind in RosterKind}
    assert found_among(everywhere, {"visitor.1.acme"}, rows) == {(DriftKind.MEMBER_EXTRA, "visitor.1.acme")}


def test_members_with_names_of_others_are_for_a_person_to_decide() -> None:
    strangers = {RosterKind.VISITORS: set[str](), RosterKind.OPERATORS: {"boss.my-acme", "admin", "visitors.7.acme"}}
    assert found_among(strangers, set(), {}) == {
        (DriftKind.MEMBER_FOREIGN, "boss.my-acme"),
        (DriftKind.UNREADABLE, "admin"),
        (DriftKind.UNREADABLE, "visitors.7.acme"),
    }


def test_a_registration_that_is_tried_again_is_left_to_it() -> None:
    one = KnownAccount(NAMING.parse_username("visitor.1.acme"), AccountState.PENDING, OLD, YOUNG)
    empty = {kind: set[str]() for kind in RosterKind}
    assert found_among(empty, set(), {"visitor.1.acme": one}) == set()


def test_rooms_that_differ() -> None:
    pictures = equal(set())
    pictures.there.rooms = {"both.acme", "stray.acme", "half-removed.acme"}
    known = {
        "both.acme": KnownRoom(RoomState.ACTIVE, OLD),
        "lost.acme": KnownRoom(RoomState.ACTIVE, OLD),
        "half-made.acme": KnownRoom(RoomState.PENDING, OLD),
        "half-removed.acme": KnownRoom(RoomState.REMOVING, OLD),
        "new.acme": KnownRoom(RoomState.PENDING, YOUNG),
    }
    found = list(replace(pictures, rooms=known).differences())
    assert {one.kind for one in found} == {DriftKind.ROOM}
    expected = {"lost.acme", "half-made.acme", "half-removed.acme", "stray.acme"}
    assert {one.subject for one in found} == expected


def test_a_contact_without_an_account_is_found_unless_the_registry_knows_the_name() -> None:
    pictures = equal({"bob.acme", "visitor.1.acme"})
    pictures.there.strays.update({"visitor.1.acme", "visitor.2.acme"})
    assert [(one.kind, one.subject) for one in pictures.differences()] == [(DriftKind.CONTACT_GONE, "visitor.2.acme")]
