"""Which tests run in one process when several run side by side, and in which order.

To start a system takes twenty seconds of a processor, and while it runs it takes some of it all the time. So there are
few of them: the tests of a file run in one process, which keeps its system for further files, and the files that need
the servers of production are one group, so that one process alone starts those.

Files go by their names, whatever their folders: so what is long and busy, most of it in `system`, is spread among what
is short. All of it at once would be more than two processors do in time.
"""

import pytest
from xdist.scheduler import LoadFileScheduling

_PRODUCTION = {
    "system/test_production.py",
    "domain/test_live_view.py",
    "domain/test_shard_queues.py",
    "faces/test_celery_interface.py",
}
_CLIENTS = "clients"
"""For some of them ejabberd is started anew: once."""
_FIRST, _LAST = ("browser", "attacks"), "unit"


class Sharing(LoadFileScheduling):  # type: ignore[misc] # pytest-xdist is untyped
    """Shares groups out among processes."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of a test: `production`, `clients`, or folder and name of its file."""
    file = _file(nodeid)
    if file in _PRODUCTION:
        return "production"
    return _CLIENTS if file.startswith(f"{_CLIENTS}/") else file


def put_in_order(items: list[pytest.Item]) -> None:
    """Put files in the order of their names; those of the browser and the attacks first, the units last."""
    items.sort(key=lambda item: _rank(_file(item.nodeid)))


def _file(nodeid: str) -> str:
    """Folder and name of the test's file."""
    return "/".join(nodeid.partition("::")[0].split("/")[-2:])


def _rank(file: str) -> tuple[int, str]:
    folder, _, name = file.partition("/")
    if folder in _FIRST:
        return _FIRST.index(folder), name
    return len(_FIRST) + (folder == _LAST), name
