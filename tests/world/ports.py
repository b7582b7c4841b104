"""Ports for what a test starts: each process of the tests has a range of its own, a part for systems, a part for these.

What is free by the system's own choice may be taken by any outgoing connection before a server listens there.
"""

import itertools
import os
import socket

_FIRST, _EACH, _FOR_SYSTEMS = 20_000, 1_000, 700
"""Below the range from which the system takes the ports of outgoing connections."""

_numbers = itertools.count()


def ports_of_systems() -> str:
    """The range for the systems that this process starts: see orchestrator/launcher/ports.py."""
    first = _first()
    return f"{first}-{first + _FOR_SYSTEMS - 1}"


def free_port() -> int:
    """A port of the loopback address that is free now, another one each time for as long as there are others.

    Raises:
        OSError: all of them are taken.
    """
    for _ in range(_EACH - _FOR_SYSTEMS):
        port = _first() + _FOR_SYSTEMS + next(_numbers) % (_EACH - _FOR_SYSTEMS)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port of this process's range is free")


def _first() -> int:
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return _FIRST + number * _EACH
