"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _create_sweeps_and_drivers()
    _create_trials()
    _create_attempts_and_curves()
    _create_mirrored()


def _create_sweeps_and_drivers() -> None:
    op.create_table(
        "metta_sweeps",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("entry_point", sa.JSON()),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "metta_drivers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "sweep_id", sa.Integer(), sa.ForeignKey("metta_sweeps.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("boot", sa.String(100), nullable=False),
        sa.Column("process_started", sa.String(40), nullable=False),
        sa.Column("lease_seconds", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("seen_monotonic", sa.Double(), nullable=False),
        sa.Column("left_at", sa.Double()),
    )


def _create_trials() -> None:
    op.create_table(
        "metta_trials",
        sa.Column("sweep_id", sa.Integer(), sa.ForeignKey("metta_sweeps.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("suggestion", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double()),
        sa.Column("cost", sa.Double()),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("artefacts", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("created_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
    )
    op.create_index("metta_trials_revision", "metta_trials", ["sweep_id", "revision"])
    op.create_index("metta_trials_state", "metta_trials", ["sweep_id", "state", "number"])


def _create_attempts_and_curves() -> None:
    op.create_table(
        "metta_attempts",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("driver_id", sa.String(32), sa.ForeignKey("metta_drivers.id", ondelete="CASCADE"), index=True),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("started_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.ForeignKeyConstraint(
            ["sweep_id", "number"], ["metta_trials.sweep_id", "metta_trials.number"], ondelete="CASCADE"
        ),
        sa.UniqueConstraint("sweep_id", "number", "attempt"),
    )
    op.create_index("metta_attempts_state", "metta_attempts", ["sweep_id", "state"])
    op.create_table(
        "metta_curve_points",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column(
            "token",
            sa.String(32),
            sa.ForeignKey("metta_attempts.token", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
    )


def _create_mirrored() -> None:
    op.create_table(
        "metta_mirrored",
        sa.Column("sweep_id", sa.Integer(), sa.ForeignKey("metta_sweeps.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("mirror", sa.String(400), primary_key=True),
        sa.Column("item", sa.String(40), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
    )
