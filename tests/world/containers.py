"""docker-compose.yml without Docker: its images built as folders, its services run as processes of a powerless user.

Debian's packages, users and the network are the machine's own: ports of the loopback address stand for the names of
containers.
"""

import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[2]
_NOT_HERE = re.compile(r"apt-get|useradd")
"""What says so in a Dockerfile is the machine's own here."""
_NO_NEW_PRIVILEGES = ["setpriv", "--no-new-privs"]
_UNITS = {"s": 1, "m": 60}
_BUILD_SECONDS = 600
_STOP_SIGNALS = {"db": signal.SIGINT}
"""What an image says there (STOPSIGNAL), when it is not SIGTERM."""


def unprivileged() -> pwd.struct_passwd:
    """Who runs the services: a user without any power, or oneself, who is not root."""
    return pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())


@dataclass
class Image:
    """What a Dockerfile leaves behind: files below `root`, and its environment."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, dockerfile: Path, root: Path, path: str) -> "Image":
        """Carry out a Dockerfile, all stages in one folder, in which absolute paths of its own then lie."""
        image = cls(root, {"PATH": path})
        workdir = root
        text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
        for line in filter(None, text.splitlines()):
            instruction, _, rest = line.partition(" ")
            match instruction:
                case "WORKDIR":
                    workdir = image.here(rest)
                    workdir.mkdir(parents=True, exist_ok=True)
                case "COPY":
                    image._copy(rest.split(), workdir)
                case "RUN" if not _NOT_HERE.search(rest):
                    image._run(rest, workdir)
                case "ENV":
                    for word in shlex.split(rest):
                        name, _, value = word.partition("=")
                        image.environment[name] = image.moved(value).replace("$PATH", image.environment["PATH"])
                case "ENTRYPOINT":
                    image.entrypoint = [image.moved(word) for word in yaml.safe_load(rest)]
        return image

    def here(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def moved(self, text: str) -> str:
        """The text with the image's own paths as they are here."""
        return re.sub(r"(?<![\w.}/])/(?=(opt|build|tmp|home|run/secrets)\b)", f"{self.root}/", text)

    def _copy(self, words: list[str], workdir: Path) -> None:
        source = PROJECT
        if words[0].startswith("--from="):
            source, words = self.root, [word.lstrip("/") for word in words[1:]]
            workdir = self.root
        *patterns, last = words
        target = self.here(last) if last.startswith("/") else workdir / last
        for path in (path for pattern in patterns for path in source.glob(pattern)):
            if path == target:
                continue
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)

    def _run(self, command: str, workdir: Path) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", self.moved(command)],
            cwd=workdir, env=_passed_on() | self.environment, umask=0o022,
            capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _passed_on() -> dict[str, str]:
    """Where pip finds its packages: the machine's matter, as a proxy is Docker's when it builds."""
    return {name: value for name, value in os.environ.items() if re.match(r"(?i)pip_|.*_proxy$|ssl_", name)}


def services(env_file: Path) -> dict[str, dict[str, Any]]:
    """The services as docker-compose understands the file, with anchors and variables filled in."""
    told = subprocess.run(
        ["docker-compose", "--env-file", str(env_file), "config"],
        cwd=PROJECT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found: dict[str, dict[str, Any]] = yaml.safe_load(told.stdout.replace("$$", "$"))["services"]
    return found


@dataclass
class Container:
    """A service, run as a process.

    Attributes:
        service: as docker-compose.yml says it.
        folder: its own, where its log lies.
        moves: what in its words and environment is elsewhere here, as regular expressions.
        environment: of its image, and of the machine.
        command: what the image would run.
        user: who it is.
    """

    name: str
    service: dict[str, Any]
    folder: Path
    moves: Mapping[str, str]
    environment: dict[str, str]
    command: list[str] = field(default_factory=list)
    user: pwd.struct_passwd = field(default_factory=unprivileged)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Run its command."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*_NO_NEW_PRIVILEGES, *self.command, *map(self._moved, _words(self.service.get("command", [])))],
                **self._as_user(), stdout=log, stderr=log, umask=0o022, start_new_session=True,
            )  # fmt: skip

    def healthy(self) -> bool:
        """Whether its health check succeeds, within its own timeout."""
        check = self.service["healthcheck"]
        kind, *words = check["test"]
        try:
            done = self.run(["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words, seconds(check["timeout"]))
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def run(self, words: list[str], timeout: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run another command in it, as `docker compose exec` does."""
        return subprocess.run(
            [*_NO_NEW_PRIVILEGES, *map(self._moved, words)],
            **self._as_user(), capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def stop(self) -> int:
        """Stop it as Docker does, and give its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end within its grace period.
        """
        assert self.process is not None
        self.process.send_signal(_STOP_SIGNALS.get(self.name, signal.SIGTERM))
        return self.process.wait(seconds(self.service["stop_grace_period"]))

    def kill(self) -> None:
        """End it and all that it started, if it runs."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self.process.wait(10)

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def _as_user(self) -> dict[str, Any]:
        """Where it runs, and as whom. Not by setpriv, which leaves root's capabilities to what it becomes."""
        who: dict[str, Any] = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return {"cwd": self.folder, "env": self._env()} | (who if os.getuid() == 0 else {})

    def _env(self) -> dict[str, str]:
        told = {name: self._moved(str(value)) for name, value in self.service.get("environment", {}).items()}
        return {"HOME": str(self.folder)} | told | self.environment

    def _moved(self, text: str) -> str:
        # all at once: what has been moved is not to be moved again
        places = list(self.moves.values())
        pattern = "|".join(f"(?P<_{number}>{there})" for number, there in enumerate(self.moves))
        return re.sub(pattern, lambda found: places[int(str(found.lastgroup)[1:])], text)


def _words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command


def seconds(duration: str) -> int:
    """What `1m30s` says."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([ms])", duration))


def path_of_the_machine(folder: Path) -> str:
    """A PATH with the servers of the machine, on which `python3` is one without any package, as in the image."""
    folder.mkdir()
    (folder / "python3").write_text(f'#!/bin/sh\nexec {_python_of_all()} "$@"\n')
    # Debian's insists on a user of its own; the image's is that user
    ejabberdctl = Path("/usr/sbin/ejabberdctl").read_text()
    (folder / "ejabberdctl").write_text(re.sub("^INSTALLUSER=.*", "INSTALLUSER=", ejabberdctl, flags=re.MULTILINE))
    for program in folder.iterdir():
        program.chmod(0o755)
    postgresql = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name))
    return f"{folder}:{postgresql}:/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _python_of_all() -> Path:
    """A Python that can make virtual environments, and that the user without power may run: one in /root is not."""
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    who: dict[str, Any] = {"user": unprivileged().pw_uid, "extra_groups": []} if os.getuid() == 0 else {}
    suitable = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    for python in (own, *(Path("/usr/bin") / f"python3.{minor}" for minor in (13, 12, 11))):
        try:
            if subprocess.run([python, "-c", suitable], timeout=30, check=False, **who).returncode == 0:
                return python
        except (PermissionError, FileNotFoundError):
            continue
    raise FileNotFoundError("a Python of 3.11 or newer, with venv, outside of root's own folder: python3-venv")
