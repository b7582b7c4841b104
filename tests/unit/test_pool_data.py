"""The pool's own data: sessions, operators, stanzas and commands. Nothing here needs a server."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.core.text import clean
from tenants.shards.commands import (
    AnyCommand,
    CloseTenant,
    CloseVisitor,
    SendMessage,
    SendReceipt,
    ShowTyping,
    ShowVisitor,
    decode,
    encode,
    shard_of,
)
from tenants.visitors.stored_sessions import Session
from xmpp_pool import stanzas
from xmpp_pool.operator_directory import Connection, OperatorDirectory
from xmpp_pool.sessions import SessionTable

any_text = st.text(st.characters())


def expired(table: SessionTable, now: float) -> set[str]:
    """Whose sessions end by then; they are removed."""
    ended = set()
    while table.is_due(now):
        for due in table.take_due(now, 1):
            assert table.remove(due.instance_name, due.username) is due
            ended.add(due.username)
    return ended


def session(
    online_until: float, nick: str = "Online visitor", username: str = "visitor.1.acme", version: int = 1
) -> Session:
    return Session(username, "acme", nick, "-", online_until, version)


def test_operators_are_told_of_news_only() -> None:
    table = SessionTable()
    assert table.put(session(100))
    assert not table.put(session(200))
    assert table.put(session(300, nick="John #12"))


def test_a_prolonged_session_ends_at_its_new_time() -> None:
    table = SessionTable()
    table.put(session(100))
    table.put(session(200))
    assert expired(table, 150) == set()
    assert expired(table, 200) == {"visitor.1.acme"}
    assert len(table) == 0
    assert expired(table, 1000) == set()


def test_an_old_command_does_not_shorten_the_window() -> None:
    table = SessionTable()
    table.put(session(200))
    table.put(session(100))
    assert expired(table, 150) == set()


def test_an_old_command_replaces_nothing_newer() -> None:
    table = SessionTable()
    table.put(session(100, nick="old", version=1))
    # its clock was read earlier, its row was written later
    assert table.put(session(99, nick="new", version=2))
    assert not table.put(session(100, nick="old", version=1))
    seen = table.get("acme", "visitor.1.acme")
    assert seen is not None
    assert (seen.nick, seen.online_until) == ("new", 100)


def test_expiry_is_in_pieces_and_what_goes_on_is_given_again() -> None:
    table = SessionTable()
    for number in range(10):
        table.put(session(100 + number, username=f"visitor.{number}.acme"))
    due = table.take_due(104, 3)
    assert [one.username for one in due] == ["visitor.0.acme", "visitor.1.acme", "visitor.2.acme"]
    # they are there until somebody removes them
    assert len(table) == 10
    due[0].online_until = 200
    table.go_on(due[0])
    assert expired(table, 104) == {"visitor.3.acme", "visitor.4.acme"}
    assert expired(table, 200) == {"visitor.0.acme", *(f"visitor.{number}.acme" for number in range(5, 10))}


def test_a_piece_is_short_however_many_were_prolonged() -> None:
    table = SessionTable()
    for number in range(10):
        table.put(session(100, username=f"visitor.{number}.acme"))
        table.put(session(200, username=f"visitor.{number}.acme"))
    assert table.take_due(150, 6) == []
    assert table.is_due(150)
    assert table.take_due(150, 6) == []
    assert not table.is_due(150)


def test_who_comes_and_goes_again_and_again_leaves_nothing() -> None:
    table = SessionTable()
    for _ in range(10_000):
        table.put(session(1e9))
        table.remove("acme", "visitor.1.acme")
    assert len(table._ends) < 2000  # noqa: SLF001 - its memory is what is asked for
    table.put(session(1e9))
    assert expired(table, 1e9) == {"visitor.1.acme"}


def test_a_table_takes_over_another_one() -> None:
    ours, loaded = SessionTable(), SessionTable()
    ours.put(session(100))
    loaded.put(session(90, username="visitor.2.acme"))
    loaded.put(Session("visitor.1.other", "other", "nick", "-", 80, 1))
    loaded.put(session(50, nick="old", version=0))
    ours.absorb(loaded)
    assert len(ours) == 3
    first = ours.get("acme", "visitor.1.acme")
    assert first is not None
    assert first.nick == "Online visitor"
    assert expired(ours, 85) == {"visitor.1.other"}
    assert expired(ours, 95) == {"visitor.2.acme"}
    assert expired(ours, 100) == {"visitor.1.acme"}
    ours.absorb(SessionTable())
    ours.drop(["acme"])
    assert len(ours) == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50), st.booleans())))
def test_the_table_agrees_with_a_plain_model(steps: list[tuple[int, int, bool]]) -> None:
    """Putting, removing and expiring in any order; time goes on by one with each step."""
    table, model = SessionTable(), dict[str, float]()
    for now, (number, lasts, remove) in enumerate(steps):
        username = f"visitor.{number}.acme"
        if remove:
            assert (table.remove("acme", username) is not None) == (model.pop(username, None) is not None)
        else:
            table.put(session(now + lasts, username=username))
            model[username] = max(now + lasts, model.get(username, 0))
        ended = {name for name, end in model.items() if end <= now}
        assert expired(table, now) == ended
        model = {name: end for name, end in model.items() if name not in ended}
        assert len(table) == len(model)
        assert {kept.username for kept in table.of_tenant("acme")} == set(model)


def test_an_operator_comes_with_the_first_and_goes_with_the_last_connection() -> None:
    directory = OperatorDirectory()
    desk, phone = Connection("bob.acme@x/desk", 0), Connection("bob.acme@x/phone", 0)
    assert not directory.is_online("acme", "bob.acme")
    assert directory.put("acme", "bob.acme", desk) == (True, False)
    assert directory.put("acme", "bob.acme", phone) == (True, False)
    assert directory.put("acme", "bob.acme", Connection(phone.jid, 5, away=True)) == (False, False)
    assert directory.put("acme", "bob.acme", Connection(phone.jid, 5)) == (False, True)
    assert directory.jids("acme") == directory.jids_of("acme", "bob.acme") == [desk.jid, phone.jid]
    assert directory.jids("other") == directory.jids_of("other", "bob.acme") == []
    for one, is_online in ((desk, True), (phone, False), (phone, False)):
        directory.remove("acme", "bob.acme", one.jid, one.node)
        assert directory.is_online("acme", "bob.acme") == is_online
    assert directory.usernames() == set()


def test_a_connection_of_a_priority_below_zero_sees_and_is_not_reached() -> None:
    directory = OperatorDirectory()
    jids = ["bob.acme@x/desk", "bob.acme@x/phone"]
    directory.put("acme", "bob.acme", Connection(jids[0], 0, priority=-1))
    directory.put("acme", "bob.acme", Connection(jids[1], 0))
    assert (directory.jids("acme"), directory.jids_of("acme", "bob.acme")) == (jids, jids[1:])
    directory.put("acme", "bob.acme", Connection(jids[1], 0, priority=-128))
    assert directory.jids("acme") == jids
    assert all(directory.is_there("acme", jid) for jid in jids)
    assert not directory.is_online("acme", "bob.acme")
    assert directory.usernames() == set()
    directory.put("acme", "bob.acme", Connection(jids[0], 0, priority=1))
    assert directory.usernames() == {"bob.acme"}


@given(any_text, any_text)
def test_presence_is_well_formed_and_exact_whatever_the_text(nick: str, status: str) -> None:
    nick, status = clean(nick), clean(status)
    xml = stanzas.available("visitor.1.acme@x/lhc", "bob.acme@x/desk", stanzas.available_payload(nick, status))
    presence = ET.fromstring(xml)
    assert presence.findtext("status") == status
    assert presence.findtext(f"{{{stanzas.NICK_NS}}}nick") == nick


@given(any_text)
def test_message_is_well_formed_whatever_the_text(body: str) -> None:
    xml = stanzas.chat_message("v@x/lhc", "bob@x", clean(body), "id-1", "<nick>")
    message = ET.fromstring(xml)
    assert message.findtext("body") == clean(body)
    assert message.get("id") == "id-1"
    assert message.find(f"{{{stanzas.RECEIPTS_NS}}}request") is not None


def test_what_xml_forbids_is_replaced_and_the_rest_kept() -> None:
    assert clean("a\x0bb\x00c\ud800d\ufffee") == "a\ufffdb\ufffdc\ufffdd\ufffde"
    assert clean("Zoë 👋🏽\tשלום\r\n") == "Zoë 👋🏽\tשלום\n"


FORWARDED = """<iq xmlns='jabber:component:accept' type='set' from='x' to='acme@lhc.x' id='1'>
  <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' id='m1'
    from='bob.acme@x/desk' to='visitor.1.acme@x'>{body}{sid}</message></forwarded></iq>"""
SID = "<stanza-id xmlns='urn:xmpp:sid:0' by='lhc.x' id='u1'/>"


@pytest.mark.parametrize(("element", "body"), [("<body>Hi &amp; bye</body>", "Hi & bye"), ("<body/>", "")])
def test_a_forwarded_message_is_read(element: str, body: str) -> None:
    read = stanzas.read_forwarded(ET.fromstring(FORWARDED.format(body=element, sid=SID)), "lhc.x")
    assert read == stanzas.Forwarded("u1", "bob.acme@x/desk", "visitor.1.acme@x", body, "m1")


@pytest.mark.parametrize("asks", ["", "r", "m", "rm"])
def test_it_is_read_what_the_client_asks_for(asks: str) -> None:
    elements = {"r": f"<request xmlns='{stanzas.RECEIPTS_NS}'/>", "m": f"<markable xmlns='{stanzas.MARKERS_NS}'/>"}
    nested = f"<x xmlns='urn:other'>{''.join(elements.values())}<request/><markable/></x>"
    body = "<body>Hi</body>" + nested + "".join(elements[one] for one in asks)
    read = stanzas.read_forwarded(ET.fromstring(FORWARDED.format(body=body, sid=SID)), "lhc.x")
    assert isinstance(read, stanzas.Forwarded)
    assert (read.wants_receipt, read.is_markable) == ("r" in asks, "m" in asks)


@given(any_text)
def test_a_receipt_names_the_message_whatever_its_id(message_id: str) -> None:
    # an attribute's white space is not its own (XML 1.0, 3.3.3)
    of = "".join(clean(message_id).split())
    xml = stanzas.receipt("v@x/lhc", "bob@x/desk", "id-1", of, received=True, marker="displayed")
    received, displayed, store, once = ET.fromstring(xml)
    assert (received.tag, received.get("id")) == (f"{{{stanzas.RECEIPTS_NS}}}received", of)
    assert (displayed.tag, displayed.get("id")) == (f"{{{stanzas.MARKERS_NS}}}displayed", of)
    assert (store.tag, once.get("id")) == ("{urn:xmpp:hints}store", "id-1")


def test_a_message_that_came_back_is_read_with_its_error() -> None:
    error = (
        "<body>hello</body><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
        "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>no such user</text><private xmlns='urn:other'/></error>"
    )
    iq = FORWARDED.format(body=error, sid=SID).replace("type='chat'", "type='error'")
    assert stanzas.read_forwarded(ET.fromstring(iq), "lhc.x") == stanzas.ForwardedError(
        "u1", "bob.acme@x/desk", "visitor.1.acme@x", "hello", "m1", "service-unavailable", "no such user"
    )


@pytest.mark.parametrize("sid", ["", SID.replace("lhc.x", "evil.x")])
def test_only_the_bridges_own_stanza_id_counts(sid: str) -> None:
    with pytest.raises(ValueError, match="stanza-id"):
        stanzas.read_forwarded(ET.fromstring(FORWARDED.format(body="<body/>", sid=sid)), "lhc.x")


@pytest.mark.parametrize(
    "command",
    [
        ShowVisitor(instance_name="acme", username="visitor.1.acme", nick="n", status="s", online_until=1.5, version=3),
        SendMessage(instance_name="acme", username="visitor.1.acme", operator="bob.acme", body="hi", message_id="1"),
        ShowTyping(
            instance_name="acme", username="visitor.1.acme", operator="bob.acme", composing=True, told_until=9.0
        ),
        SendReceipt(
            instance_name="acme",
            username="visitor.1.acme",
            operator="bob.acme",
            resource="desk",
            of="m1",
            received=True,
            marker=None,
            receipt_id="r1",
        ),
        CloseVisitor(instance_name="acme", username="visitor.1.acme"),
        CloseTenant(instance_name="acme"),
    ],
)
def test_commands_travel_unchanged(command: AnyCommand) -> None:
    assert decode(encode(command)) == command


def test_shards_are_stable_and_even() -> None:
    # these values may never change: queues and leases of running systems depend on them
    assert [shard_of(name, 64) for name in ("acme", "other", "shop-acme")] == [1, 47, 60]
    shards = [shard_of(f"tenant-{number}", 64) for number in range(6400)]
    counts = [shards.count(shard) for shard in range(64)]
    assert min(counts) > 50
    assert max(counts) < 160
