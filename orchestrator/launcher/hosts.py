"""The hosts that our own ejabberd serves: its file of them, and a certificate for their clients."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from config.settings import Settings
from orchestrator.launcher.errors import MissingServerError
from orchestrator.launcher.local import write_private


def write(target: Path, settings: Settings, certificate: Path) -> None:
    """The hosts of the settings, and those that stand there: they were added (`tenants.lifecycle.served_hosts`)."""
    before = json.loads(target.read_text()) if target.exists() else {}
    said = {
        "hosts": [*dict.fromkeys([*settings.xmpp_hosts, *before.get("hosts", ())])],
        "certfiles": [*dict.fromkeys([str(certificate), *before.get("certfiles", ())])],
    }
    target.parent.mkdir(exist_ok=True, mode=0o700)
    write_private(target, json.dumps(said, indent=2) + "\n")


def make_certificate(target: Path, hosts: Sequence[str]) -> None:
    """A self-signed certificate for clients that insist on TLS; made once."""
    if target.exists():
        return
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingServerError("openssl is not installed")
    key, certificate = target.with_suffix(".key"), target.with_suffix(".crt")
    subprocess.run(
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 3650".split()
        + f"-subj /CN={hosts[0]} -addext subjectAltName={','.join(f'DNS:{host}' for host in hosts)}".split()
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    write_private(target, key.read_text() + certificate.read_text())
    key.unlink()
    certificate.unlink()
