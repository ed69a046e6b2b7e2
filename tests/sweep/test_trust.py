"""A store that others may write to: no code outside the project is imported for it, and no other file is read."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from metta.common import shared_files
from metta.common.errors import UserError
from metta.common.trust import is_own
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import SweepDefinition
from metta.sweep.retention import Retention, require_written_by, sweep_folder, trial_folder
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import SweepRecord
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Trial, TrialState
from metta.tools.sweep import retrain
from tests.support.made_sweep import made_definition, make_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `mine`, an environment with a package `theirs`, and a module `outside` elsewhere."""
    marker = "import pathlib; pathlib.Path(__file__).with_suffix('.imported').touch()\ndef make(): ...\n"
    project, installed = tmp_path / "project", tmp_path / "project" / ".venv" / "lib" / "site-packages"
    for folder, name in ((project, "mine"), (installed, "theirs"), (tmp_path / "elsewhere", "outside")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}_module.py").write_text(marker)
        monkeypatch.syspath_prepend(folder)
    (project / "spaced").mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path))
    return project


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("mine_module.make", True),
        ("mine_module:make", True),
        ("spaced.sub.make", True),
        ("metta.tools.train:TrainTool", True),
        ("experiments.sweep_arena.sweep_optimizer", True),
        ("theirs_module.make", False),
        ("outside_module.make", False),
        ("os.system", False),
        ("builtins.exec", False),
        ("numpy.load", False),
        ("__main__.x", False),
        ("no_such_package.x", False),
        ("", False),
        ("../x.y", False),
    ],
)
def test_what_belongs_to_a_project(project: Path, name: str, own: bool) -> None:
    assert is_own(name, project) is own
    assert not list(project.parent.rglob("*.imported"))


@pytest.mark.parametrize("command", ["work", "confirm"])
def test_code_from_elsewhere_is_refused_unless_the_store_is_trusted(
    project: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_store(f"sqlite:///{project.parent}/sweeps.db")) as store:
        definition = make_sweep(store, "made", 4)
        for entry_point in (
            {"path": "metta.sweep.function.FunctionSweep", "args": {"function": "outside_module:make"}},
            {"path": "outside_module.make"},
        ):
            store.update_sweep("made", definition.model_dump(mode="json"), entry_point)
            assert metta_sweep([command, "made"]) == 2
            error = capsys.readouterr().err
            assert "the store names 'outside_module" in error
            assert error.endswith("if you trust everybody who can write to the store, add --trust\n")
            assert not list(project.parent.rglob("*.imported"))
        assert metta_sweep([command, "made", "--trust"]) == 2
    assert "importing outside_module.make, which 'made' in the store names" in capsys.readouterr().err
    assert list(project.parent.rglob("outside_module.imported"))
    sys.modules.pop("outside_module")


def test_a_tool_from_elsewhere_is_not_trained_again(project: Path) -> None:
    with closing(open_store(f"sqlite:///{project.parent}/sweeps.db")) as store:
        definition = make_sweep(store, "made", 4)
        changed = definition.model_copy(update={"tool_class": "outside_module:make"})
        store.update_sweep("made", changed.model_dump(mode="json"))
    with pytest.raises(UserError, match=r"'outside_module:make' .* add --args trust=true"):
        retrain("made", trial=0)
    assert not list(project.parent.rglob("*.imported"))


def test_reading_a_sweep_imports_nothing_that_it_names(project: Path) -> None:
    (project.parent / "elsewhere" / "evil").mkdir()
    (project.parent / "elsewhere" / "evil" / "traits.py").write_text("raise SystemExit('imported')")
    data = made_definition(3).model_dump(mode="json", exclude={"traits"}) | {"tool_class": "evil.tool:Tool"}
    assert SweepDefinition.model_validate(data).traits == ToolTraits()


def state_of(project: Path, **changes: Any) -> SweepState:
    definition = made_definition(3)
    definition = definition.model_copy(update={"tool": definition.tool | {"policies": "s3://bucket/policies"}})
    trial = replace(Trial(1, TrialState.COMPLETED, {}), **changes)
    return SweepState.of(SweepRecord("made", {}, None, datetime(2026, 1, 1, tzinfo=UTC)), definition, [trial])


def test_a_policy_is_read_only_from_where_its_trial_wrote_it(project: Path) -> None:
    state = state_of(project)
    folder = trial_folder(sweep_folder(state.record), 1)
    for uri in ((folder / "checkpoints" / "000061").as_uri(), "s3://bucket/policies/made.0001/000061"):
        require_written_by(state, state.trials[0], uri)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "link").symlink_to("/etc")
    for uri in (
        "file:///etc/passwd",
        (folder.parent / "trial_0002" / "x").as_uri(),
        f"{folder.as_uri()}/../../../x",
        f"{folder.as_uri()}/checkpoints/link/passwd",
        folder.as_uri(),
        "s3://bucket/policies/made.0002/x",
        "s3://bucket/policies/made.0001/../../x",
        "s3://bucket/policies/made.0001/%2e%2e/x",
        "s3://bucket/policies/made.0001/x?versionId=1",
        "https://example.org/policy",
        "policy",
        "",
    ):
        with pytest.raises(UserError, match="is not read, because it is not where the sweep writes") as refused:
            require_written_by(state, state.trials[0], uri)
        assert "\n" not in str(refused.value)


def test_nothing_outside_a_trials_folder_is_deleted(project: Path) -> None:
    shared, precious = project.parent / "shared" / "made.0001", project.parent / "precious"
    for folder in (shared, precious):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    artefacts = {"own": f"{shared.as_uri()}/file", "other": f"{shared.as_uri()}/../../precious/file"}
    state = state_of(project, artefacts=artefacts, state=TrialState.FAILED)
    kept_one = state.definition.model_copy(update={"keep_policies": "best", "num_trials": 1})
    state = SweepState.of(state.record, kept_one, [*state.trials])
    Retention(project, lambda number: shared.as_uri()).sweep_ended(state)
    assert (precious / "file").exists()
    assert not (shared / "file").exists()
    assert shared_files.local_path(shared.as_uri()) == shared
