"""Who is logged in at the console, and the end of that; for administrators."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette_admin import StringField
from starlette_admin.actions import row_action
from starlette_admin.flash import flash

from orchestrator.console.access import cause_of, services_of
from orchestrator.console.tables import AdministratorsTable, choice, moment, told
from tenants.access import console_sessions
from tenants.store.models import Role


class SessionsTable(AdministratorsTable):
    """Sessions that last, newest first. The key in their addresses is a digest, from which no cookie can be made."""

    key = "sessions"
    menu_label = "Sessions"
    display_name = "Session"
    icon = "fa-solid fa-right-to-bracket"
    fields = (
        StringField("digest", label="Session", exclude_from_list=True, searchable=False),
        StringField("actor", label="Who"),
        choice("role", Role),
        StringField("address", label="From"),
        moment("created_at", "Since"),
        moment("expires_at", "Until"),
    )
    searchable_fields = (
        "actor",
        "role",
        "address",
    )
    sortable_fields = ("created_at",)
    fields_default_sort = (("created_at", True),)
    row_actions = (
        "view",
        "end",
        "end_all",
    )
    needs: ClassVar[dict[str, Role]] = dict.fromkeys(("end", "end_all"), Role.ADMIN)

    def get_list_query(self, request: Request) -> Any:
        return console_sessions.only_lasting(services_of(request), super().get_list_query(request))

    def get_count_query(self, request: Request) -> Any:
        return console_sessions.only_lasting(services_of(request), super().get_count_query(request))

    async def repr(self, obj: Any, request: Request) -> str:
        return str(obj.id)

    @row_action(
        "end",
        "End",
        "Log this one out now?",
        icon_class="fa-solid fa-right-from-bracket",
        submit_btn_class="btn btn-danger",
    )
    async def end_session(self, request: Request, pk: str) -> None:
        with told():
            whose = await console_sessions.end(services_of(request), pk, cause_of(request))
        flash(request, f"The session of {whose} is ended.", "success")

    @row_action(
        "end_all",
        "End all of this person",
        "Log out every session of whoever this is?",
        icon_class="fa-solid fa-users-slash",
        submit_btn_class="btn btn-danger",
    )
    async def end_all_sessions(self, request: Request, pk: str) -> None:
        found = await self.find_by_pk(request, pk)
        ended = await console_sessions.end_all_of(services_of(request), found.actor, cause_of(request))
        flash(request, f"{ended} sessions of {found.actor} are ended.", "success")
