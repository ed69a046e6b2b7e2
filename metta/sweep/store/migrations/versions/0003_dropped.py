"""A trial can be dropped, and says what its cost is measured in: so far that was its sweep's cost metric."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("metta_trials", sa.Column("dropped", sa.Text()))
    op.add_column("metta_trials", sa.Column("cost_metric", sa.Text()))
    connection = op.get_bind()
    fill = sa.text("UPDATE metta_trials SET cost_metric = :cost_metric WHERE sweep_id = :sweep_id AND cost IS NOT NULL")
    for sweep_id, config in connection.execute(sa.text("SELECT id, CAST(config AS TEXT) FROM metta_sweeps")).all():
        cost_metric = _cost_metric(config)
        if cost_metric is not None:
            connection.execute(fill, {"cost_metric": cost_metric, "sweep_id": sweep_id})


def _cost_metric(config: Any) -> str | None:
    """The cost metric of a sweep's configuration, or None if it is unreadable."""
    try:
        cost_metric = json.loads(config)["cost_metric"]
        cost_metric.encode("utf-8")
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None
    return None if "\x00" in cost_metric else str(cost_metric)
