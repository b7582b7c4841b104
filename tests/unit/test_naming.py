"""Names: every pattern both ways, total and unambiguous, and each rule told by its name."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config.settings import Settings
from tenants.core.errors import InvalidInputError
from tenants.core.naming import (
    STANDALONE_INSTANCE,
    AccountKind,
    AccountName,
    Naming,
    RoomName,
    RosterKind,
    RosterName,
    check_instance,
    check_operator,
    fold_page_operator,
    fold_room,
    is_page_operator,
    local_part,
)

HOSTED, STANDALONE = Naming(hosting=True), Naming(hosting=False)

instances = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda name: name != "chat")
operators = st.from_regex(r"[a-z0-9_+-]{1,12}(\.[a-z0-9_+-]{1,12}){0,2}", fullmatch=True).filter(
    lambda name: name.partition(".")[0] not in {"visitor", "visitors"} and name != "admin"
)
identifiers = st.integers(1, 10**19 - 1).map(str)


rooms = st.text(st.characters(max_codepoint=0x2FFF), min_size=1, max_size=30)


def folded(name: str) -> str | None:
    """The room's name, if it is one."""
    try:
        return fold_room(name)
    except InvalidInputError:
        return None


room_names = rooms.map(folded).filter(lambda name: name is not None)


def account_names(instance: st.SearchStrategy[str]) -> st.SearchStrategy[AccountName]:
    return st.one_of(
        st.builds(AccountName, st.just(AccountKind.OPERATOR), operators, instance),
        st.builds(AccountName, st.sampled_from([AccountKind.VISITOR, AccountKind.CHAT]), identifiers, instance),
    )


@pytest.mark.parametrize(
    ("username", "kind", "ident", "instance"),
    [
        ("bob.acme", AccountKind.OPERATOR, "bob", "acme"),
        ("john.doe.shop-acme", AccountKind.OPERATOR, "john.doe", "shop-acme"),
        ("visitor.12.acme", AccountKind.VISITOR, "12", "acme"),
        ("visitors.12.acme", AccountKind.VISITOR, "12", "acme"),
        ("visitor.7.chat.acme", AccountKind.CHAT, "7", "acme"),
        ("AutoUser1.acme", AccountKind.OPERATOR, "autouser1", "acme"),
        ("chat.acme", AccountKind.OPERATOR, "chat", "acme"),
        # as LHC makes them for its own users
        ("admin.acme", AccountKind.OPERATOR, "admin", "acme"),
        ("Visitor1.acme", AccountKind.OPERATOR, "visitor1", "acme"),
        ("visitorcentre.acme", AccountKind.OPERATOR, "visitorcentre", "acme"),
        ("operator.7.acme", AccountKind.OPERATOR, "operator.7", "acme"),
    ],
)
def test_hosted_usernames(username: str, kind: AccountKind, ident: str, instance: str) -> None:
    assert HOSTED.parse_username(username) == AccountName(kind, ident, instance)


@pytest.mark.parametrize(
    ("username", "kind", "ident"),
    [
        ("bob", AccountKind.OPERATOR, "bob"),
        ("john.doe", AccountKind.OPERATOR, "john.doe"),
        ("visitor.12", AccountKind.VISITOR, "12"),
        ("visitor.7.chat", AccountKind.CHAT, "7"),
    ],
)
def test_standalone_usernames(username: str, kind: AccountKind, ident: str) -> None:
    name = AccountName(kind, ident, STANDALONE_INSTANCE)
    assert STANDALONE.parse_username(username) == name
    assert STANDALONE.username(name) == username


@given(account_names(instances))
def test_hosted_names_survive_building_and_parsing(name: AccountName) -> None:
    assert HOSTED.parse_username(HOSTED.username(name)) == name


@given(account_names(st.just(STANDALONE_INSTANCE)))
def test_standalone_names_survive_building_and_parsing(name: AccountName) -> None:
    assert STANDALONE.parse_username(STANDALONE.username(name)) == name


@given(account_names(instances), account_names(instances))
def test_two_names_never_share_a_username(one: AccountName, other: AccountName) -> None:
    assert (HOSTED.username(one) == HOSTED.username(other)) == (one == other)


@given(st.one_of(st.text(), st.from_regex(r"(visitors?\.|bob)?[0-9.a-zA-Z]*(\.chat)?(\.acme)?", fullmatch=True)))
def test_parsing_is_total_and_canonical(text: str) -> None:
    """Every string is one name, whose own spelling reads back as the same name, or an error that names a rule."""
    for naming in (HOSTED, STANDALONE):
        try:
            name = naming.parse_username(text, "user")
        except InvalidInputError as error:
            assert (error.field, bool(error.rule)) == ("user", True)  # noqa: PT017 - either outcome is right
        else:
            assert naming.parse_username(naming.username(name)) == name


@given(st.builds(RosterName, st.sampled_from(RosterKind), instances))
def test_groups_survive_building_and_parsing(roster: RosterName) -> None:
    assert HOSTED.parse_group(HOSTED.group(roster)) == roster


def test_group_names() -> None:
    assert HOSTED.group(RosterName(RosterKind.VISITORS, "acme")) == "visitors.acme"
    assert STANDALONE.group(RosterName(RosterKind.OPERATORS, STANDALONE_INSTANCE)) == "operators"
    assert STANDALONE.parse_group("visitors") == RosterName(RosterKind.VISITORS, STANDALONE_INSTANCE)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("chat", "'chat'"),
        ("Acme", "lower case"),
        ("my shop", "a-z, 0-9 and dashes"),
        ("shop.acme", "dot"),
        ("a@b", "a-z, 0-9 and dashes"),
        ("", "empty"),
        ("a" * 64, "63"),
        ("café", "ASCII"),
        ("-acme", "begin and end"),
        ("acme\n", "a-z, 0-9 and dashes"),
    ],
)
def test_wrong_instance_names_are_told_the_rule(name: str, rule: str) -> None:
    with pytest.raises(InvalidInputError, match=rule) as raised:
        check_instance(name)
    assert raised.value.field == "instance_name"


@pytest.mark.parametrize(
    ("username", "rule"),
    [
        ("", "empty"),
        ("visitor", "'visitor'"),
        ("visitors", "'visitor'"),
        ("visitor.desk", "'visitor'"),
        ("Bob", "lower case"),
        ("bob smith", "single dots"),
        ("bob@home", "single dots"),
        (".bob", "single dots"),
        ("bob..x", "single dots"),
        ("jürgen", "ASCII"),
        ("b" * 65, "64"),
    ],
)
def test_wrong_operator_names_are_told_the_rule(username: str, rule: str) -> None:
    with pytest.raises(InvalidInputError, match=rule):
        check_operator(username)


NOBODYS = (
    "visitor.2.chat visitor.acme visitor..acme visitor.0.acme visitor.02.acme visitor.x.acme visitor.2.chat.chat.acme"
    " visitor.2.3.acme visitor.٣.acme bob bob. .acme visitors.acme"
)


@pytest.mark.parametrize("username", NOBODYS.split())
def test_usernames_that_are_nobodys(username: str) -> None:
    with pytest.raises(InvalidInputError):
        HOSTED.parse_username(username)


def test_hosts_and_instances_have_no_case() -> None:
    assert HOSTED.parse_group("operators.Acme") == RosterName(RosterKind.OPERATORS, "acme")
    settings = Settings(_env_file=None, xmpp_host="XMPP.Example", callback_base_domain="Chat.Example")
    assert (settings.xmpp_host, settings.callback_base_domain) == ("xmpp.example", "chat.example")
    assert (settings.component_jid, settings.xmpp_hosts) == ("lhc.xmpp.example", ("xmpp.example",))


def test_a_standalone_operator_is_not_called_as_the_servers_administrator() -> None:
    for wrong in (
        lambda: STANDALONE.parse_username("Admin"),
        lambda: STANDALONE.username(AccountName(AccountKind.OPERATOR, "admin", STANDALONE_INSTANCE)),
    ):
        with pytest.raises(InvalidInputError, match="must not be 'admin'"):
            wrong()


def test_local_part_minds_the_domain() -> None:
    assert local_part("bob.acme@xmpp.example/desk", "xmpp.example") == "bob.acme"
    assert local_part("bob.acme", "xmpp.example") == "bob.acme"
    with pytest.raises(InvalidInputError, match=r"operator_username: must be an address at xmpp\.example"):
        local_part("bob.acme@evil.example", "xmpp.example", "operator_username")


@given(room_names, instances)
def test_rooms_survive_building_and_parsing(name: str, instance: str) -> None:
    for naming, room in ((HOSTED, RoomName(name, instance)), (STANDALONE, RoomName(name, STANDALONE_INSTANCE))):
        assert naming.parse_room(naming.room(room)) == room


@given(rooms)
def test_folding_twice_is_folding_once(name: str) -> None:
    once = folded(name)
    assert once is None or folded(once) == once


@given(room_names, instances, room_names, instances)
def test_no_room_passes_for_another_tenants(name: str, instance: str, other: str, other_instance: str) -> None:
    ours, theirs = RoomName(name, instance), RoomName(other, other_instance)
    assert (HOSTED.room(ours) == HOSTED.room(theirs)) is (ours == theirs)
    # not either when it is named so that it ends as theirs do
    longer = f"{name}.{other_instance}"
    # one that is written from right to left may not go on from left to right
    assume(folded(longer) is not None)
    assert HOSTED.parse_room(HOSTED.room(RoomName(longer, instance))).instance == instance


@pytest.mark.parametrize(
    ("name", "kept"),
    [("jd,br", "jd,br"), ("JD,BR", "jd,br"), ("Straße", "strasse"), ("ＡＢ", "ab"), ("Ⅷ", "viii"), ("a..b.", "a..b.")],
)
def test_rooms_are_folded(name: str, kept: str) -> None:
    assert fold_room(name) == kept


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a@b", "a/b", "a:b", "it's", "<a>", "a&b", 'a"b', "a\x00b", "a\u2028b", "\ud800", "😀", "x" * 101],
)
def test_what_no_room_can_be_named(name: str) -> None:
    with pytest.raises(InvalidInputError):
        fold_room(name)


@pytest.mark.parametrize("name", ["Name.Surname.operator", "NAME.OPERATOR", "a.b.operator.operator"])
def test_who_writes_in_the_page(name: str) -> None:
    assert is_page_operator(name)
    assert HOSTED.page_operator(name, "acme") == f"{name.lower()}.acme"
    assert STANDALONE.page_operator(name, STANDALONE_INSTANCE) == name.lower()


@pytest.mark.parametrize("name", [".operator", "operator", "bob", "bob.operators", "a b.operator"])
def test_who_does_not(name: str) -> None:
    with pytest.raises(InvalidInputError):
        fold_page_operator(name)
