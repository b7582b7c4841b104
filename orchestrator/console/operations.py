"""Operations at the console: their steps, and what is done with those that stand still."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin import RequestAction, StringField
from starlette_admin.actions import row_action
from starlette_admin.flash import flash
from starlette_admin.routing import route

from orchestrator.api.http.views import OperationView
from orchestrator.console.access import cause_of, services_of
from orchestrator.console.pages import Page
from orchestrator.console.tables import Table, choice, moment, state, told
from tenants.lifecycle import engine, operations
from tenants.store.models import OperationKind, OperationState, Role
from tenants.workflows.workflows import WORKFLOWS

_MAY: dict[str, frozenset[OperationState]] = {
    "retry": frozenset({OperationState.FAILED, OperationState.CANCELLED}),
    "pause": frozenset({OperationState.PENDING, OperationState.RUNNING}),
    "go_on": frozenset({OperationState.PAUSED}),
    "cancel": frozenset({OperationState.PENDING, OperationState.RUNNING, OperationState.PAUSED}),
}


class OperationsTable(Table):
    """All runs of workflows, newest first."""

    key = "operations"
    menu_label = "Operations"
    display_name = "Operation"
    icon = "fa-solid fa-gears"
    fields = (
        StringField("id", label="Operation", exclude_from_list=True),
        StringField("instance_name", label="Tenant"),
        choice("kind", OperationKind),
        state("state", OperationState),
        StringField("requested_by"),
        StringField("reason", exclude_from_list=True),
        StringField("error"),
        moment("created_at", "Asked for"),
        moment("finished_at", "Ended"),
    )
    searchable_fields = (
        "instance_name",
        "kind",
        "state",
        "requested_by",
    )
    sortable_fields = ("created_at",)
    fields_default_sort = (("created_at", True),)
    row_actions = (
        "view",
        "retry",
        "pause",
        "go_on",
        "cancel",
    )
    needs: ClassVar[dict[str, Role]] = dict.fromkeys(_MAY, Role.SUPPORT)
    detail_template = "operation.html"

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        return name not in _MAY or obj.state in _MAY[name]

    async def serialize(
        self, obj: Any, request: Request, include_relationships: bool = True, include_select2: bool = False
    ) -> dict[str, Any]:
        shown = await super().serialize(obj, request, include_relationships, include_select2)
        if request.state.action is RequestAction.DETAIL:
            shown["view"] = OperationView.of(obj)
        return shown

    @row_action("retry", "Try again", "Go on from the step that failed?", icon_class="fa-solid fa-rotate-right")
    async def retry_operation(self, request: Request, pk: str) -> None:
        with told():
            await engine.retry(services_of(request), WORKFLOWS, pk, cause_of(request))
        flash(request, "It goes on.", "success")

    @row_action("pause", "Pause", "Let it rest after the step under way?", icon_class="fa-solid fa-pause")
    async def pause_operation(self, request: Request, pk: str) -> None:
        with told():
            await operations.pause(services_of(request), pk, cause_of(request))
        flash(request, "It rests after the step under way.", "success")

    @row_action("go_on", "Go on", icon_class="fa-solid fa-play")
    async def go_on_with_operation(self, request: Request, pk: str) -> None:
        with told():
            await operations.go_on(services_of(request), pk, cause_of(request))
        flash(request, "It goes on.", "success")

    @row_action("cancel", "Cancel", "End it after the step under way?", icon_class="fa-solid fa-ban")
    async def cancel_operation(self, request: Request, pk: str) -> None:
        with told():
            await operations.cancel(services_of(request), pk, cause_of(request))
        flash(request, "It ends after the step under way.", "success")


class OperationParts(Page):
    """What the page of an operation fetches. The page itself is the detail page of the table."""

    path = "/operation/{operation_id}"

    @route("", name="operation")
    async def index(self, request: Request) -> Response:
        """An address with readable names in it."""
        pk = request.path_params["operation_id"]
        return RedirectResponse(request.url_for("console:detail", key=OperationsTable.key).include_query_params(pk=pk))

    @route("/live", name="live-operation")
    async def live(self, request: Request) -> Response:
        """The part that changes."""
        operation = await operations.get(services_of(request).database, request.path_params["operation_id"])
        return self._answer(request, "parts/operation.html", {"view": OperationView.of(operation)})
