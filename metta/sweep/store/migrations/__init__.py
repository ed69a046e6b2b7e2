"""The history of the schema. New stores are created directly from `schema`; older ones are migrated in these steps."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

_SCRIPTS = "metta.sweep.store:migrations"


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for migrations on an open connection, in the transaction that it is in."""
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Bring the schema up to the newest version."""
    command.upgrade(configuration(connection), "head")
