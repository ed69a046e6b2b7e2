from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from metta.common.config import ConfigError
from metta.common.errors import UserError
from metta.sweep import ParameterConfig, optimize
from metta.sweep.foreign_ranges import foreign
from metta.sweep.function import RunningTrial
from metta.sweep.program.command_sweep import from_file
from metta.sweep.protein_config import ProteinConfig, ProteinSettings
from metta.sweep.sweep_config import SweepConfig

LOG = '{"min": 0.0001, "max": 0.1, "distribution": "log_normal"}'

FOREIGN = [
    ([1e-4, 0.1], LOG),
    ((1e-4, 0.1), LOG),
    ({"min": 1e-4, "max": 0.1, "distribution": "loguniform"}, LOG),
    ({"min": 1e-4, "max": 0.1, "distribution": "log_uniform_values"}, LOG),
    ({"min": 1e-4, "max": 0.1}, LOG),
    ({"low": 1e-4, "high": 0.1, "log": True}, LOG),
    ("tune.loguniform(1e-4, 1e-1)", LOG),
    ('trial.suggest_float("lr", 1e-4, 1e-1, log=True)', LOG),
    ("1e-4..1e-1:log", LOG),
    ("(1e-4, 0.1)", LOG),  # as YAML reads it
    ("[1e-4, 0.1]", LOG),
    ("1e-4 to 1e-1", LOG),
    ("1e-4-1e-1", LOG),
    (range(1, 9), '{"min": 1, "max": 8, "distribution": "int_uniform"}'),
    ({"values": [16, 32]}, '{"choices": [16, 32]}'),
    ({"grid_search": [16, 32]}, '{"choices": [16, 32]}'),
    (["adam", "sgd"], '{"choices": ["adam", "sgd"]}'),
    ({"value": 3}, "3"),
    ({"choices": range(3)}, "choices: expected a list, not range(0, 3)"),
    ({"choices": "relu"}, "choices: expected a list, not 'relu'"),
    ({"min": 1, "mx": 2}, "'mx' is unknown; did you mean 'max'?"),
    ({"minn": 1, "max": 2, "step": 1}, "'minn' is unknown; did you mean 'min'?"),
]


@pytest.mark.parametrize(("value", "line"), FOREIGN)
def test_a_range_of_another_tool_is_refused_with_the_line_to_write(value: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        optimize(lambda config, trial: 0.0, {"model.lr": value}, "loss", 3)
    assert str(caught.value).startswith("parameters.model.lr: ") or "optimize: parameters" in str(caught.value)
    assert line in str(caught.value)
    assert "Input should" not in str(caught.value)


def test_a_file_of_ours_is_read_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("command: prog ${args}\nmetric: loss\nnum_trials: 3\nparameters:\n  model: {lr: [1e-4, 0.1]}\n")
    with pytest.raises(UserError, match=r"sweep\.yaml, line 5: parameters\.model\.lr: .*log_normal"):
        from_file(str(path))


def test_distributions_of_other_libraries_are_refused_with_the_line_to_write() -> None:
    distributions = pytest.importorskip("optuna").distributions
    stats = pytest.importorskip("scipy.stats")
    assert LOG in str(foreign(distributions.FloatDistribution(1e-4, 0.1, log=True)))
    assert '{"choices": ["a", "b"]}' in str(foreign(distributions.CategoricalDistribution(["a", "b"])))
    assert LOG in str(foreign(stats.loguniform(1e-4, 0.1)))
    tune = pytest.importorskip("ray.tune")
    assert LOG in str(foreign(tune.loguniform(1e-4, 0.1)))
    assert '"max": 7, "distribution": "int_uniform"' in str(foreign(tune.randint(1, 8)))


@pytest.mark.parametrize(
    "value",
    [
        3,
        None,
        True,
        "adam",
        "a..b",
        "relu()",
        "64,128",
        "1-2",
        "2024-01-02",
        [64, 64],
        [0.9, 0.99],
        [1],
        {"a": 1},
        {"lr": [1, 9]},
        {"min": 1},
        {"min": 1, "mix": 2},
        {"min_x": 0, "max_x": 1},
    ],
)
def test_fixed_values_stay_fixed(value: Any) -> None:
    assert foreign(value) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ParameterConfig(**{"min": 1, "max": 2, "distribution": "loguniform"}), "write .*log_normal"),
        (lambda: ParameterConfig(**{"min": 1, "max": 2, "distribution": "unifrom"}), "did you mean 'uniform'"),
        (lambda: ParameterConfig(**{"min": 1, "max": 2}), "the distribution is missing; write"),
        (lambda: ProteinConfig(metric="x", goal="min", parameters={"a": {"choices": [1, 2]}}), "'minimize'"),
        (lambda: ProteinSettings(**{"num_random_sample": 3}), "did you mean 'num_random_samples'"),
        (lambda: SweepConfig(**{"num_trials": 3}), "protein is missing"),
        (lambda: ParameterConfig(*[1, 2], **{}), r"by name: ParameterConfig\(min=\.\.\., max=\.\.\."),
    ],
)
def test_a_configuration_that_is_made_in_code_says_in_our_words_what_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make()
    assert not isinstance(caught.value, ValidationError)
    assert "Input should" not in str(caught.value)


def test_a_value_that_is_assigned_says_in_our_words_that_it_does_not_fit() -> None:
    settings = ProteinSettings()
    with pytest.raises(
        ConfigError, match=r"num_random_samples: -1 \(int\) does not fit int \| None: must be at least 0"
    ):
        settings.num_random_samples = -1
    assert settings.num_random_samples is None


def test_a_function_that_asks_its_trial_as_in_optuna_learns_where_ranges_stand(tmp_path: Path) -> None:
    trial = RunningTrial(0, 1, 0, tmp_path)
    with pytest.raises(AttributeError, match=r'`parameters` declares each range.*config\["lr"\]'):
        trial.suggest_float("lr", 1e-5, 1e-1)
    with pytest.raises(AttributeError, match="did you mean 'report'"):
        trial.reprot(1, {})
