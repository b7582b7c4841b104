"""Alembic's environment: the registry's tables, on the database of the settings.

Each revision is a transaction: one that fails leaves nothing behind, and the version before goes on with what there is.
SQLite's tables are changed as its documentation says (https://www.sqlite.org/lang_altertable.html#otheralter):
with foreign keys off from before the transaction begins, and a check of them before it is committed.
"""

import asyncio

from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

from config.settings import Settings
from tenants.store.database import Database
from tenants.store.models import Base


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite changes columns by rebuilding the table, which Alembic calls a batch
        render_as_batch=True,
        transaction_per_migration=True,
        # Alembic thinks otherwise of SQLite, because Python's driver commits before DDL; ours does not
        transactional_ddl=True,
        on_version_apply=_check_foreign_keys,
    )
    with context.begin_transaction():
        context.run_migrations()


def _check_foreign_keys(ctx: MigrationContext, *_: object, **_rest: object) -> None:
    """Let a revision fail that leaves a row without what it refers to."""
    connection = ctx.connection
    if connection is None or connection.dialect.name != "sqlite":
        return
    broken = {f"{row.table} -> {row.parent}" for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}
    if broken:
        raise RuntimeError(f"rows refer to rows that are gone: {', '.join(sorted(broken))}")


async def _run() -> None:
    database = Database(Settings.load().database_url.get_secret_value(), migrating=True)
    try:
        async with database.engine.execution_options(write=True).connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await database.close()


asyncio.run(_run())
