"""How ejabberd's answers look, which differs between its versions. Nothing else knows.

| what | 23.01 | later |
|---|---|---|
| a single value, such as `lhc_bridge_version` | `{"version": "4"}` | from 24.02 bare: `"4"` |
| `srg_get_info`: `displayed_groups` | one group to a line | from 24.06 joined by line end, comma, line end |
| their order | as written | from 25.03 sorted by ejabberd |
| a result code | `0`, `1` | the same; but from 24.02 a single value of 1 looks like it |
"""

import re
from collections.abc import Iterable
from typing import Any

_WITH_RESULT_CODE = {
    "change_password", "kick_session", "lhc_open_tenant", "lhc_tell", "reload_config", "set_nickname", "srg_create",
    "srg_delete",
}  # fmt: skip
"""Those of our commands that answer with a result code (`rescode`) when they do not fail by an error."""


def is_failure(command: str, answer: Any) -> bool:
    """Whether the answer is a result code that says that nothing was done."""
    return command.partition("/")[0] in _WITH_RESULT_CODE and answer in (1, "1")


def single(answer: Any, name: str) -> Any:
    """The value of a command that answers with a single one, which its declaration calls so."""
    return answer[name] if isinstance(answer, dict) else answer


def group_names(value: Any) -> tuple[str, ...]:
    """Names of shared rosters, sorted, however they are joined: none of ours holds a blank or a comma."""
    names: Iterable[Any] = value if isinstance(value, list) else re.split(r"[\s,]+", str(value))
    return tuple(sorted(str(name) for name in names if name))


def text(value: Any) -> str:
    """A text, which may come in lines."""
    return value if isinstance(value, str) else "".join(map(str, value))
