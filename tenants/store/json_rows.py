"""Many rows as one parameter, `{key: [values]}` in JSON: one statement serves any number of rows.

PostgreSQL's and SQLite's `json_each` agree on this much.
"""

from typing import Any

from sqlalchemy import JSON, Text, bindparam, func, type_coerce

ROWS = func.json_each(bindparam("rows", type_=JSON)).table_valued("key", "value")
"""The rows, to be selected from; the parameter's name is `rows`."""


def value(index: int) -> Any:
    """The value at that place of each row, as text; to be cast."""
    return type_coerce(ROWS.c.value, JSON).op("->>", return_type=Text())(index)
