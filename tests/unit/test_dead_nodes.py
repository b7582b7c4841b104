"""Which nodes of ejabberd have died, as the pool judges by what the others tell."""

from xmpp_pool.dead_nodes import DeadNodes

A, B, C = "a@host", "b@host", "c@host"


def test_a_node_is_dead_when_another_says_so_and_nothing_leads_to_it() -> None:
    nodes = DeadNodes()
    nodes.tell(A, B)
    assert nodes.judge({A, B}, A) == (set(), False)  # only those two do not see each other
    assert nodes.judge({A}, A) == ({B}, True)
    assert B in nodes
    assert nodes.judge({A}, A) == (set(), False)
    nodes.is_back(B)
    assert nodes.judge({A, B}, A) == (set(), False)
    assert B not in nodes


def test_all_is_sent_again_when_the_lead_has_forgotten_the_sessions_however_early_others_did() -> None:
    nodes = DeadNodes()
    nodes.tell(A, B)
    assert nodes.judge({A, C}, C) == ({B}, True)
    nodes.tell(C, B)
    assert nodes.judge({A, C}, C) == (set(), True)
    assert nodes.judge({A, C}, C) == (set(), False)


def test_what_others_than_the_lead_tell_later_makes_nothing_be_sent_again() -> None:
    nodes = DeadNodes()
    nodes.tell(C, B)
    assert nodes.judge({A, C}, C) == ({B}, True)
    nodes.tell(A, B)
    assert nodes.judge({A, C}, C) == (set(), False)


def test_a_node_that_dies_again_is_judged_again() -> None:
    nodes = DeadNodes()
    for _ in range(2):
        nodes.tell(A, B)
        assert nodes.judge({A}, A) == ({B}, True)
        nodes.is_back(B)
        nodes.judge({A, B}, A)
