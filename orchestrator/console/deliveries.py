"""Messages of operators that their tenants' servers have not got yet, and those that were given up."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette_admin import IntegerField, RequestAction, StringField
from starlette_admin.actions import row_action
from starlette_admin.flash import flash

from orchestrator.console.access import cause_of, services_of
from orchestrator.console.tables import Table, moment, state, told
from tenants.delivery import history
from tenants.store.models import MessageState, Role


class DeliveriesTable(Table):
    """What is undelivered or dead, oldest first. What people wrote is not shown."""

    key = "deliveries"
    menu_label = "Deliveries"
    display_name = "Delivery"
    icon = "fa-solid fa-envelope-open-text"
    fields = (
        StringField("id", label="Delivery", searchable=False),
        StringField("instance_name", label="Tenant"),
        state("state", MessageState),
        StringField("event", label="Event", exclude_from_list=True),
        StringField("sender", label="From"),
        StringField("receiver", label="To"),
        IntegerField("attempts", label="Attempts"),
        StringField("last_error", label="Last error"),
        moment("created_at", "Written"),
    )
    searchable_fields = (
        "instance_name",
        "state",
        "sender",
        "receiver",
    )
    sortable_fields = ("id",)
    fields_default_sort = ("id",)
    row_actions = (
        "view",
        "replay",
    )
    needs: ClassVar[dict[str, Role]] = {"replay": Role.SUPPORT}
    detail_template = "delivery.html"

    def get_list_query(self, request: Request) -> Any:
        return history.undelivered(super().get_list_query(request))

    def get_count_query(self, request: Request) -> Any:
        return history.undelivered(super().get_count_query(request))

    def get_detail_query(self, request: Request) -> Any:
        # also of a message that has been delivered since the table was shown
        return super().get_list_query(request)

    async def serialize(
        self, obj: Any, request: Request, include_relationships: bool = True, include_select2: bool = False
    ) -> dict[str, Any]:
        shown = await super().serialize(obj, request, include_relationships, include_select2)
        if request.state.action is RequestAction.DETAIL:
            _, shown["attempts_made"] = await history.message(services_of(request).database, obj.instance_name, obj.id)
        return shown

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        return name != "replay" or obj.state is MessageState.DEAD

    @row_action("replay", "Try again", "Try this message again?", icon_class="fa-solid fa-rotate-right")
    async def replay_delivery(self, request: Request, pk: str) -> None:
        found = await self.find_by_pk(request, pk)
        with told():
            await history.replay(services_of(request), found.instance_name, found.id, cause_of(request))
        flash(request, "It is tried again.", "success")
