"""`orchestrator` as a process of its own, without the two seconds that its imports take each time.

A server of multiprocessing has imported it, and forks for each run. Everything else is the process's own: arguments,
environment, standard streams, exit code.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO


def forks() -> ForkServerContext:
    """What starts the runs."""
    context = multiprocessing.get_context("forkserver")
    # pytest: a child imports the main program again
    context.set_forkserver_preload(["orchestrator.cli", "config.celery", "config.wakeup", "pytest"])
    return context


def run(
    context: ForkServerContext, words: tuple[str, ...], environment: Mapping[str, str], given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run it to its end.

    Raises:
        subprocess.TimeoutExpired: it did not end.
    """
    with tempfile.TemporaryDirectory() as folder:
        given_in, said, complained = (Path(folder) / name for name in ("in", "out", "err"))
        given_in.write_text(given)
        process = context.Process(target=_run, args=(words, dict(environment), given_in, said, complained))
        process.start()
        process.join(60)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, 60)
        return subprocess.CompletedProcess(words, process.exitcode, said.read_text(), complained.read_text())


def _run(words: tuple[str, ...], environment: dict[str, str], given: Path, said: Path, complained: Path) -> None:
    """In the process: be the program."""
    os.environ.clear()
    os.environ.update(environment)
    streams: list[tuple[IO[bytes], int]] = [(given.open("rb"), 0), (said.open("wb"), 1), (complained.open("wb"), 2)]
    for file, number in streams:
        os.dup2(file.fileno(), number)
        file.close()
    # multiprocessing has put the null device there
    sys.stdin = os.fdopen(os.dup(0))
    sys.argv = ["orchestrator", *words]
    from orchestrator.cli import main  # noqa: PLC0415 - imported already, by the server

    main()
