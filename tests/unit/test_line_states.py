"""The state that a line is shown in."""

import pytest

from tenants.store.models import ChatLine, LineState

BOB = ["bob.acme"]


@pytest.mark.parametrize(
    ("stored", "sent_to", "age", "shown"),
    [
        (LineState.SENT, BOB, 299, LineState.SENT),
        (LineState.SENT, BOB, 301, LineState.UNCONFIRMED),
        (LineState.WAITING, [], 301, LineState.WAITING),
        (LineState.DELIVERED, BOB, 301, LineState.DELIVERED),
        (LineState.FAILED, BOB, 301, LineState.FAILED),
        # an operator's, which is kept as history
        (LineState.SENT, [], 301, LineState.SENT),
    ],
)
def test_a_line_is_not_sent_for_ever(stored: LineState, sent_to: list[str], age: float, shown: LineState) -> None:
    line = ChatLine(state=stored, sent_to=sent_to, created_at=1000.0)
    assert line.state_at(1000.0 + age) is shown
