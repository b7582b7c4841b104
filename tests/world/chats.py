"""What operators read in a chat."""

from bench.testbed.operator import Operator

ACCEPTED = "[[System Assistant]] Chat was already accepted by {}"


def read_by(operator: Operator) -> list[str]:
    return [message.body for message in operator.messages]
