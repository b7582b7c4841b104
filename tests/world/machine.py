"""A machine of its own for units: systemd as process 1 over this machine's files, of which it changes none.

Programs and packages are those of this machine; its network is a loopback interface of its own. What is written goes
into memory, and away in the end.
"""

import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.testbed.waiting import until

_CONTROL_GROUP = """
mount --make-rprivate /
mount -t tmpfs lhc "$1"
mkdir "$1/groups" "$1/upper" "$1/work" "$1/root"
mount -t cgroup2 lhc "$1/groups"
group=$1/groups/lhc-$$
mkdir "$group"
echo $$ >"$group/cgroup.procs"
unshare --cgroup --pid --fork --kill-child --uts --ipc --net sh -euc "$3" boot "$1" "$2" || true
echo $$ >"$1/groups/cgroup.procs"
find "$group" -depth -type d -exec rmdir {} +
"""
_BOOT = """
ip link set lo up
mount -t overlay lhc -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 lhc sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs run run
rm -rf etc/systemd/system/*
cp -a "$2/." .
# what systemd mounts for a service, its credentials, reaches it this way
mount --make-rshared .
exec chroot . env -i container=lhc PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """It runs; `pid` is its process 1, as others number it."""

    pid: int

    def run(self, *words: str, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """Run a command on it, as root."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=timeout, check=False)

    def shown(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit."""
        told = self.run("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)


@asynccontextmanager
async def machine(folder: Path, files: Path) -> AsyncIterator[Machine]:
    """Start it, and end it in the end with all that runs on it. It starts no more than it needs itself.

    Args:
        folder: an empty one, where its file system is.
        files: what is copied over its root.
    """
    system = files / "etc" / "systemd" / "system"
    system.mkdir(parents=True, exist_ok=True)
    (system / "default.target").symlink_to("/lib/systemd/system/basic.target")
    log = folder.with_suffix(".log")
    with log.open("ab") as output:
        outer = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
            ["unshare", "--mount", "sh", "-euc", _CONTROL_GROUP, "machine", str(folder), str(files), _BOOT],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        booted = Machine(await until(lambda: _systemd_below(outer.pid), f"systemd starts; see {log}"))
        await until(
            lambda: booted.run("systemctl", "is-active", "basic.target").returncode == 0, f"it is up; see {log}"
        )
        yield booted
    finally:
        os.kill(_systemd_below(outer.pid) or outer.pid, signal.SIGKILL)
        outer.wait(30)


def _systemd_below(pid: int) -> int | None:
    """The process `systemd` that the process has started, or one that it has started."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
            return int(child)
        if found := _systemd_below(int(child)):
            return found
    return None
