"""Brings the database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_FOLDER = Path(__file__).parent / "migrations"


def alembic_config() -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    return config


def upgrade() -> None:
    """Run the migrations that the database of the settings has not seen."""
    command.upgrade(alembic_config(), "head")
