"""Run by alembic: migrates on the connection it was given, and leaves the transaction to its owner."""

from alembic import context

from metta.sweep.store.schema import VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",  # SQLite's ALTER TABLE can do little
)
context.run_migrations()
