"""Run the services of docker-compose.yml in containers of podman, and play the demo.

`script/images` has built the images, and calls this in a network of its own: a loopback interface, on which every
service has the ports that it has in its container.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from bench.lib.harness import console
from bench.testbed import deployed

PROJECT = Path(__file__).resolve().parents[2]
STORES, PROCESSES = ["db", "rabbitmq"], ["api", "worker", "lifecycle", "beat", "pool", "flower"]
SERVERS = [*STORES, "ejabberd"]
STAND_FOR = {"db": "db", "rabbitmq": "rabbitmq"}
"""The services whose images come from a registry, and what stands for them."""
SECONDS = 240


class Podman:
    """Its containers are in a folder of its own, and have no control groups: this machine may not offer them."""

    def __init__(self, folder: Path) -> None:
        self._command = ["podman", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self._command += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]

    def __call__(self, *words: str) -> str:
        """Run it.

        Raises:
            subprocess.CalledProcessError: it failed; holds what it said.
        """
        return subprocess.run([*self._command, *words], check=True, text=True, capture_output=True).stdout

    def log(self, container: str) -> str:
        """The end of what it wrote."""
        words = [*self._command, "logs", "--tail", "40", container]
        return subprocess.run(words, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout


def services(env_file: Path) -> dict[str, dict[str, Any]]:
    """The services as docker-compose understands them."""
    told = subprocess.run(
        ["docker-compose", "--env-file", str(env_file), "config"],
        cwd=PROJECT,
        check=True,
        text=True,
        capture_output=True,
    )
    found: dict[str, dict[str, Any]] = yaml.safe_load(told.stdout.replace("$$", "$"))["services"]
    return found


def options(name: str, service: dict[str, Any], secrets: Path) -> list[str]:
    """What `podman run` is told of a service: all but limits, ports and networks, which are not to be had here."""
    words = ["--detach", "--name", f"lhc-{name}", "--network", "host", "--cgroups", "disabled"]
    words += [word for host in SERVERS for word in ("--add-host", f"{host}:127.0.0.1")]
    words += [f"--security-opt={one.replace(':', '=')}" for one in service["security_opt"]]
    words += [f"--cap-drop={one}" for one in service["cap_drop"]]
    words += ["--read-only"] if service["read_only"] else []
    words += [f"--tmpfs={one}" for one in service["tmpfs"]]
    words += [f"--user={service['user']}"] if "user" in service else []
    words += [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
    for secret in service.get("secrets", []):
        words += ["--volume", f"{secrets}/{secret['source']}:{_target(secret)}:ro"]
    for volume in service.get("volumes", []):
        words += ["--volume", volume if isinstance(volume, str) else f"{volume['source']}:{volume['target']}"]
    return words


def _target(secret: dict[str, str]) -> str:
    target = secret.get("target") or secret["source"]
    return target if target.startswith("/") else f"/run/secrets/{target}"


class Stack:
    """The services of docker-compose.yml in containers."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self._podman = podman
        self._secrets = folder / "secrets"
        # the loopback interface is the containers' network
        example = (
            (PROJECT / ".env.example")
            .read_text()
            .replace("PRIVATE_NETWORK=172.30.77.0/24", "PRIVATE_NETWORK=127.0.0.0/8")
        )
        (folder / "env").write_text(example)
        self._services = services(folder / "env")
        made = {**os.environ, "XMPP_HOST": "xmpp.example.com"}
        subprocess.run(
            ["script/secrets", str(self._secrets)], cwd=PROJECT, env=made, check=True, stdout=subprocess.DEVNULL
        )

    def secret(self, name: str) -> str:
        return (self._secrets / f"orchestrator_{name}").read_text().strip()

    @property
    def endpoints(self) -> dict[str, str | int]:
        """For the demo."""
        return deployed.endpoints(str(self._secrets / "ejabberd.pem"), self.secret)

    def up(self) -> None:
        """Start all, in the order of compose: servers, the migration, the processes.

        Raises:
            TimeoutError: one is not healthy in time.
        """
        for name in STORES:
            self._start(name)
        for name in STORES:
            self._wait(name)
        self._start("migrate")
        if (code := self._podman("wait", "lhc-migrate").strip()) != "0":
            raise TimeoutError(f"migrate ended with {code}: {self._log('migrate')}")
        self._start("ejabberd")
        self._wait("ejabberd")
        for name in PROCESSES:
            self._start(name)
        for name in PROCESSES:
            self._wait(name)

    def down(self) -> dict[str, str]:
        """Stop all as compose does; gives how each ended."""
        names = [*PROCESSES, *reversed(SERVERS)]
        for name in names:
            grace = self._services[name]["stop_grace_period"].removesuffix("s").replace("1m0", "60").replace("1m", "60")
            self._podman("stop", "--time", grace, f"lhc-{name}")
        return {
            name: self._podman("inspect", "--format", "{{.State.ExitCode}}", f"lhc-{name}").strip() for name in names
        }

    def run(self, name: str, *words: str) -> str:
        """A command in a container."""
        return self._podman("exec", f"lhc-{name}", *words)

    def _start(self, name: str) -> None:
        service = self._services[name]
        service["environment"] = service.get("environment", {}) | (
            deployed.SETTINGS if "build" in service and name != "ejabberd" else {}
        )
        image = STAND_FOR.get(name, service["image"])
        command = (
            service.get("command", "").split() if isinstance(service.get("command", ""), str) else service["command"]
        )
        self._podman("run", *options(name, service, self._secrets), f"localhost/{image}", *command)

    def _wait(self, name: str) -> None:
        kind, *test = self._services[name]["healthcheck"]["test"]
        words = ["sh", "-c", *test] if kind == "CMD-SHELL" else test
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self.run(name, *words)
            except subprocess.CalledProcessError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} is not healthy: {error.stderr}\n{self._log(name)}") from None
                time.sleep(1)
            else:
                console.print(f"  [green]✓[/] {name} is healthy")
                return

    def _log(self, name: str) -> str:
        return self._podman.log(f"lhc-{name}")


def main() -> None:
    """Start, play, stop."""
    podman = Podman(Path(sys.argv[1]))
    remove_all(podman)
    with tempfile.TemporaryDirectory(prefix="lhc-") as folder:
        try:
            play(Stack(podman, Path(folder)), Path(folder))
        finally:
            remove_all(podman)


def remove_all(podman: Podman) -> None:
    """Containers and volumes; images stay."""
    podman("rm", "--force", "--all")
    podman("volume", "prune", "--force")


def play(stack: Stack, folder: Path) -> None:
    """Start the services, have a look at them, play the demo, and stop them."""
    stack.up()
    console.print(stack.run("api", "orchestrator", "doctor"))
    (folder / "endpoints.json").write_text(json.dumps(stack.endpoints))
    demo = [sys.executable, "-m", "bench.demo", "--endpoints", str(folder / "endpoints.json")]
    subprocess.run(demo, cwd=PROJECT, check=True)
    ended = stack.down()
    console.print(f"ended with {ended}")


if __name__ == "__main__":
    main()
