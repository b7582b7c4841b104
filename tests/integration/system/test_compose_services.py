"""Every service of docker-compose.yml: its very command by a user without power, its health check, its end.

The images are built as folders, by the commands of their Dockerfiles. The secrets are `script/secrets`' own.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from bench.testbed.waiting import until, until_async
from orchestrator.launcher.local import LISTEN_IP, LocalSystem
from tests.world.containers import PROJECT, Container, Image, path_of_the_machine, services, unprivileged

STORES = ["db", "rabbitmq"]
SERVERS = [*STORES, "ejabberd"]
PROCESSES = ["api", "worker", "lifecycle", "beat", "pool", "pool-2", "flower"]


@dataclass
class Compose:
    """What runs, by name; and where its secrets and ports are."""

    containers: dict[str, Container]
    secrets: Path
    ports: dict[str, int]

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()


@pytest.fixture(scope="module")
async def compose() -> AsyncIterator[Compose]:
    """All services, started in their order as soon as what they depend on is healthy."""
    folder = Path(tempfile.mkdtemp(prefix="lhc-"))
    made = make(folder)
    try:
        made.containers["epmd"].start()
        for name in STORES:
            made.containers[name].start()
        for name in STORES:
            await until(made.containers[name].healthy, f"{name} is healthy; see {folder}", 90)
        create_database(made)
        migrated = made.containers["migrate"]
        migrated.start()
        assert migrated.process is not None
        assert migrated.process.wait(60) == 0, migrated.log
        ejabberd = made.containers["ejabberd"]
        ejabberd.start()
        await until(ejabberd.healthy, f"ejabberd is healthy; see {folder}", 90)
        for name in PROCESSES:
            made.containers[name].start()
        yield made
    finally:
        for container in reversed(made.containers.values()):
            container.kill()
    shutil.rmtree(folder)


def make(folder: Path) -> Compose:
    """Images, secrets and containers; nothing runs yet."""
    folder.chmod(0o755)  # all users pass through
    example = (PROJECT / ".env.example").read_text()
    (folder / "env").write_text(re.sub("PRIVATE_NETWORK=.*", "PRIVATE_NETWORK=127.0.0.0/8", example))
    path = path_of_the_machine(folder / "bin")
    ours = Image.build(PROJECT / "Dockerfile", folder / "orchestrator", path)
    ejabberd = Image.build(PROJECT / "config" / "ejabberd" / "Dockerfile", folder / "ejabberd-image", path)
    environment = {"PATH": path, "XMPP_HOST": "xmpp.example.com"}
    secrets = folder / "secrets"
    subprocess.run([PROJECT / "script" / "secrets", secrets], env=environment, check=True, timeout=60)
    ports = LocalSystem.open(folder / "ports").ports
    known = services(folder / "env")
    known["pool-2"] = known["pool"]
    known["epmd"] = {"command": f"epmd -port {ports['epmd']} -address {LISTEN_IP}", "stop_grace_period": "10s"}
    containers = {}
    for name in ["epmd", *SERVERS, "migrate", *PROCESSES]:
        user = pwd.getpwnam("postgres") if name == "db" and os.getuid() == 0 else unprivileged()
        own = folder / name
        (own / "tmp").mkdir(parents=True)
        # they can write nowhere else, as with `read_only`, but for the folder that stands for a volume
        for writable in (own / "tmp", *([own] if name in {"db", "rabbitmq"} else [])):
            os.chown(writable, user.pw_uid, user.pw_gid)
        containers[name] = Container(name, known[name], own, moves(own, ports), {"PATH": path}, user=user)
        mount_secrets(containers[name], secrets)
    for name in ("migrate", *PROCESSES):
        containers[name].environment |= ours.environment | {"ORCHESTRATOR_SECRETS_DIR": str(folder / name / "secrets")}
        containers[name].environment["TMPDIR"] = str(folder / name / "tmp")
    prepare_database(containers["db"], ports)
    prepare_rabbitmq(containers["rabbitmq"], ports)
    prepare_ejabberd(containers["ejabberd"], ejabberd, ports)
    containers["epmd"].environment = dict(containers["rabbitmq"].environment)
    return Compose(containers, secrets, ports)


def moves(own: Path, ports: dict[str, int]) -> dict[str, str]:
    """Where things of the containers' network and file systems are here."""
    return {
        r"\bdb:5432\b": f"{LISTEN_IP}:{ports['redis']}",  # there is no Redis: the port is free
        r"\brabbitmq:5672\b": f"{LISTEN_IP}:{ports['rabbitmq']}",
        r"\bejabberd:5281\b": f"{LISTEN_IP}:{ports['ejabberd_api']}",
        r"^(ejabberd|db)$": LISTEN_IP,
        r"^5275$": str(ports["component"]),
        r"\b0\.0\.0\.0\b": LISTEN_IP,
        r"\b8000\b": str(ports["api"]),
        r"\b5555\b": str(ports["flower"]),
        r"/run/secrets\b": f"{own}/secrets",
        r"^/tmp(?=/|$)": str(own / "tmp"),
    }


def mount_secrets(container: Container, secrets: Path) -> None:
    """Those that the service lists and no others, with the modes that they have."""
    folder = container.folder / "secrets"
    folder.mkdir()
    for secret in container.service.get("secrets", []):
        name = secret["source"]
        shutil.copy(secrets / name, folder / Path(secret.get("target") or name).name)


def prepare_database(container: Container, ports: dict[str, int]) -> None:
    """What the image does when it is started for the first time."""
    data = container.folder / "data"
    container.environment |= {"PGDATA": str(data), "PGPORT": str(ports["redis"])}
    words = "initdb -U orchestrator --pwfile=/run/secrets/orchestrator_database_password --auth=scram-sha-256"
    done = container.run([*words.split(), "--no-locale", "--encoding=UTF8"])
    assert done.returncode == 0, done.stderr
    with (data / "postgresql.conf").open("a") as config:
        config.write(f"listen_addresses = '{LISTEN_IP}'\nunix_socket_directories = ''\n")


def create_database(compose: Compose) -> None:
    """The same: what must be done over a connection."""
    password = compose.secret("orchestrator_database_password")
    url = f"postgresql://orchestrator:{password}@{LISTEN_IP}:{compose.ports['redis']}/postgres"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE orchestrator")


def prepare_rabbitmq(container: Container, ports: dict[str, int]) -> None:
    """Configuration as it is mounted, beside what this machine's ports need."""
    own = container.folder
    container.command = ["rabbitmq-server"]
    shutil.copytree(own / "secrets", own / "conf.d")
    shutil.copy(PROJECT / "config" / "rabbitmq" / "production.conf", own / "conf.d" / "50-orchestrator.conf")
    (own / "conf.d" / "10-defaults.conf").write_text(f"listeners.tcp.1 = {LISTEN_IP}:{ports['rabbitmq']}\n")
    (own / "enabled_plugins").write_text("[].\n")
    container.environment |= {
        "RUNNING_UNDER_SYSTEMD": "true",  # the shell becomes the server
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "RABBITMQ_CONFIG_FILE": f"{own}/rabbitmq.conf",
        "RABBITMQ_CONFIG_FILES": f"{own}/conf.d",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{own}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{own}/enabled_plugins",
        "RABBITMQ_MNESIA_BASE": f"{own}/mnesia",
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{own}/config",
        "RABBITMQ_LOG_BASE": str(own),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": f"{own}/pid",
        "RABBITMQ_DIST_PORT": str(ports["rabbitmq_distribution"]),
        "ERL_EPMD_PORT": str(ports["epmd"]),
        "ERL_EPMD_ADDRESS": LISTEN_IP,
        "ERL_FLAGS": "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
    }


def prepare_ejabberd(container: Container, image: Image, ports: dict[str, int]) -> None:
    """The image's environment; folders and ports as Debian's ejabberdctl and this machine have them."""
    own, temporary = container.folder, container.folder / "tmp"
    container.command = image.entrypoint
    container.environment |= image.environment | {
        "SECRETS_DIR": f"{own}/secrets",
        "EJABBERD_CONFIG_PATH": str(temporary / "ejabberd.yml"),
        "CONFIG_DIR": str(own),
        "LOGS_DIR": str(temporary),
        "SPOOL_DIR": str(temporary / "database"),
        "ERL_DIST_PORT": str(ports["callback"]),  # no epmd
        "LISTEN_IP": LISTEN_IP,
        "SQL_SERVER": LISTEN_IP,
        "SQL_PORT": str(ports["redis"]),
        **{f"{name.upper()}_PORT": str(ports[name]) for name in ("c2s", "c2s_tls", "websocket", "component")},
        "EJABBERD_API_PORT": str(ports["ejabberd_api"]),
    }


@pytest.mark.parametrize("name", [*SERVERS, *PROCESSES])
async def test_its_health_check_succeeds(compose: Compose, name: str) -> None:
    container = compose.containers[name]
    await until(container.healthy, f"{name} is healthy:\n{container.log[-3000:]}", 90)


async def test_together_they_are_ready(compose: Compose) -> None:
    async def ready() -> bool:
        async with httpx.AsyncClient(timeout=10) as http:
            return (await http.get(f"http://{LISTEN_IP}:{compose.ports['api']}/readyz")).is_success

    await until_async(ready, "the system is ready", 60)
    api = compose.containers["api"]
    doctor = api.run(["orchestrator", "doctor"])
    assert doctor.returncode == 0, doctor.stdout
    made = api.run(["orchestrator", "tenant", "create", "acme", "--wait"])
    assert made.returncode == 0, made.stderr
    link = api.run(["orchestrator", "console", "link"])
    assert link.stdout.startswith("https://orchestrator.example.com/console/"), link.stderr


async def test_the_secrets_are_the_ones_that_open(compose: Compose) -> None:
    async with httpx.AsyncClient(timeout=10) as http:
        tenants = f"http://{LISTEN_IP}:{compose.ports['api']}/v1/tenants"
        assert (await http.get(tenants)).status_code == 401
        token = compose.secret("orchestrator_panel_token")
        assert (await http.get(tenants, headers={"Authorization": f"Bearer {token}"})).status_code == 200
        flower = f"http://{LISTEN_IP}:{compose.ports['flower']}/workers"
        assert (await http.get(flower)).status_code == 401
        assert (await http.get(flower, auth=("admin", "wrong"))).status_code == 401
        password = compose.secret("orchestrator_flower_password")
        assert (await http.get(flower, auth=("admin", password))).status_code == 200


@pytest.mark.parametrize("name", [*SERVERS, *PROCESSES])
def test_nobody_sees_a_secret_from_outside(compose: Compose, name: str) -> None:
    process = compose.containers[name].process
    assert process is not None
    seen = b"".join(Path(f"/proc/{process.pid}/{part}").read_bytes() for part in ("cmdline", "environ"))
    secrets = [path.read_bytes().strip() for path in compose.secrets.glob("orchestrator_*")]
    assert len(secrets) == 11
    assert [secret for secret in secrets if secret in seen + compose.containers[name].log.encode()] == []
    assert process.poll() is None


async def test_each_stops_within_its_grace_period_and_is_not_healthy_then(compose: Compose) -> None:
    """The last one: nothing runs after it."""
    containers = compose.containers
    ended = {name: containers[name].stop() for name in (*PROCESSES, "ejabberd")}
    for name in ended:
        await until(lambda container=containers[name]: not container.healthy(), f"{name} is not healthy", 60)  # type: ignore[misc]
    # those that the others' health checks ask
    for name in ("rabbitmq", "db"):
        ended[name] = containers[name].stop()
        assert not containers[name].healthy()
    # uvicorn ends as the signal would have ended it, when it is done
    assert ended == dict.fromkeys(ended, 0) | {"api": -signal.SIGTERM}
