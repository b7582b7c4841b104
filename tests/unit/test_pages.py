"""Pages of the API's lists without a server: what a page holds, where the next one begins, and how it reads as JSON."""

from types import SimpleNamespace

import pytest
from pydantic import Field

from orchestrator.api.http.pages import Page, rows_named
from orchestrator.api.http.views import View


class TownView(View):
    """A town."""

    id: int
    name: str


class TownPage(Page[TownView, int], alias_generator=rows_named("towns")):
    """Some towns by their numbers."""


class NamePage(Page[TownView, str], alias_generator=rows_named("towns")):
    """Some towns by name."""

    next: str | None = Field(description="`before` of the next page.")


TOWNS = [SimpleNamespace(id=number, name=name) for number, name in enumerate(["Aachen", "Bonn", "Celle"], 1)]


@pytest.mark.parametrize(
    ("found", "limit", "ids", "following"),
    [(3, 2, [1, 2], 2), (2, 2, [1, 2], None), (1, 2, [1], None), (0, 2, [], None)],
)
def test_it_goes_on_where_more_was_found_than_it_holds(
    found: int, limit: int, ids: list[int], following: int | None
) -> None:
    page = TownPage.of(TOWNS[:found], limit, TownView.model_validate)
    assert ([row.id for row in page.rows], page.next) == (ids, following)


def test_it_goes_on_from_what_the_list_is_in_the_order_of() -> None:
    assert NamePage.of(TOWNS, 1, TownView.model_validate, by="name").next == "Aachen"


def test_json_names_the_rows_as_the_list_does() -> None:
    page = TownPage.of(TOWNS, 1, TownView.model_validate)
    assert page.model_dump_json(by_alias=True) == '{"towns":[{"id":1,"name":"Aachen"}],"next":1}'
    assert list(TownPage.model_json_schema()["properties"]) == ["towns", "next"]
    assert list(NamePage.model_json_schema()["properties"]) == ["towns", "next"]
