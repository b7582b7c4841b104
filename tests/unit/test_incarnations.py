"""Whatever is keyed by the name of a tenant or an account is bound to that very one, and said so here.

A new table, column or command that bears such a name fails until somebody has thought of what becomes of it when the
name comes again: docs/security.md has the same as a table for people.
"""

import ast
from pathlib import Path

import pytest

from tenants.lifecycle import incarnations
from tenants.shards import commands
from tenants.store.models import Base

_PROJECT = Path(__file__).parents[2]

GOES_WITH_ITS_TENANT = "removed by `incarnations.forget`, and once more when the name comes again"
GOES_WITH_ITS_ACCOUNT = "removed, or taken out of the row, in the transaction that removes the account"
RECORD = "stays: the record of what was done; a tenant's own token reads it from its tenant's beginning on"
BOUND = "bears the incarnation"
SAYS_WHO = "who did something, in the words of the record; it opens nothing"
HISTORY = "what was said by whom, for the tenant alone; it goes with the tenant, and opens nothing"
NEWEST = "the newest state of that name, which is all that LHC knows"
ELSEWHERE = "people at the console, who belong to no tenant: removed with them"

TABLES = {
    "tenants": BOUND,
    "accounts": GOES_WITH_ITS_TENANT,
    "operators": GOES_WITH_ITS_TENANT,
    "chats": GOES_WITH_ITS_TENANT,
    "chat_lines": GOES_WITH_ITS_TENANT,
    "rooms": GOES_WITH_ITS_TENANT,
    "visitor_sessions": GOES_WITH_ITS_TENANT,
    "operations": RECORD,
    "audit_entries": RECORD,
    "tokens": GOES_WITH_ITS_TENANT,
    "drift": GOES_WITH_ITS_TENANT,
    "conversations": GOES_WITH_ITS_TENANT,
    "callback_messages": GOES_WITH_ITS_TENANT,
    "circuits": GOES_WITH_ITS_TENANT,
    "operator_presences": GOES_WITH_ITS_TENANT,
    "returned_messages": GOES_WITH_ITS_TENANT,
    "one_time_links": GOES_WITH_ITS_TENANT,
}
"""Tables with the name of a tenant. What is in others goes with what it refers to (`ON DELETE CASCADE`)."""

ACCOUNTS = {
    "accounts.username": BOUND,
    "operators.username": GOES_WITH_ITS_ACCOUNT,
    "chats.username": GOES_WITH_ITS_TENANT,
    "chats.owner": GOES_WITH_ITS_ACCOUNT,
    "chat_lines.sender": HISTORY,
    "room_members.username": GOES_WITH_ITS_ACCOUNT,
    "visitor_sessions.username": GOES_WITH_ITS_ACCOUNT,
    "conversations.receiver": HISTORY,
    "callback_messages.sender": HISTORY,
    "callback_messages.receiver": HISTORY,
    "operator_presences.username": NEWEST,
    "returned_messages.visitor": HISTORY,
    "returned_messages.operator": HISTORY,
    "one_time_links.operator": BOUND,
    "drift.subject": HISTORY,
    "shard_leases.owner": "a pool process, named at random",
    "console_sessions.user_name": ELSEWHERE,
    "console_sessions.actor": SAYS_WHO,
    "audit_entries.actor": SAYS_WHO,
    "idempotent_requests.actor": "the digest of a token, and of the tenant's incarnation",
}
"""Columns with the name of an account, or of who did something."""

_NAMES = {"username", "user_name", "owner", "operator", "visitor", "sender", "receiver", "subject", "actor", "member"}


def test_each_table_with_a_tenants_name_says_what_becomes_of_it() -> None:
    found = {name for name, table in Base.metadata.tables.items() if "instance_name" in table.columns}
    assert found == set(TABLES)
    forgotten = {model.__tablename__ for model in incarnations.OF_A_TENANT}
    assert forgotten == {name for name, how in TABLES.items() if how == GOES_WITH_ITS_TENANT}


def test_each_column_with_an_accounts_name_says_what_becomes_of_it() -> None:
    found = {str(column) for table in Base.metadata.sorted_tables for column in table.columns if column.name in _NAMES}
    assert found == set(ACCOUNTS)


def test_what_refers_to_a_row_goes_with_it() -> None:
    """So a row without the name of its own goes with the one that bears it; except operations, which stay."""
    for table in Base.metadata.sorted_tables:
        if table.name not in TABLES and table.name != "operation_steps":
            assert {key.ondelete for key in table.foreign_keys} <= {"CASCADE"}, table


_COMMANDS = {
    name
    for name, found in vars(commands).items()
    if isinstance(found, type) and issubclass(found, commands.Command) and found is not commands.Command
} - {"CloseTenant"}
"""But the one that closes all that a pool process shows under a name, whosever it is."""


@pytest.mark.parametrize("package", ["tenants", "orchestrator", "tasks", "xmpp_pool"])
def test_each_command_says_for_which_tenant_it_is(package: str) -> None:
    unbound = []
    for path in (_PROJECT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _COMMANDS:
                continue
            if "incarnation" not in {keyword.arg for keyword in node.keywords}:
                unbound.append(f"{path.relative_to(_PROJECT)}:{node.lineno} {node.func.id}")
    assert unbound == []
