"""Tenants at the console: the table, and what is done to them."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette_admin import BaseField, BooleanField, FloatField, IntegerField, RequestAction, StringField, URLField
from starlette_admin.actions import ActionSelection, action, row_action
from starlette_admin.exceptions import ActionFailed, FormValidationError
from starlette_admin.flash import flash

from orchestrator.console import tenant
from orchestrator.console.access import cause_of, services_of
from orchestrator.console.tables import Table, choice, moment, state, told, told_by_field
from tenants.lifecycle import registry, requests, states
from tenants.lifecycle.registry import TenantSpec
from tenants.lifecycle.served_hosts import LONGEST_HOST
from tenants.lifecycle.tenant_settings import TenantSettings
from tenants.outbound import callback_urls
from tenants.status import tenant_summary
from tenants.status.tenant_summary import Numbers
from tenants.store.models import SETTINGS, OperationKind, Role, Setting, TenantState
from tenants.workflows import imports, move, reconcile

_NUMBERS = ("visitors_online", "operators_online", "accounts", "undelivered", "drift")
_SETTINGS = {setting.name for setting in SETTINGS}
_FIELDS: dict[type, type[BaseField]] = {
    bool: BooleanField,
    int: IntegerField,
    float: FloatField,
    str: StringField,
}
_MAY: dict[str, frozenset[TenantState]] = {
    "suspend": frozenset({TenantState.ACTIVE}),
    "resume": frozenset({TenantState.SUSPENDED}),
    "move": frozenset({TenantState.ACTIVE, TenantState.SUSPENDING, TenantState.SUSPENDED}),
    "edit": states.LIVE,
    "destroy": frozenset(TenantState) - {TenantState.DESTROYED},
}


def _number(name: str, label: str) -> IntegerField:
    return IntegerField(
        name,
        label=label,
        searchable=False,
        orderable=False,
        exclude_from_create=True,
        exclude_from_edit=True,
        filters=[],
    )


def _field(setting: Setting) -> Any:
    options: dict[str, Any] = {
        "label": setting.label,
        "exclude_from_list": True,
        "help_text": setting.description.replace("`", ""),
        "default": setting.default,
        "exclude_from_edit": setting.is_fixed,
    }
    if issubclass(setting.type, StrEnum):
        return choice(setting.name, enum=setting.type, required=True, **options)
    field = URLField if setting.is_url else _FIELDS[setting.type]
    return field(setting.name, **options)


def _destroy_form(_request: Request, tenant: Any) -> str:
    # the name is one of `naming.check_instance`: nothing in it means anything to HTML
    return (
        '<label class="form-label mt-3" for="confirmed">Everything of it will be gone for good: accounts, rosters, '
        f"what waits. Type <strong>{tenant.instance_name}</strong> to destroy it.</label>"
        '<form><input class="form-control" id="confirmed" name="confirmed" autocomplete="off"></form>'
    )


class TenantsTable(Table):
    """All tenants, with what is going on at each."""

    key = "tenants"
    menu_label = "Tenants"
    display_name = "Tenant"
    icon = "fa-solid fa-building"
    show_pk_in_forms = True
    fields = (
        StringField("instance_name", label="Tenant", required=True, exclude_from_edit=True, maxlength=63),
        state("state", TenantState, exclude_from_create=True, exclude_from_edit=True),
        _number("visitors_online", "Visitors online"),
        _number("operators_online", "Operators online"),
        _number("accounts", "Accounts"),
        _number("undelivered", "Undelivered"),
        _number("drift", "Differences"),
        moment("created_at", "Created", exclude_from_list=True),
        # first those that may be left empty
        *map(_field, sorted(SETTINGS, key=lambda setting: setting.default is not None)),
    )
    searchable_fields = (
        "instance_name",
        "state",
    )
    sortable_fields = (
        "instance_name",
        "state",
    )
    fields_default_sort = ("instance_name",)
    row_actions = (
        "view",
        "edit",
        "suspend",
        "resume",
        "reconcile",
        "move",
        "destroy",
    )
    actions = (
        "import",
        "export",
    )
    needs: ClassVar[dict[str, Role]] = {
        **dict.fromkeys(("create", "edit", "suspend", "resume", "move", "destroy", "import"), Role.ADMIN),
        "reconcile": Role.SUPPORT,
    }
    detail_template = "tenant.html"

    async def find_all(self, request: Request, *args: Any, **options: Any) -> Any:
        rows = await super().find_all(request, *args, **options)
        names = [row.instance_name for row in rows]
        counted = await tenant_summary.numbers(services_of(request).clock, request.state.session, names)
        for row in rows:
            _show_numbers(row, counted[row.instance_name])
        return rows

    async def serialize(
        self, obj: Any, request: Request, include_relationships: bool = True, include_select2: bool = False
    ) -> dict[str, Any]:
        shown = await super().serialize(obj, request, include_relationships, include_select2)
        if shown.get("callback_url"):
            shown["callback_url"] = callback_urls.shown(shown["callback_url"])
        if request.state.action is RequestAction.DETAIL:
            shown |= await tenant.look(request, obj.instance_name)
        return shown

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        return obj.state in _MAY.get(name, frozenset(TenantState))

    async def create(self, request: Request, data: dict[str, Any]) -> Any:
        instance_name = str(data.get("instance_name") or "").strip()
        given = {name: value for name, value in _settings(data).items() if value not in (None, "")}
        with told_by_field({"": "instance_name"}):
            spec = TenantSpec(_checked(given))
            # its key is made on its page, where it can be shown
            created = await registry.create(services_of(request), instance_name, spec, cause_of(request), own_key=False)
        return created.tenant

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> Any:
        services = services_of(request)
        found = await registry.get(services, pk)
        wanted = _settings(data)
        with told_by_field({"": "callback_url"}):
            # in the form stands what is shown of it
            wanted["callback_url"] = callback_urls.as_meant(wanted["callback_url"] or None, found.callback_url)
            changes = _checked({name: value for name, value in wanted.items() if value != getattr(found, name)})
            if "callback_url" in changes:
                await requests.change_address(services, pk, cause_of(request), changes.pop("callback_url"))
            if changes:
                await registry.put(services, pk, TenantSpec(changes), cause_of(request))
        return await registry.get(services, pk)

    async def repr(self, obj: Any, request: Request) -> str:
        return str(obj.instance_name)

    @row_action(
        "suspend", "Suspend", "Stop its traffic? Accounts and rosters stay.", icon_class="fa-solid fa-circle-pause"
    )
    async def suspend_tenant(self, request: Request, pk: str) -> None:
        await _begin(request, pk, OperationKind.SUSPEND)

    @row_action("resume", "Resume", "Let its traffic start again?", icon_class="fa-solid fa-circle-play")
    async def resume_tenant(self, request: Request, pk: str) -> None:
        await _begin(request, pk, OperationKind.RESUME)

    @row_action(
        "reconcile",
        "Reconcile",
        "Compare it with ejabberd, and mend what differs?",
        icon_class="fa-solid fa-scale-balanced",
    )
    async def reconcile_tenant(self, request: Request, pk: str) -> None:
        with told():
            await reconcile.start(services_of(request), cause_of(request), pk)
        flash(request, f"{pk} is being compared with ejabberd.", "success")

    @row_action(
        "move",
        "Move",
        "Move this tenant to another XMPP host?",
        icon_class="fa-solid fa-right-left",
        form=(
            '<form><label class="form-label" for="moved">Its operators are logged out, and log in there: their'
            " addresses change. Its LHC must be told of the host, too. Which host?</label>"
            f'<input class="form-control" id="moved" name="xmpp_host" maxlength="{LONGEST_HOST}"'
            ' autocomplete="off"></form>'
        ),
        submit_btn_text="Move it",
        modal_size="md",
    )
    async def move_tenant(self, request: Request, pk: str) -> None:
        host = str((await request.form()).get("xmpp_host", "")).strip()
        with told():
            operation = await move.start(services_of(request), pk, host, cause_of(request))
        flash(request, f"{pk}: move begins." if operation else f"{pk} lives there already.", "success")

    @row_action(
        "destroy",
        "Destroy",
        "Destroy this tenant?",
        icon_class="fa-solid fa-trash",
        form=_destroy_form,
        submit_btn_text="Destroy it",
        submit_btn_class="btn btn-danger",
        modal_size="md",
    )
    async def destroy_tenant(self, request: Request, pk: str) -> None:
        if str((await request.form()).get("confirmed", "")).strip() != pk:
            raise ActionFailed("What was typed is not the tenant's name; nothing was done.")
        await _begin(request, pk, OperationKind.DESTROY)

    @action(
        "import",
        "Import",
        "Take over a tenant that an older system has made in ejabberd",
        icon_class="fa-solid fa-file-import",
        form=(
            '<form><label class="form-label" for="imported">Instance name</label>'
            '<input class="form-control" id="imported" name="instance_name" maxlength="63" autocomplete="off"></form>'
        ),
        submit_btn_text="Import it",
        allow_empty_selection=True,
        dedicated_button=True,
        modal_size="md",
    )
    async def import_tenant(self, request: Request, _selection: ActionSelection) -> None:
        instance_name = str((await request.form()).get("instance_name", "")).strip()
        with told():
            await imports.start(services_of(request), instance_name, cause_of(request), TenantSpec(), own_key=False)
        flash(request, f"{instance_name} is being imported.", "success")


async def _begin(request: Request, instance_name: str, kind: OperationKind) -> None:
    with told():
        operation = await requests.request(services_of(request), instance_name, kind, cause_of(request))
    flash(
        request,
        f"{instance_name}: {kind} begins." if operation else f"{instance_name}: there was nothing to do.",
        "success",
    )


def _settings(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name in _SETTINGS}


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """As the API checks them; each error stands at its field."""
    try:
        return TenantSettings.model_validate(
            {name: None if value == "" else value for name, value in values.items()}
        ).changes()
    except ValidationError as error:
        raise FormValidationError({str(one["loc"][0]): one["msg"] for one in error.errors()}) from None


def _show_numbers(row: Any, counted: Numbers) -> None:
    for name in _NUMBERS:
        setattr(row, name, getattr(counted, name))
