"""What all tables of the console have in common: who may do what, and errors of the domain as messages."""

import asyncio
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, ClassVar

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_admin import BaseField, EnumField, RequestAction, StringField
from starlette_admin.contrib.sqla import ModelView
from starlette_admin.exceptions import ActionFailed, FormValidationError
from starlette_admin.export import CsvExporter, ExportContext
from starlette_admin.filters import FilterRegistry, FilterRule
from starlette_admin.types import ListParams, RowActionsDisplayType, RowActionsPosition

from orchestrator.console import shown
from orchestrator.console.access import person_of, services_of
from tenants.core.errors import DomainError, InvalidInputError
from tenants.store.models import MAX_ID, Role


class ReadingSession:
    """ASGI middleware: the session that starlette-admin's tables read with. Nothing is ever committed in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        async with services_of(Request(scope)).database.read() as session:
            scope.setdefault("state", {})["session"] = session
            await self._app(scope, receive, send)


_FORMULA = re.compile(r"""(?:^|(?<=[;\t\r\n]))(?=[\s"']*[=+\-@＝＋－＠]|[\t\r])""")  # noqa: RUF001 - Excel takes wide ones, too
"""Before what a spreadsheet would calculate: where a text begins, or where one that takes `;` or tabs for the end of a
cell would begin the next."""


_LONGEST_FILENAME = 100
_LAST_PAGE = 1_000_000
_DEEPEST = 20
"""Brackets within brackets in a filter."""
_OF_MANY = {"in", "not_in"}
_LARGEST = 2**53
"""Number in a filter: what every database compares with."""


class CellsOfText(CsvExporter):
    """CSV in which no text is a formula, whatever program opens it (OWASP, CSV injection). Numbers stay numbers."""

    def __init__(self) -> None:
        super().__init__(quoting=csv.QUOTE_NONNUMERIC)

    async def build_response(self, ctx: ExportContext) -> Response:
        # it becomes part of a header
        ctx.filename = re.sub(r"[^\w.-]", "_", ctx.filename, flags=re.ASCII)[:_LONGEST_FILENAME]
        return await super().build_response(ctx)

    async def generate(self, fields: list[BaseField], rows: list[dict[str, Any]]) -> bytes:
        return await super().generate(fields, [{name: _as_text(value) for name, value in row.items()} for row in rows])


def _as_text(value: Any) -> Any:
    return _FORMULA.sub("'", value) if isinstance(value, str) else value


class Table(ModelView):
    """A table of rows that nobody changes by themselves: only actions do, and those the domain's own.

    starlette-admin makes the queries of its tables from the models: pages, orders, filters and searches that people
    choose in the browser. Here alone a query begins outside `tenants/`; which rows a table shows, the domain says.

    Attributes:
        needs: the role for each action, and for `create` and `edit`; what is not named here is for everybody.
    """

    needs: ClassVar[Mapping[str, Role]] = {}
    actions: Sequence[str] = ()
    exporters = (CellsOfText(),)
    importers = ()
    page_size = 25
    page_size_options = (10, 25, 50)
    row_actions_display_type = RowActionsDisplayType.DROPDOWN
    row_actions_position = RowActionsPosition.AFTER_COLUMNS
    search_highlight = False

    def can_create(self, request: Request) -> bool:
        return "create" in self.needs and self._may(request, "create")

    def can_edit(self, request: Request) -> bool:
        return "edit" in self.needs and self._may(request, "edit")

    def can_delete(self, request: Request) -> bool:
        return False

    def can_import(self, request: Request) -> bool:
        return False

    async def find_by_pk(self, request: Request, pk: Any) -> Any:
        """The row; None also when no row could have that key."""
        key = self._key(pk)
        return None if key is None else await super().find_by_pk(request, key)

    async def find_by_pks(self, request: Request, pks: list[Any]) -> Sequence[Any]:
        keys = [key for pk in pks if (key := self._key(pk)) is not None]
        return await super().find_by_pks(request, keys) if keys else []

    def _key(self, pk: Any) -> Any:
        try:
            key = self._pk_coerce(pk)  # type: ignore[operator]  # none of our keys is of several columns
        except (TypeError, ValueError):
            return None
        return None if isinstance(key, int) and not 0 <= key <= MAX_ID else key

    async def handle_row_action(self, request: Request, pk: Any, name: str) -> Response | None:
        handler = self._row_actions_handlers.get(name)
        # the other ones are links, with an address of their own
        if not iscoroutinefunction(handler):
            raise ActionFailed("There is no such action.")
        if not await self.is_row_action_allowed(request, name):
            raise ActionFailed("Forbidden")
        if await self.find_by_pk(request, pk) is None:
            raise ActionFailed("There is no such row.")
        return await super().handle_row_action(request, pk, name)

    def _parse_list_params(self, request: Request, query_params: QueryParams | None = None) -> ListParams:
        params = super()._parse_list_params(request, query_params)
        if params.page > _LAST_PAGE:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"The last page is {_LAST_PAGE:,} at most.")
        return params

    @staticmethod
    def _parse_filter_string(raw: str) -> Any:
        if raw.count("(") > _DEEPEST:
            raise ValueError("too many brackets")
        return ModelView._parse_filter_string(raw)  # noqa: SLF001 - the one that this overrides

    @staticmethod
    def _build_filter_rule(
        node: dict[str, Any], fields_by_name: dict[str, BaseField], registry: FilterRegistry
    ) -> FilterRule:
        """A rule of a filter, whose values the column can be compared with."""
        rule = ModelView._build_filter_rule(node, fields_by_name, registry)  # noqa: SLF001 - as above
        field = fields_by_name[rule.field]
        for given in (rule.value, rule.value2):
            if isinstance(given, list) and rule.filter not in _OF_MANY:
                raise ValueError(f"{rule.filter!r} takes one value")
            values = given if isinstance(given, list) else [given]
            if any(isinstance(one, int | float) and not abs(one) <= _LARGEST for one in values):
                raise ValueError(f"{rule.field!r} cannot be compared with such a number")
            if isinstance(field, EnumField) and given is not None:
                known = {str(choice[0]) for choice in field.choices or ()}
                if not known.issuperset(map(str, values)):
                    raise ValueError(f"{rule.field!r} is one of {', '.join(sorted(known))}")
        return rule

    async def is_row_action_allowed(self, request: Request, name: str) -> bool:
        return name in (self.row_actions or ()) and self._may(request, name)

    async def is_action_allowed(self, request: Request, name: str) -> bool:
        return name in self.actions and self._may(request, name)

    def _may(self, request: Request, name: str) -> bool:
        return person_of(request).may(self.needs.get(name, Role.VIEWER))

    async def serialize(
        self, obj: Any, request: Request, include_relationships: bool = True, include_select2: bool = False
    ) -> dict[str, Any]:
        if request.state.action is RequestAction.EXPORT:
            # let this process answer page views in between
            await asyncio.sleep(0)
        return await super().serialize(obj, request, include_relationships, include_select2)

    async def delete(self, request: Request, pks: list[Any]) -> int | None:
        raise ActionFailed("Nothing is deleted here.")


class AdministratorsTable(Table):
    """A table that only administrators see."""

    def is_accessible(self, request: Request) -> bool:
        return person_of(request).may(Role.ADMIN)


@contextmanager
def told() -> Iterator[None]:
    """In an action: what the domain refuses is told to who asked for it."""
    try:
        yield
    except DomainError as error:
        raise ActionFailed(str(error)) from error


@contextmanager
def told_by_field(fields: Mapping[str, str] | None = None) -> Iterator[None]:
    """In a form: what the domain refuses stands at its field; what is of none at the one that `fields` gives to ""."""
    shown_at = fields or {}
    try:
        yield
    except InvalidInputError as error:
        raise FormValidationError({shown_at.get(error.field, error.field): error.rule}) from error
    except DomainError as error:
        raise FormValidationError({shown_at.get("", ""): str(error)}) from error


def moment(name: str, label: str | None = None, **options: Any) -> StringField:
    """A column of Unix times."""
    formats: dict[RequestAction, Any] = dict.fromkeys(
        (RequestAction.LIST, RequestAction.DETAIL, RequestAction.EXPORT), lambda _request, value: shown.when(value)
    )
    return StringField(
        name,
        label=label,
        formatter=formats,
        searchable=False,
        exclude_from_create=True,
        exclude_from_edit=True,
        **options,
    )


def choice(name: str, enum: type[StrEnum], label: str | None = None, **options: Any) -> EnumField:
    """One of some words, in the browser's own list: a keyboard and a screen reader know what to do with it."""
    words = [(one.value, one.value.replace("_", " ")) for one in enum]
    return EnumField(name, label=label, choices=words, select2=False, **options)


def state(name: str, enum: type[StrEnum], label: str | None = None, **options: Any) -> EnumField:
    """A column of states, each in its colour."""
    return choice(name, enum, label, list_template="parts/state.html", **options)
