"""Prepares the files of the private servers: ejabberd with its bridge module, Redis, and the process list."""

import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

from config.settings import Settings
from orchestrator.launcher.local import LISTEN_IP, LocalSystem, write_private

PROJECT = Path(__file__).resolve().parents[2]
_CONFIG = PROJECT / "config"
_ERLANG_LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/erlang/lib")
_COMMON = """stdout_logfile=%(here)s/logs/%(program_name)s.log
redirect_stderr=true
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
autostart=false
autorestart=true
startretries=10
stopasgroup=true
killasgroup=true"""


class MissingServerError(Exception):
    """A program or library that script/up should have installed is not there."""


def prepare(system: LocalSystem, settings: Settings) -> None:
    """Render every configuration file and compile the bridge module."""
    _make_certificate(system.state / "ejabberd" / "server.pem", settings.xmpp_host)
    values = {
        "state": str(system.state),
        "project": str(PROJECT),
        "bin": str(Path(sys.executable).parent),
        "erl_libs": str(_library("ejabberd-*").parent),
        "listen_ip": LISTEN_IP,
        "common": _COMMON,
        "xmpp_host": settings.xmpp_host,
        "hosting": str(settings.hosting).lower(),
        "certfile": str(system.state / "ejabberd" / "server.pem"),
        "component_secret": settings.component_secret.get_secret_value(),
        "redis_password": system.secrets["redis_password"],
        "log_level": settings.log_level,
        **{f"{name}_port": str(port) for name, port in system.ports.items()},
    }
    for template, target in (
        ("supervisord.conf", "supervisord.conf"),
        ("redis.conf", "redis/redis.conf"),
        ("ejabberd/ejabberd.yml", "ejabberd/ejabberd.yml"),
    ):
        write_private(system.state / target, Template((_CONFIG / template).read_text()).substitute(values))
    compile_bridge(system.state / "ejabberd" / "lhc_bridge" / "ebin")


def compile_bridge(ebin: Path) -> None:
    """Compile the bridge's modules against the headers of the ejabberd that is installed."""
    include = ebin.parent / "include"
    ebin.mkdir(parents=True, exist_ok=True)
    include.mkdir(parents=True, exist_ok=True)
    # the module includes xmpp/include/xmpp.hrl; Debian calls that folder p1_xmpp-VERSION
    link = include / "xmpp"
    link.unlink(missing_ok=True)
    link.symlink_to(_library("p1_xmpp-*", "xmpp-*"))
    ejabberd = _library("ejabberd-*")
    sources = map(str, sorted((_CONFIG / "ejabberd").glob("*.erl")))
    command = ["erlc", "-I", str(include), "-I", str(ejabberd / "include"), "-pa", str(ejabberd / "ebin")]
    subprocess.run([*command, "-o", str(ebin), *sources], check=True, timeout=120)


def _library(*patterns: str) -> Path:
    """The folder of an installed Erlang library that has its headers with it."""
    for folder in map(Path, _ERLANG_LIBRARY_FOLDERS):
        for pattern in patterns:
            for library in sorted(folder.glob(pattern)):
                if (library / "include").is_dir():
                    return library
    raise MissingServerError(f"no Erlang library {' or '.join(patterns)} in {', '.join(_ERLANG_LIBRARY_FOLDERS)}")


def _make_certificate(target: Path, host: str) -> None:
    """A self-signed certificate for clients that insist on TLS; made once."""
    if target.exists():
        return
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingServerError("openssl is not installed")
    key, certificate = target.with_suffix(".key"), target.with_suffix(".crt")
    subprocess.run(
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 3650".split()
        + f"-subj /CN={host} -addext subjectAltName=DNS:{host}".split()
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    write_private(target, key.read_text() + certificate.read_text())
    key.unlink()
    certificate.unlink()
