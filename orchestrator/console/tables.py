"""What all tables of the console have in common: who may do what, and errors of the domain as messages."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_admin import EnumField, RequestAction, StringField
from starlette_admin.contrib.sqla import ModelView
from starlette_admin.exceptions import ActionFailed, FormValidationError
from starlette_admin.types import RowActionsDisplayType, RowActionsPosition

from orchestrator.console import shown
from orchestrator.console.access import person_of, services_of
from tenants.errors import DomainError, InvalidInputError
from tenants.models import Role


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


class Table(ModelView):
    """A table of rows that nobody changes by themselves: only actions do, and those the domain's own.

    Attributes:
        needs: the role for each action, and for `create` and `edit`; what is not named here is for everybody.
    """

    needs: ClassVar[Mapping[str, Role]] = {}
    actions: Sequence[str] = ()
    exporters = ("csv",)
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
            # page views that the same process answers come in between
            await asyncio.sleep(0)
        return await super().serialize(obj, request, include_relationships, include_select2)

    async def delete(self, request: Request, pks: list[Any]) -> int | None:
        raise ActionFailed("Nothing is deleted here.")


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
