"""A trial can be stopped early: why, and after what share of a whole run; and decisions are kept with what they saw."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("metta_trials", sa.Column("stopped", sa.Text()))
    op.add_column("metta_trials", sa.Column("share", sa.Double()))
    op.create_table(
        "metta_decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column(
            "sweep_id", sa.Integer, sa.ForeignKey("metta_sweeps.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
    )
