"""The chaos run's own judgement: its schedule, its ledger, and what it holds to be true of presence."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.chaos.ledger import Conversation, Ledger, Way
from bench.chaos.presence import Visitor
from bench.chaos.schedule import LHC, Kind, plan

TALK = Conversation("acme", "visitor.1.acme", "bob.acme", Way.TO_OPERATOR)
OTHER = Conversation("shop", "visitor.1.shop", "bob.shop", Way.TO_OPERATOR)
BACK = Conversation("acme", "visitor.1.acme", "bob.acme", Way.TO_VISITOR)
VICTIMS = ["api", "beat", "ejabberd", LHC, "lifecycle", "pool-0", "pool-1", "redis", "worker"]

numbers = st.integers(1, 30)


def ledger_of(accepted: int, conversation: Conversation = TALK) -> Ledger:
    """A ledger in which so many messages were accepted, one each second."""
    ledger = Ledger([TALK, OTHER, BACK])
    for number in range(1, accepted + 1):
        ledger.sent(conversation, number)
        ledger.accepted(conversation, number, begun=number)
    return ledger


@given(numbers)
def test_what_arrives_once_and_in_order_is_good(count: int) -> None:
    ledger = ledger_of(count)
    for number in range(1, count + 1):
        ledger.arrived(TALK, TALK.body(number), at=number + 0.5, stanza_id=str(number))
    counted = ledger.count(Way.TO_OPERATOR)
    assert counted.good
    assert counted.sent == counted.accepted == counted.delivered == count
    assert counted.again == counted.copies_explained == counted.copies_unexplained == 0
    assert counted.p50 == counted.longest == 0.5
    assert ledger.count(Way.TO_VISITOR).sent == 0


@given(st.sets(numbers, min_size=1), st.data())
def test_each_message_that_does_not_arrive_is_lost(missing: set[int], data: st.DataObject) -> None:
    ledger = ledger_of(30)
    arriving = sorted(set(range(1, 31)) - missing)
    for number in arriving:
        for _ in range(data.draw(st.integers(1, 3))):
            ledger.arrived(TALK, TALK.body(number), at=40, stanza_id=str(number))
    counted = ledger.count(Way.TO_OPERATOR)
    assert not counted.good
    assert counted.lost == len(missing)
    assert counted.delivered == len(arriving)
    assert {message.number for _, message in ledger.lost()} == missing


@given(st.permutations(range(1, 9)))
def test_a_message_is_out_of_order_when_a_later_one_came_before_it(order: list[int]) -> None:
    ledger = ledger_of(8)
    for number in order:
        ledger.arrived(TALK, TALK.body(number), at=10)
    late = sum(any(other > number for other in order[:place]) for place, number in enumerate(order))
    counted = ledger.count(Way.TO_OPERATOR)
    assert counted.out_of_order == len(ledger.out_of_order) == late
    assert counted.good == (late == 0)


@pytest.mark.parametrize(
    ("ended", "at", "overtaken_by", "late"),
    [
        ("ejabberd-2", 2.5, "ejabberd", True),
        ("ejabberd", 2.5, "ejabberd", False),  # another one was ended
        ("ejabberd-2", 0.5, "ejabberd", False),  # before it was accepted
        ("ejabberd-2", 9.0, "ejabberd", False),  # after it had come
        ("ejabberd-2", 2.5, "ejabberd-2", False),  # what one node takes stays in order
    ],
)
def test_only_what_waited_at_a_dead_node_may_come_late(ended: str, at: float, overtaken_by: str, late: bool) -> None:
    ledger = Ledger([BACK])
    for number, node in ((1, "ejabberd-2"), (2, overtaken_by)):
        ledger.sent(BACK, number)
        ledger.accepted(BACK, number, begun=number, node=node)
    ledger.arrived(BACK, BACK.body(2), at=4)
    ledger.arrived(BACK, BACK.body(1), at=8)
    ledger.ends = [(ended, at)]
    counted = ledger.count(Way.TO_VISITOR)
    assert (counted.out_of_order, counted.late, counted.good) == (1, int(late), late)


def test_what_came_twice_for_no_reason_is_named() -> None:
    ledger = ledger_of(2, BACK)
    for number in (1, 1, 2):
        ledger.arrived(BACK, BACK.body(number), at=number + 1)
    assert [(message.number, message.arrival_times) for _, message in ledger.doubled()] == [(1, [2, 2])]


def test_a_repetition_is_never_out_of_order() -> None:
    ledger = ledger_of(3)
    for number in (1, 2, 3, 1, 2):
        ledger.arrived(TALK, TALK.body(number), at=10, stanza_id=f"id{number}")
    counted = ledger.count(Way.TO_OPERATOR)
    assert counted.good
    assert counted.again == 2


@given(unclear=st.integers(0, 4), ids=st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_doubles_are_told_apart(unclear: int, ids: list[int]) -> None:
    ledger = Ledger([TALK])
    for attempt in range(unclear + 1):
        ledger.sent(TALK, 1)
        if attempt < unclear:
            ledger.unclear(TALK, 1)
    ledger.accepted(TALK, 1, begun=1)
    for stanza_id in ids:
        ledger.arrived(TALK, TALK.body(1), at=2, stanza_id=f"id{stanza_id}")
    counted = ledger.count(Way.TO_OPERATOR)
    assert counted.attempts == unclear + 1
    assert counted.again == len(ids) - len(set(ids))
    assert counted.copies_explained == min(len(set(ids)) - 1, unclear)
    assert counted.again + counted.copies_explained + counted.copies_unexplained == len(ids) - 1


def test_callbacks_have_no_id_so_each_further_one_is_a_copy() -> None:
    ledger = ledger_of(1, BACK)
    for _ in range(3):
        ledger.arrived(BACK, BACK.body(1), at=2)
    assert ledger.count(Way.TO_VISITOR).copies_unexplained == 2


def test_a_message_in_a_wrong_place_is_swapped_and_lost() -> None:
    ledger = ledger_of(1)
    ledger.arrived(OTHER, TALK.body(1), at=2)
    ledger.arrived(BACK, TALK.body(1), at=2)
    ledger.arrived(TALK, "nobody said this", at=2)
    counted = ledger.count(Way.TO_OPERATOR)
    assert (counted.swapped, counted.lost, ledger.count(Way.TO_VISITOR).swapped) == (2, 1, 1)
    assert not counted.good


def test_a_message_that_was_not_accepted_is_not_lost_but_not_good() -> None:
    ledger = Ledger([TALK])
    ledger.sent(TALK, 1)
    ledger.unclear(TALK, 1)
    assert ledger.count(Way.TO_OPERATOR).lost == 0
    assert not ledger.count(Way.TO_OPERATOR).good  # the system never came back for its sender
    ledger.arrived(TALK, TALK.body(1), at=2)
    counted = ledger.count(Way.TO_OPERATOR)
    assert (counted.unaccepted_arrived, counted.accepted, counted.delivered) == (1, 0, 0)


def test_a_returned_message_counts_as_lost_unless_it_arrived() -> None:
    ledger = ledger_of(2)
    ledger.returned(TALK, 1)
    ledger.returned(TALK, 2)
    ledger.arrived(TALK, TALK.body(1), at=3)
    counted = ledger.count(Way.TO_OPERATOR)
    assert (counted.lost, counted.returned) == (1, 1)


def test_what_comes_only_at_the_next_login_was_left_lying() -> None:
    ledger = ledger_of(3)
    for number in (1, 3):
        ledger.arrived(TALK, TALK.body(number), at=4)
    ledger.operators_log_in_anew()
    ledger.arrived(TALK, TALK.body(1), at=5)
    ledger.arrived(TALK, TALK.body(2), at=5)
    counted = ledger.count(Way.TO_OPERATOR)
    assert (counted.stranded, counted.delivered, counted.lost, counted.out_of_order) == (1, 3, 0, 0)
    assert not counted.good


def test_a_system_works_again_when_every_tenant_has_a_new_message() -> None:
    ledger = Ledger([TALK, OTHER])
    for conversation, begun, arrives in ((TALK, 9, 30), (TALK, 11, 12), (OTHER, 10, 17)):
        number = begun
        ledger.sent(conversation, number)
        ledger.accepted(conversation, number, begun=begun)
        ledger.arrived(conversation, conversation.body(number), at=arrives)
    assert ledger.works_again(Way.TO_OPERATOR, since=10) == 7
    assert ledger.works_again(Way.TO_OPERATOR, since=11) is None  # the other tenant said nothing since
    assert ledger.longest_latency(10, 12) == 7


@given(st.integers(), st.floats(10, 600), st.floats(1, 20))
def test_a_schedule_is_repeatable_and_gives_each_victim_its_turn(seed: int, seconds: float, pause: float) -> None:
    actions = plan(seed, VICTIMS, seconds, pause)
    assert actions == plan(seed, VICTIMS, seconds, pause)
    assert [action.at for action in actions] == sorted(action.at for action in actions)
    assert all(action.at < seconds for action in actions)
    assert actions[0].victim.startswith("pool")
    for turn in range(0, len(actions), len(VICTIMS)):
        hit = [action.victim for action in actions[turn : turn + len(VICTIMS)]]
        assert len(hit) == len(set(hit))
    for action in actions:
        assert (action.kind in {Kind.STOPPED, Kind.FAILING, Kind.HANGING}) == (action.victim == LHC)
        assert action.kind is not Kind.PAUSE or action.victim.startswith("pool")


def test_seeds_differ() -> None:
    plans = {tuple(plan(random.Random(seed).getrandbits(32), VICTIMS, 120, 5)) for seed in range(10)}
    assert len(plans) == 10


def test_no_victims_no_schedule() -> None:
    assert plan(1, [], 60, 5) == []


def test_what_operators_may_see_of_a_visitor() -> None:
    visitor = Visitor("visitor.1.acme", window=20)
    assert visitor.may_be_seen_as(None, now=0)
    visitor.page_view_begins("page 1")
    visitor.page_view_accepted(begun_at=100)
    assert visitor.online(now=119)
    assert not visitor.online(now=121)
    assert visitor.may_be_seen_as("page 1", now=119)
    assert not visitor.may_be_seen_as(None, now=119)
    assert visitor.may_be_seen_as(None, now=121)
    assert not visitor.may_be_seen_as("page 1", now=121)
    visitor.message_accepted(begun_at=115)
    visitor.page_view_begins("page 2")  # not answered: it may have been taken
    assert visitor.may_be_seen_as("page 1", now=121)
    assert visitor.may_be_seen_as("page 2", now=121)
    assert not visitor.may_be_seen_as("page 0", now=121)


def test_a_visitor_flickers_only_when_it_was_surely_online() -> None:
    visitor = Visitor("visitor.1.acme", window=20, activities=[100])
    assert not visitor.must_be_online(at=101)  # may have been sent before the visitor came
    assert visitor.must_be_online(at=110)
    assert not visitor.must_be_online(at=120)
