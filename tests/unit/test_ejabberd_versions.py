"""What a version of ejabberd is told."""

import pytest

from config.ejabberd_versions import Version, disabled_mechanisms, read_version

PLUS = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS"]


@pytest.mark.parametrize(
    ("named", "version", "disabled"),
    [
        ("ejabberd-23.01", (23, 1), ["PLAIN", "X-OAUTH2", *PLUS]),
        ("ejabberd-23.10-1", (23, 10), ["PLAIN", "X-OAUTH2", *PLUS]),
        ("ejabberd 24.02 is running in that node", (24, 2), ["PLAIN", "X-OAUTH2"]),
        ("ejabberd 24.12-3+deb13u2 is running in that node", (24, 12), ["PLAIN", "X-OAUTH2"]),
        ("Status: started\nejabberd 26.07 is running", (26, 7), ["X-OAUTH2"]),
    ],
)
def test_what_is_wrong_in_a_version_is_disabled(named: str, version: Version, disabled: list[str]) -> None:
    assert read_version(named) == version
    assert list(disabled_mechanisms(version)) == disabled


def test_a_text_without_a_version_names_none() -> None:
    assert read_version("ejabberd is not running in that node") is None
