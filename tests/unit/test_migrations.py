"""The migrations make what the models say: checked by Alembic's own comparison."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from bench.testbed.system import migrate
from tenants.store.models import Base


def test_the_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    migrate(f"sqlite+aiosqlite:///{tmp_path}/registry.db")
    engine = create_engine(f"sqlite:///{tmp_path}/registry.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()
