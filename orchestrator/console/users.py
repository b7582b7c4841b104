"""People who may log in with a password, managed by administrators."""

from typing import Any, ClassVar

from starlette.requests import Request
from starlette_admin import PasswordField, StringField
from starlette_admin.actions import row_action
from starlette_admin.flash import flash

from orchestrator.console.access import cause_of, services_of
from orchestrator.console.tables import AdministratorsTable, choice, moment, told, told_by_field
from tenants.access import console_users
from tenants.store.models import Role


class UsersTable(AdministratorsTable):
    """Who may log in, and what they may do."""

    key = "users"
    menu_label = "People"
    display_name = "Person"
    icon = "fa-solid fa-users"
    show_pk_in_forms = True
    fields = (
        StringField("name", required=True, exclude_from_edit=True, maxlength=console_users.LONGEST_NAME),
        choice("role", Role, required=True),
        PasswordField(
            "password",
            help_text=f"At least {console_users.SHORTEST_PASSWORD} characters. "
            "When changing: empty leaves it as it is.",
            exclude_from_list=True,
            exclude_from_detail=True,
            exclude_from_export=True,
        ),
        moment("created_at", "Since"),
        moment("changed_at", "Changed"),
    )
    searchable_fields = ("name",)
    sortable_fields = ("name",)
    row_actions = (
        "view",
        "edit",
        "remove",
    )
    needs: ClassVar[dict[str, Role]] = dict.fromkeys(("create", "edit", "remove"), Role.ADMIN)

    async def create(self, request: Request, data: dict[str, Any]) -> Any:
        return await self._put(request, str(data["name"] or "").strip(), data)

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> Any:
        return await self._put(request, pk, data)

    async def _put(self, request: Request, name: str, data: dict[str, Any]) -> Any:
        # it must not come back in a form with errors
        password, data["password"] = data.get("password") or None, None
        with told_by_field():
            return await console_users.put_user(
                services_of(request), name, Role(data["role"]), password, cause_of(request)
            )

    async def repr(self, obj: Any, request: Request) -> str:
        return str(obj.name)

    @row_action(
        "remove",
        "Remove",
        "Revoke this person's access and end their sessions?",
        icon_class="fa-solid fa-user-slash",
        submit_btn_class="btn btn-danger",
    )
    async def remove_user(self, request: Request, pk: str) -> None:
        with told():
            await console_users.remove_user(services_of(request), pk, cause_of(request))
        flash(request, f"{pk} can no longer log in; their sessions are ended.", "success")
