"""A tenant's settings are declared once, and everything else reads the declaration."""

import pytest

from config.settings import Settings
from orchestrator.api.resources.tenants import TenantView
from orchestrator.console.tenants import TenantsTable
from tenants.core.errors import InvalidInputError
from tenants.lifecycle import tenant_settings
from tenants.lifecycle.tenant_settings import TenantSettings, check_settings
from tenants.store.models import SETTINGS, Routing, Tenant

NAMES = [setting.name for setting in SETTINGS]


def test_every_reader_knows_each_setting() -> None:
    assert list(TenantSettings.model_fields) == NAMES
    assert [name for name in TenantView.model_fields if name in NAMES] == NAMES
    assert set(NAMES) <= {field.name for field in TenantsTable.fields}
    assert set(NAMES) <= set(Tenant.__table__.columns.keys())


def test_a_tenant_begins_with_what_is_declared_or_installed() -> None:
    beginning = tenant_settings.defaults(Settings(visitor_online_seconds=77))
    assert list(beginning) == NAMES
    assert beginning["online_seconds"] == 77
    assert beginning["routing"] is Routing.LHC
    assert beginning["max_rooms"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_rooms", 201), ("xmpp", "true"), ("idle_hours", "24"), ("routing", "nobody"), ("callback_url", "acme")],
)
def test_a_value_beyond_its_declaration_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_settings({name: value})
    assert refused.value.field == name


def test_null_is_a_change_and_what_is_left_out_is_none() -> None:
    assert check_settings({"max_rooms": None, "live_view": True}) == {"max_rooms": None, "live_view": True}
