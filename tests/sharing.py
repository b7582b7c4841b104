"""Which tests run in one process when several run side by side, and which begin first.

To start a system takes twenty seconds of a processor, and while it runs it takes some of it all the time. So there are
few of them: the tests of a file run in one process, which keeps its system for further files, and the files that need
the servers of production are one group, so that one process alone starts those. Groups that take longest begin first:
none of them is to begin when all others are done.
"""

import pytest
from xdist.scheduler import LoadFileScheduling

_PRODUCTION = {
    "system/test_production.py",
    "domain/test_live_view.py",
    "domain/test_shard_queues.py",
    "faces/test_celery_interface.py",
}
_LONGEST = (
    "production",
    "faces/test_cli.py",
    "domain/test_workflow_kills.py",
    "system/test_chaos.py",
    "faces/test_rpc_isolation.py",
    "system/test_compose_services.py",
    "system/test_launcher.py",
    "documentation/test_first_steps.py",
    "system/test_rooms.py",
    "faces/test_json_face.py",
    "faces/test_openapi.py",
    "system/test_pools.py",
    "system/test_isolation.py",
    "attacks/test_exhaustion.py",
    "attacks/test_half_requests.py",
    "system/test_suspension.py",
    "faces/test_hot_path.py",
    "documentation/test_migration.py",
)


class Sharing(LoadFileScheduling):  # type: ignore[misc] # pytest-xdist is untyped
    """Shares groups out among processes."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """The group of a test: `production`, or folder and name of its file."""
    file = "/".join(nodeid.partition("::")[0].split("/")[-2:])
    return "production" if file in _PRODUCTION else file


def put_in_order(items: list[pytest.Item]) -> None:
    """Put the groups that take longest first; otherwise the order stays."""
    items.sort(key=lambda item: _rank(group_of(item.nodeid)))


def _rank(group: str) -> int:
    return _LONGEST.index(group) if group in _LONGEST else len(_LONGEST)
