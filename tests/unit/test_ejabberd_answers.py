"""What ejabberd's answers mean, as 23.01 and later versions word them."""

from typing import Any

import pytest

from tenants.ejabberd import answers


@pytest.mark.parametrize(
    ("command", "answer", "is_failure"),
    [
        ("srg_create", 0, False),
        ("srg_create", 1, True),
        ("srg_create/v1", "1", True),
        ("lhc_tell", 1, True),
        # single values and answers to questions, which look like result codes from 24.02 on
        ("lhc_bridge_version", "1", False),
        ("lhc_forget_tenant", 1, False),
        ("lhc_invite_to_room", 1, False),
        ("check_account", 1, False),
        ("register", "User one@localhost successfully registered", False),
    ],
)
def test_result_codes(command: str, answer: Any, is_failure: bool) -> None:
    assert answers.is_failure(command, answer) is is_failure


@pytest.mark.parametrize("answer", [{"messages": 3}, 3])
def test_single_values(answer: Any) -> None:
    assert answers.single(answer, "messages") == 3


@pytest.mark.parametrize(
    "value",
    [
        "operators.acme\nvisitors.acme",
        "operators.acme\n, \nvisitors.acme",
        "visitors.acme\n, \noperators.acme",
        ["visitors.acme", "operators.acme"],
    ],
)
def test_groups(value: Any) -> None:
    assert answers.group_names(value) == ("operators.acme", "visitors.acme")


@pytest.mark.parametrize("value", ["", [], [""]])
def test_no_groups(value: Any) -> None:
    assert answers.group_names(value) == ()
