"""Which versions of ejabberd are known, and what each is told."""

import re
from pathlib import Path

import pytest

from config.ejabberd_versions import TESTED, Version, caution, disabled_mechanisms, objection, read_version, shown

PROJECT = Path(__file__).resolve().parents[2]

PLUS = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS"]


@pytest.mark.parametrize(
    ("named", "version", "disabled"),
    [
        ("ejabberd-23.01", (23, 1), ["X-OAUTH2", *PLUS]),
        ("ejabberd-23.10-1", (23, 10), ["X-OAUTH2", *PLUS]),
        ("ejabberd 24.02 is running in that node", (24, 2), ["X-OAUTH2"]),
        ("ejabberd 24.12-3+deb13u2 is running in that node", (24, 12), ["X-OAUTH2"]),
        ("Status: started\nejabberd 26.07 is running", (26, 7), ["X-OAUTH2"]),
    ],
)
def test_what_is_wrong_in_a_version_is_disabled(named: str, version: Version, disabled: list[str]) -> None:
    assert read_version(named) == version
    assert list(disabled_mechanisms(version)) == disabled


def test_a_text_without_a_version_names_none() -> None:
    assert read_version("ejabberd is not running in that node") is None


@pytest.mark.parametrize("version", TESTED)
def test_what_was_tested_is_used_without_a_word(version: Version) -> None:
    assert (objection(version, ""), caution(version)) == (None, "")


@pytest.mark.parametrize("version", [(22, 10), (23, 10), (25, 10), (27, 1)])
def test_what_was_not_tested_is_refused_unless_somebody_says_so(version: Version) -> None:
    refused = objection(version, "")
    assert refused is not None
    found, advice = refused
    assert found == f"version {shown(version)}, which was not tested"
    assert all(shown(one) in advice for one in TESTED)
    assert f"ORCHESTRATOR_EJABBERD_UNTESTED={shown(version)}" in advice
    assert objection(version, "26.08") is not None, "another one was accepted"
    assert objection(version, shown(version)) is None
    assert "NOT TESTED" in caution(version)


def test_the_table_of_what_was_tested_names_the_same_versions() -> None:
    page = (PROJECT / "docs" / "ejabberd.md").read_text()
    table = page.partition("## Versions")[2].partition("\n## ")[0]
    assert re.findall(r"^\| (\d\d\.\d\d) \|", table, re.MULTILINE) == sorted(map(shown, TESTED))
