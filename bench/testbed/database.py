"""A private PostgreSQL for what has no supervisord, as the launcher runs it."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.launcher import postgresql

_DEADLINE = 30.0


@contextmanager
def running_postgresql(folder: Path, port: int | None = None) -> Iterator[None]:
    """The server of that folder, which is made if it is not there; it answers, and stops at the end."""
    postgresql.create(folder)
    process = subprocess.Popen(
        postgresql.command(folder, port),
        user=int(postgresql.user()),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _DEADLINE
        while not postgresql.answers(folder, port):
            assert process.poll() is None, f"PostgreSQL of {folder} has ended"
            assert time.monotonic() < deadline, f"PostgreSQL of {folder} does not answer"
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
