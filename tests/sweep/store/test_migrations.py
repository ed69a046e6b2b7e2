"""Stores are made at once from the schema, and older ones walk the migrations: both ways lead to the same tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from metta.sweep.store import database as database_module
from metta.sweep.store import open_store
from metta.sweep.store.migrations import configuration, upgrade
from metta.sweep.store.protocol import Outcome
from metta.sweep.store.schema import SCHEMA_VERSION, VERSION_TABLE, metadata
from metta.sweep.trial import TrialState


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = create_engine(store_url)
    yield engine
    engine.dispose()


def test_the_migrations_lead_to_the_schema(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade(connection)
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA_VERSION


def test_the_newest_migration_is_the_version_of_the_schema(engine: Engine) -> None:
    with engine.connect() as connection:
        assert ScriptDirectory.from_config(configuration(connection)).get_heads() == [SCHEMA_VERSION]


@pytest.mark.parametrize("version", ["0001", "0002"])
def test_a_store_of_every_older_version_opens_with_its_trials(engine: Engine, store_url: str, version: str) -> None:
    with engine.begin() as connection:
        command.upgrade(configuration(connection), version)
        connection.execute(
            text("INSERT INTO metta_sweeps (id, name, config, revision, origin, created_at) VALUES "
                 "(1, 'old', '{\"seed\": 3}', 1, 'x', 1700000000.5), "
                 "(2, 'counted', '{\"cost_metric\": \"tokens\", \"bound\": {\"$float\": \"inf\"}}', 1, 'x', 0), "
                 "(3, 'edited', '[3]', 1, 'x', 0)")
        )  # fmt: skip
        connection.execute(
            text("INSERT INTO metta_trials (sweep_id, number, state, params, suggestion, attempts, score, cost, "
                 "metrics, artefacts, revision, origin) "
                 "VALUES (1, 0, 'completed', '{\"lr\": 0.1}', '{}', 1, 2.5, 3.0, '{\"m\": 2.5}', '{}', 1, 'y'), "
                 "(2, 0, 'completed', '{}', '{}', 1, 1.0, 3.0, '{}', '{}', 1, 'y'), "
                 "(2, 1, 'queued', '{}', '{}', 0, NULL, NULL, '{}', '{}', 1, 'y'), "
                 "(3, 0, 'completed', '{}', '{}', 1, 1.0, 3.0, '{}', '{}', 1, 'y')")
        )  # fmt: skip
    store = open_store(store_url)
    assert store.sweep("old").config == {"seed": 3}
    (trial,) = store.trials("old")
    assert (trial.state, trial.params, trial.score, trial.cost) == (TrialState.COMPLETED, {"lr": 0.1}, 2.5, 3.0)
    assert (trial.dropped, trial.cost_metric, trial.damage) == (None, None, ())
    assert [trial.cost_metric for trial in store.trials("counted")] == ["tokens", None]
    assert [trial.cost_metric for trial in store.trials("edited")] == [None]
    assert store.add("old", {"lr": 0.2}, Outcome(TrialState.FAILED)) == 1
    assert not store.paused("old")
    store.close()


def test_a_store_of_a_later_schema_is_reached_from_this_one(
    engine: Engine, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way that the next schema will take, tried with a migration made for the test."""
    version = f"{int(SCHEMA_VERSION) + 1:04d}"
    open_store(store_url).close()
    later = tmp_path / "migrations"
    (later / "versions").mkdir(parents=True)
    ours = Path(database_module.__file__).with_name("migrations")
    for file in [ours / "env.py", *(ours / "versions").glob("*.py")]:
        (later / file.relative_to(ours)).write_text(file.read_text())
    (later / "versions" / f"{version}_owner.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '{version}'\ndown_revision = '{SCHEMA_VERSION}'\n"
        "def upgrade():\n"
        "    with op.batch_alter_table('metta_trials') as table:\n"
        "        table.add_column(sa.Column('owner', sa.String(20), server_default='nobody'))\n"
    )
    monkeypatch.setattr("metta.sweep.store.migrations._SCRIPTS", str(later))
    monkeypatch.setattr(database_module, "SCHEMA_VERSION", version)
    store = open_store(store_url)
    store.create_sweep("arena", {})
    store.add("arena", {}, Outcome(TrialState.COMPLETED))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT owner FROM metta_trials")) == "nobody"
        assert connection.scalar(text("SELECT version_num FROM metta_schema_version")) == version
    store.close()
