"""What workers and Flower show of a panel's task: never what guesses can be tried on.

A verifier of a weak password, or a digest of a weak key, is found out by trying (RFC 5802, 4); and a sender may have
taken an argument for a password's place.
"""

from typing import Any

from celery.utils.saferepr import saferepr
from celery.worker.request import Request

_SHOWN = frozenset({"instance_name", "instance_names", "kind", "overlap_seconds", "dry_run", "reason"})
_HIDDEN = "[hidden]"


class ShownRequest(Request):  # type: ignore[misc] # celery's types leave it out
    """A task as the worker has it in hand. The task itself gets its arguments from the message."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # what the sender wrote of it goes into events, and with those into Flower
        self._kwargsrepr = self._request_dict["kwargsrepr"] = saferepr(_shown(self._kwargs))
        self._argsrepr = self._request_dict["argsrepr"] = _HIDDEN if self._args else "()"

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What a worker that is asked says."""
        return {**super().info(safe), "args": self._argsrepr, "kwargs": self._kwargsrepr}


def _shown(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value if name in _SHOWN else _HIDDEN for name, value in arguments.items()}
