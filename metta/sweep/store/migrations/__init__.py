"""How the schema came to be. New stores are made from `schema` at once; older ones walk these steps."""

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
