"""The ports of a private system, by name."""

import os
import socket
from collections.abc import Iterable
from itertools import chain

from config.settings import ENV_PREFIX
from orchestrator.launcher import postgresql

_OF_SYSTEM = (
    "api", "flower", "redis", "rabbitmq", "rabbitmq_distribution", "epmd",
    "ejabberd_api", "component", "c2s", "c2s_tls", "websocket", "callback", "postgresql",
)  # fmt: skip
OF_NODE = ("ejabberd_api", "component", "c2s", "c2s_tls", "websocket")
"""Those that each node of ejabberd has."""


def suffixed(name: str, number: int, sign: str = "_") -> str:
    """The name of a node's own: what the first one has is called as if it were alone."""
    return name if number == 1 else f"{name}{sign}{number}"


def of_distribution(number: int) -> str:
    """The name of the port by which that node is reached by the others."""
    return f"ejabberd_distribution_{number}"


def names(ejabberd_nodes: int) -> list[str]:
    """The names of all ports of a system."""
    numbers = range(1, ejabberd_nodes + 1)
    alone = [*_OF_SYSTEM, *(suffixed(name, number) for number in numbers[1:] for name in OF_NODE)]
    return [*alone, *(of_distribution(number) for number in numbers)] if ejabberd_nodes > 1 else alone


def choose(wanted_names: Iterable[str], known: dict[str, int]) -> dict[str, int]:
    """Free ports, the same as last time where they still are free; new ones of `ORCHESTRATOR_PORTS` when it is given.

    A range of one's own is for who starts several systems at the same moment: what is free now may be taken before
    the server that it is for has begun to listen.

    Raises:
        OSError: there is none for one of the names.
    """
    first, _, last = os.environ.get(f"{ENV_PREFIX}PORTS", "0-0").partition("-")
    candidates = range(int(first), int(last) + 1)
    chosen: dict[str, int] = {}
    held: list[socket.socket] = []
    try:
        for name in wanted_names:
            wanted = int(os.environ.get(f"{ENV_PREFIX}{name.upper()}_PORT", known.get(name, 0)))
            listener = next(filter(None, map(_listen, chain([wanted] if wanted else [], candidates))), None)
            if listener is None:
                raise OSError(f"no free port for {name}")
            held.append(listener)
            chosen[name] = listener.getsockname()[1]
    finally:
        for listener in held:
            listener.close()
    return chosen


def _listen(port: int) -> socket.socket | None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((postgresql.LISTEN_IP, port))
        listener.listen()  # what is only bound, with this option, others may bind as well
    except OSError:
        listener.close()
        return None
    return listener
