"""The file of a private system's settings: every command reads what the system was started with."""

from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from config.settings import Settings
from orchestrator.launcher import settings_file

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Zl", "Zp"]))


@given(value=PRINTABLE)
def test_a_value_is_read_as_it_was_written(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("settings") / "settings.env"
    path.write_text(settings_file.text({"public_url": value}))
    assert dotenv_values(path, interpolate=False)["ORCHESTRATOR_PUBLIC_URL"] == value


def test_the_environment_of_the_start_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_XMPP_HOSTS", "localhost,second.example")
    monkeypatch.setenv("ORCHESTRATOR_EJABBERD_CERTIFICATE", "/etc/ssl/it's mine.pem")
    path = tmp_path / "settings.env"
    path.write_text(settings_file.text({"ejabberd_certificate": "/made/by/us.pem", "public_url": "http://x"}))
    monkeypatch.undo()
    settings = Settings(_env_file=path)
    assert settings.xmpp_hosts == ("localhost", "second.example")
    assert settings.ejabberd_certificate == "/etc/ssl/it's mine.pem"
    assert settings.public_url == "http://x"
