"""The web servers of docs/proxy, as they stand there: only names, ports, certificates and times are the test's own."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.testbed.system import PROJECT

_EXAMPLES = PROJECT / "docs" / "proxy"
_NAME = "orchestrator.example.com"


@dataclass
class Proxy:
    """A web server with TLS that speaks for the API and for ejabberd's /ws."""

    kind: str
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@contextmanager
def start_proxy(kind: str, port: int, api: int, websocket: int) -> Iterator[Proxy]:
    """Nginx or Caddy on that port, before the others."""
    folder = Path(tempfile.mkdtemp(prefix="lhc-proxy-"))
    pem, key = folder / "cert.pem", folder / "cert.key"
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(pem)]
    subprocess.run([*openssl.split(), *names], check=True, capture_output=True, timeout=30)
    changes = {
        r"127\.0\.0\.1:8000": f"127.0.0.1:{api}",
        r"127\.0\.0\.1:5280": f"127.0.0.1:{websocket}",
        r"\b(10|30)s\b": "1s",
    }
    if kind == "nginx":
        changes |= {
            r"/etc/ssl/[^;]*\.pem": str(pem),
            r"/etc/ssl/private/[^;]*\.key": str(key),
            r"listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            r"\$host;": f"$host:{port};",  # links without a port go to 443
            r"listen 80": f"listen unix:{folder}/plain.sock",
        }
    else:
        own = (
            f"\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\thttps_port {port}\n\tservers {{"
        )
        changes |= {r"^\tservers \{": own, rf"^{_NAME} \{{": f"{_NAME}:{port} {{\n\ttls {pem} {key}"}
    text = (_EXAMPLES / ("nginx.conf" if kind == "nginx" else "Caddyfile")).read_text()
    for pattern, there in changes.items():
        text, found = re.subn(pattern, there, text, flags=re.MULTILINE)
        assert found, pattern
    (folder / "example").write_text(text.replace(_NAME, "localhost"))
    environment = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(kind, folder), cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield Proxy(kind, port)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def _command(kind: str, folder: Path) -> list[str]:
    if kind == "caddy":
        return ["caddy", "run", "--config", "example", "--adapter", "caddyfile"]
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; "
        f"events {{}} http {{ access_log off; {places} include {folder}/example; }}"
    )
    folder.chmod(0o755)  # nginx's workers are another user
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
