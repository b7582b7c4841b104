"""Lists of the API, page by page: the one model that all of them answer with, and the parameters that they share."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Generic, Self, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from tenants.store.models import MAX_ID

Row = TypeVar("Row", bound=BaseModel)
Cursor = TypeVar("Cursor", int, str)
Stored = TypeVar("Stored")

AfterId = Annotated[int, Query(ge=0, le=MAX_ID, description="Only ids above this one.")]
BeforeId = Annotated[int | None, Query(ge=1, le=MAX_ID, description="Only ids below this one.")]
AfterKey = Annotated[str | None, Query(max_length=32, description="The last id of the page before.")]
Limit = Annotated[int, Query(ge=1, le=500)]


class Page(BaseModel, Generic[Row, Cursor]):
    """Some rows of a list, and where the next page begins.

    In JSON each list has its own name for its rows, which `rows_named` gives: that is why a list is a class of its own.

        class TokenPage(Page[TokenView, str], alias_generator=rows_named("tokens")):
    """

    model_config = ConfigDict(validate_by_name=True)

    rows: list[Row]
    next: Cursor | None = Field(description="`after` of the next page; null on the last one.")

    @classmethod
    def of(cls, found: Sequence[Stored], limit: int, view: Callable[[Stored], Row], by: str = "id") -> Self:
        """The first `limit` rows of what was found.

        Args:
            found: `limit` + 1 stored rows, if there are so many: the one too many tells that a page follows.
            limit: how many rows a page holds.
            view: shows a stored row.
            by: the attribute of a stored row that the list is in the order of.
        """
        page = found[:limit]
        return cls(rows=[view(one) for one in page], next=getattr(page[-1], by) if len(found) > limit else None)


def rows_named(name: str) -> Callable[[str], str]:
    """An alias generator: the rows of a page are called so in JSON."""
    names: Mapping[str, str] = {"rows": name}
    return lambda field: names.get(field, field)
