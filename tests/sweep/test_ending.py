"""When a sweep ends by itself: where its grid is done, and at its target."""

from __future__ import annotations

import io
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from metta.common.console import Console
from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition, open_sweep
from metta.sweep.ending import ending_text
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.function import RunningTrial, function_sweep
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.store import open_store
from metta.sweep.sweep import SweepLoop
from metta.sweep.sweep_config import SweepConfig
from metta.sweep.trial import TrialState
from tests.support.parabola import Parabola, parabola_definition, prepare_parabola
from tests.sweep.test_sweep import SilentView

GRID = {"choices": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}


def grid_definition(tool: Parabola | None = None) -> SweepDefinition:
    parameters = {"x": ParameterConfig(min=0, max=1, step=0.05, distribution="uniform")}
    protein = ProteinConfig(metric="score", method="grid", parameters=parameters)
    return parabola_definition(21, tool).model_copy(update={"protein": protein})


def drive(url: str, definition: SweepDefinition) -> None:
    store = open_store(url)
    try:
        definition = open_sweep(store, "s", definition)
        prepare = partial(prepare_parabola, definition)
        SweepLoop("s", definition, store, InlineExecutor(), prepare, SilentView(), exclusive=False).run()
    finally:
        store.close()


def test_drivers_at_the_same_time_never_take_the_same_point_and_stop_when_the_grid_is_done(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'sweeps.db'}"
    definition = grid_definition(Parabola(steps=1, seconds_per_step=0.02))
    open_sweep(store := open_store(url), "s", definition)
    drivers = [threading.Thread(target=drive, args=(url, definition)) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()

    tried = [trial.params["x"] for trial in store.trials("s")]
    store.close()
    assert sorted(tried) == [round(0.05 * i, 2) for i in range(21)]


def test_a_mishap_takes_no_point_of_a_grid_away(tmp_path: Path) -> None:
    names = iter(["other", "score"])

    def measure(config: dict[str, Any], trial: RunningTrial) -> dict[str, float]:
        return {next(names) if config["x"] == 0.1 else "score": config["x"]}

    def run() -> list[float]:
        sweep = function_sweep(
            measure, {"x": GRID}, "score", method="grid", name="g", store=f"sqlite:///{tmp_path}/s.db"
        )
        trials = sweep.run(Console(file=io.StringIO())).trials
        return [trial.params["x"] for trial in trials if trial.state is TrialState.COMPLETED]

    assert run() == [0.0, *GRID["choices"][2:]]
    assert run() == GRID["choices"]


def test_a_grid_is_extended_by_what_is_new_in_it(tmp_path: Path) -> None:
    def run(choices: list[float], **fields: Any) -> list[tuple[float, int]]:
        tried: list[tuple[float, int]] = []

        def train(config: Any, trial: Any) -> float:
            tried.append((config["x"], config["seed"]))
            return float(config["x"])

        parameters = {"x": {"choices": choices}, "seed": {"choices": [0, 1]}}
        sweep = function_sweep(
            train,
            parameters,
            "score",
            name="g",
            method="grid",
            store=f"sqlite:///{tmp_path / 'g.db'}",
            wandb={"enabled": False},
            write_report=False,
            **fields,
        )
        result = sweep.run(Console(file=io.StringIO()))
        assert result.state.complete
        return tried

    assert run([1.0, 2.0], num_trials=3) == [(1.0, 0), (1.0, 1), (2.0, 0)]
    assert run([1.0, 2.0]) == [(2.0, 1)]
    assert run([1.0, 2.0], num_trials=50) == []
    assert run([1.0, 3.0, 2.0], on_change="extend") == [(3.0, 0), (3.0, 1)]


@pytest.mark.parametrize(
    ("goal", "target", "trials"), [("maximize", 0.55, 7), ("minimize", 0.25, 3), ("maximize", 9, 8)]
)
def test_a_sweep_ends_at_its_target_and_says_so_in_its_last_line(
    goal: Any, target: float, trials: int, tmp_path: Path
) -> None:
    shown = io.StringIO()
    values = iter([0.3, 0.4, 0.2, 0.5, 0.41, 0.42, 0.6, 0.1])
    sweep = function_sweep(
        lambda config, trial: next(values),
        {"x": GRID},
        "score",
        num_trials=8,
        name="t",
        goal=goal,
        target=target,
        method="random",
        store=f"sqlite:///{tmp_path / 't.db'}",
        wandb={"enabled": False},
        write_report=False,
    )
    state = sweep.run(Console(file=shown, width=200)).state

    assert state.counted == trials
    last = shown.getvalue().strip().splitlines()[-1]
    assert last == ending_text(state) if trials < 8 else "target" not in last
    if trials < 8:
        assert f"trial {trials - 1} reached the target score {'>=' if goal == 'maximize' else '<='} {target}" in last


def test_what_a_grid_cannot_be_is_refused_before_anything_runs() -> None:
    continuous = {"x": ParameterConfig(min=0, max=1, distribution="uniform")}
    with pytest.raises(UserError, match="x: a grid needs countable values"):
        function_sweep(lambda config, trial: 0.0, continuous, "m", method="grid").definition()
    protein = ProteinConfig(metric="m", method="grid", parameters={"x": GRID})
    with pytest.raises(ValueError, match="a grid has each point once"):
        SweepConfig(protein=protein, seeds_per_trial="auto")
    with pytest.raises(ValueError, match="num_trials is missing"):
        SweepConfig(protein=protein.model_copy(update={"method": "random"}))
