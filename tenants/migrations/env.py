"""Alembic's environment: the registry's tables, on the database of the settings."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from config.settings import Settings
from tenants.database import Database
from tenants.models import Base


def _migrate(connection: Connection) -> None:
    # SQLite changes columns by rebuilding the table, which Alembic calls a batch
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def _run() -> None:
    database = Database(Settings.load().database_url.get_secret_value())
    try:
        async with database.engine.begin() as connection:
            await connection.run_sync(_migrate)
    finally:
        await database.close()


asyncio.run(_run())
