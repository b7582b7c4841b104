"""Two pictures of a tenant: what differs is found, and what was mended differs no more."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tenants import rosters
from tenants.drift import DriftKind, Known, Pictures, Seen
from tenants.ejabberd import Roster
from tenants.models import AccountState
from tenants.naming import AccountKind, AccountName, Naming, RosterKind

NAMING = Naming(hosting=True)
NOW = 1_700_000_000.0
OLD, YOUNG = NOW - 1000, NOW - 10

names = st.one_of(
    st.integers(1, 6).map(lambda number: AccountName(AccountKind.VISITOR, str(number), "acme")),
    st.integers(1, 3).map(lambda number: AccountName(AccountKind.CHAT, str(number), "acme")),
    st.sampled_from("abc").map(lambda letter: AccountName(AccountKind.OPERATOR, letter, "acme")),
)
known = st.dictionaries(names, st.tuples(st.sampled_from(AccountState), st.sampled_from([OLD, YOUNG])), max_size=8).map(
    lambda rows: {NAMING.username(name): Known(name, *row) for name, row in rows.items()}
)
usernames = st.sets(names.map(NAMING.username))
displayed = st.sampled_from([(), ("operators.acme", "visitors.acme"), ("visitors.acme",)])


@st.composite
def seen(draw: st.DrawFn) -> Seen:
    there = Seen(draw(usernames))
    for kind in draw(st.sets(st.sampled_from(RosterKind))):
        there.rosters[kind] = Roster("x", "y", draw(displayed)), frozenset(draw(usernames))
    return there


def mended(pictures: Pictures) -> Pictures:
    """As ejabberd and the registry are after each difference was mended, or decided by a person."""
    rows, accounts = dict(pictures.known), set(pictures.there.accounts)
    members = {kind: set(pictures.there.members(kind)) for kind in RosterKind}

    def forget(username: str) -> None:
        rows.pop(username, None)
        for kind in RosterKind:
            members[kind].discard(username)

    for difference in pictures.differences():
        username = difference.subject
        match difference.kind:
            case DriftKind.MEMBER_MISSING:
                members[rows[username].name.roster].add(username)
            case DriftKind.ACCOUNT_UNKNOWN | DriftKind.OPERATOR_UNKNOWN:
                rows[username] = Known(NAMING.parse_username(username), AccountState.ACTIVE, NOW)
            case DriftKind.ACCOUNT_PENDING if username in accounts:
                rows[username] = replace(rows[username], state=AccountState.ACTIVE, created_at=NOW)
            case DriftKind.MEMBER_EXTRA | DriftKind.ACCOUNT_LOST | DriftKind.OPERATOR_LOST | DriftKind.ACCOUNT_PENDING:
                forget(username)
    put_right = {kind: (rosters.wanted(NAMING, "acme", kind), frozenset(members[kind])) for kind in RosterKind}
    return replace(pictures, there=Seen(accounts, put_right), known=rows)


@given(seen(), known)
def test_what_was_mended_differs_no_more(there: Seen, rows: dict[str, Known]) -> None:
    pictures = Pictures(NAMING, "acme", there, rows, NOW)
    assert list(mended(pictures).differences()) == []


@given(known)
def test_equal_pictures_do_not_differ(rows: dict[str, Known]) -> None:
    settled = {name: one for name, one in rows.items() if one.state is AccountState.ACTIVE}
    members = {kind: frozenset(name for name, one in settled.items() if one.name.roster is kind) for kind in RosterKind}
    there = Seen(set(settled), {kind: (rosters.wanted(NAMING, "acme", kind), members[kind]) for kind in RosterKind})
    assert list(Pictures(NAMING, "acme", there, settled, NOW).differences()) == []


@given(seen(), known)
def test_what_is_young_is_left_alone(there: Seen, rows: dict[str, Known]) -> None:
    young = {name: replace(one, created_at=YOUNG) for name, one in rows.items()}
    found = {one.subject for one in Pictures(NAMING, "acme", there, young, NOW).differences()}
    assert not found & young.keys()


def test_an_operator_whom_nobody_knows_is_for_a_person_to_decide() -> None:
    there = Seen({"eve.acme", "visitor.1.acme"})
    found = {one.subject: one.kind for one in Pictures(NAMING, "acme", there, {}, NOW).differences()}
    assert found["eve.acme"] is DriftKind.OPERATOR_UNKNOWN
    assert found["visitor.1.acme"] is DriftKind.ACCOUNT_UNKNOWN
