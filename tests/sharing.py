"""Which tests run in one process when several run side by side: `--dist loadgroup` keeps a group together.

To start a system takes twenty seconds of a processor, and while it runs it takes some of it all the time. So there are
few of them:

* The tests that need the servers of production are one group, and share one such system. The domain's own tests, which
  need no system, are in the same group: so the process that has it is busy with them, and starts no other system early.
* Each other file is a group. Its process starts a system with the first test that needs one, and keeps it.

Groups that take longest begin first: none of them is to begin when all others are done.
"""

import pytest

PRODUCTION = "production"
_LONGEST = (
    PRODUCTION,
    "faces/test_cli",
    "domain/test_workflow_kills",
    "system/test_chaos",
    "faces/test_rpc_isolation",
    "system/test_compose_services",
    "system/test_launcher",
    "documentation/test_first_steps",
    "system/test_rooms",
    "faces/test_json_face",
    "faces/test_openapi",
    "system/test_pools",
    "system/test_isolation",
    "attacks/test_exhaustion",
    "attacks/test_half_requests",
    "system/test_suspension",
    "faces/test_hot_path",
    "documentation/test_migration",
)


def share_out(items: list[pytest.Item]) -> None:
    """Put each test into its group, and the groups that take longest first."""
    groups = {item: _group_of(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _rank(groups[item]))


def _group_of(item: pytest.Item) -> str:
    folder, needs = item.path.parent.name, _needs(item)
    if PRODUCTION in needs or (folder == "domain" and "system" not in needs):
        return PRODUCTION
    return f"{folder}/{item.path.stem}"


def _needs(item: pytest.Item) -> set[str]:
    """Fixtures of the test, and those that a parameter names."""
    callspec = getattr(item, "callspec", None)
    chosen = callspec.params.values() if callspec else ()
    return {*getattr(item, "fixturenames", ()), *(value for value in chosen if isinstance(value, str))}


def _rank(group: str) -> int:
    return _LONGEST.index(group) if group in _LONGEST else len(_LONGEST)
