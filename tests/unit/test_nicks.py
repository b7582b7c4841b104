"""Names in rooms: whatever is given, what comes out can be a resource (RFC 6122, B), or nothing does."""

import stringprep

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from slixmpp import JID

from tenants.core.errors import InvalidInputError
from tenants.core.naming import MAX_NICK_BYTES, check_direction, check_nick, mend_nick, prepare_nick

nicks = st.one_of(
    st.text(max_size=40),
    # what the rule of two directions is about
    st.text(st.sampled_from("דוד שלום علي (2)ab-\u0660\u064b\u00ad\u200f😀ﷺ"), max_size=12),
)


@given(nicks)
@example("דוד (כהן)")
@example("Bob 😀")
@example("ﷺ" * 100)
def test_what_is_prepared_is_a_resource(nick: str) -> None:
    for shown in (prepare_nick(nick), mend_nick(nick)):
        if shown is not None:
            assert shown.strip()
            assert len(shown.encode()) <= MAX_NICK_BYTES
            assert JID(f"team@conference.localhost/{shown}").resource
            assert not any(map(stringprep.in_table_a1, shown))


@given(nicks)
def test_only_what_cannot_be_shown_is_mended(nick: str) -> None:
    shown = prepare_nick(nick)
    if shown is None:
        with pytest.raises(InvalidInputError, match="nick"):
            check_nick(nick)
    else:
        assert mend_nick(nick) == check_nick(nick) == shown


@pytest.mark.parametrize(
    ("nick", "mended"),
    [
        ("דוד (כהן)", "דוד כהן"),
        ("(2) علي", "علي"),
        ("David דוד", "דוד"),
        ("Bob 😀", "Bob"),
        ("\u202eBob", "Bob"),
        ("😀", None),
        (" ", None),
        ("x" * 2000, None),
    ],
)
def test_what_is_left_of_a_name_that_cannot_be_shown(nick: str, mended: str | None) -> None:
    assert prepare_nick(nick) is None
    assert mend_nick(nick) == mended


@pytest.mark.parametrize("nick", ["Ann <A> & 'x'", "דוד", "Zoë Müller", "李雷", "Ann (2)"])
def test_usual_names_stay(nick: str) -> None:
    assert prepare_nick(nick) == nick


def test_a_name_in_hebrew_does_not_stand_before_the_tenants() -> None:
    assert check_direction("דוד") == "דוד"
    assert check_direction("jd,br.acme") == "jd,br.acme"
    with pytest.raises(InvalidInputError, match="Hebrew"):
        check_direction("דוד.acme")
