"""The audit log at the console."""

from starlette_admin import StringField

from orchestrator.console.tables import Table, moment, state
from tenants.store.models import TenantState


class AuditTable(Table):
    """Who did what to which tenant, when and why; newest first."""

    key = "audit"
    menu_label = "Audit log"
    display_name = "Entry"
    icon = "fa-solid fa-book"
    fields = (
        StringField("id", exclude_from_list=True, searchable=False),
        moment("at", "When"),
        StringField("actor", label="Who"),
        StringField("action", label="What"),
        StringField("instance_name", label="Tenant"),
        state("old_state", TenantState, "State before", exclude_from_list=True),
        state("new_state", TenantState, "State now"),
        StringField("reason", label="Why"),
        StringField("operation_id", label="Operation", exclude_from_list=True),
    )
    searchable_fields = (
        "actor",
        "action",
        "instance_name",
        "reason",
    )
    sortable_fields = ("id",)
    fields_default_sort = (("id", True),)
    row_actions = ("view",)
    actions = ("export",)
