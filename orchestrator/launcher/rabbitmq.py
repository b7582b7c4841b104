"""RabbitMQ as the broker of a system: its files, and what it is told when it runs."""

import os
import subprocess
from pathlib import Path

from orchestrator.launcher.errors import LaunchError, MissingServerError
from orchestrator.launcher.local import LISTEN_IP, LocalSystem, write_private

_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_DROPS_SINCE = 4
"""The first version that by default drops what came back to a quorum queue twenty times. A worker that dies gives back
what it had, and a panel's task is nowhere else."""
_POLICY = '{"delivery-limit": 1000000}'
"""Not an argument of the queues: panels declare them, too, and RabbitMQ refuses who declares one otherwise."""
_SECONDS = 60


def prepare(system: LocalSystem) -> dict[str, str]:
    """Write its list of plugins. Gives the templates of its other files, and where they go.

    Raises:
        MissingServerError: it is not installed.
    """
    if not (_PROGRAMS / "rabbitmq-server").exists():
        raise MissingServerError("RabbitMQ is not installed; script/up --broker rabbitmq installs it")
    plugins = system.state / "rabbitmq" / "enabled_plugins"
    plugins.parent.mkdir(exist_ok=True, mode=0o700)
    # none: each would cost memory and a second of its start
    write_private(plugins, "[].\n")
    return {f"{name}.conf": f"{name}.conf" for name in ("supervisord/rabbitmq", "rabbitmq/rabbitmq")}


def drops_what_comes_back() -> bool:
    """Whether the one that is installed does so by default."""
    found = (path.name.partition("-")[2].partition(".")[0] for path in _PROGRAMS.parent.glob("lib/rabbitmq_server-*"))
    return any(int(major) >= _DROPS_SINCE for major in found if major.isdecimal())


def keep_what_comes_back(system: LocalSystem) -> None:
    """Have the server, which runs, drop nothing that came back often.

    Raises:
        LaunchError: it does not take the policy.
    """
    variables = {
        "HOME": str(system.state / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_NODENAME": "rabbit@localhost",
        "ERL_EPMD_PORT": str(system.ports["epmd"]),
        "ERL_EPMD_ADDRESS": LISTEN_IP,
    }
    done = subprocess.run(
        [_PROGRAMS / "rabbitmqctl", "set_policy", "--apply-to", "queues", "keep", ".*", _POLICY],
        env=os.environ | variables, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode:
        raise LaunchError(f"RabbitMQ did not take its policy: {(done.stdout + done.stderr).strip()}")
