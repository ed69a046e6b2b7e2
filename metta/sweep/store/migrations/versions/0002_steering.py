"""A sweep can be paused, its drivers can be asked to stop, and an attempt says how much work it has to do."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("metta_sweeps", sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("metta_drivers", sa.Column("stopping", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("metta_attempts", sa.Column("total", sa.BigInteger()))
