"""The search spaces of PufferLib and CARBS."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.sweep.interop.carbs import from_carbs
from metta.sweep.interop.pufferlib import from_pufferlib, read_pufferlib
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

BASE = """
[train]
learning_rate = 0.015

[sweep]
method = Protein
metric = score
goal = maximize
max_suggestion_cost = 3600
downsample = 5

[sweep.train.total_timesteps]
distribution = log_normal
min = 1e6
max = 16e6
scale = time

[sweep.train.gamma]
distribution = logit_normal
min = 0.8
max = 0.9999
mean = 0.98
scale = auto
"""
OF_ENVIRONMENT = """
[sweep]
metric = perf

[sweep.policy.hidden_size]
distribution = uniform_pow2
min = 32
max = 1024
scale = 0.5
"""


def make_sweep(**changes: Any) -> dict[str, Any]:
    space = {"distribution": "uniform", "min": 0.0, "max": 1.0, "scale": "auto"}
    return {"metric": "score", "goal": "maximize", "train": {"clip_coef": space}, **changes}


def test_the_files_of_pufferlib(tmp_path: Path) -> None:
    for name, text in {"default.ini": BASE, "breakout.ini": OF_ENVIRONMENT}.items():
        (tmp_path / name).write_text(text)
    config = read_pufferlib(tmp_path / "default.ini", tmp_path / "breakout.ini", whole={"train.total_timesteps"})
    assert (config.metric, config.goal, config.settings.max_suggestion_cost) == ("perf", "maximize", 3600)
    assert flatten(config.parameters) == {
        "train.total_timesteps": ParameterConfig(min=1e6, max=16e6, distribution="int_log_normal", scale=0.125),
        "train.gamma": ParameterConfig(min=0.8, max=0.9999, mean=0.98, distribution="logit_normal"),
        "policy.hidden_size": ParameterConfig(min=32, max=1024, distribution="uniform_pow2", scale=0.25),
    }
    params, _ = Protein(config, seed=0).suggest()
    assert params["train"]["gamma"] == pytest.approx(0.98)
    assert isinstance(params["train"]["total_timesteps"], int)


def test_sweep_only_is_kept() -> None:
    sweep = make_sweep(sweep_only="clip, lr")
    sweep["train"]["gamma"] = {"distribution": "uniform", "min": 0, "max": 1, "scale": "auto"}
    assert set(flatten(from_pufferlib(sweep).parameters)) == {"train.clip_coef"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "ParetoGenetic"}, "sweep.method: 'ParetoGenetic' is not there"),
        ({"max_run": 3}, "sweep.max_run: unknown.*max_runs"),
        ({"goal": "up"}, "sweep: .*goal"),
        ({"a": {"b": 3}}, "sweep.a.b: 3 is not a search space"),
        ({"a": {"distribution": "uniform", "min": 3}}, "sweep.a: 'max' is missing"),
        ({"a": {"distribution": "gauss", "min": 0, "max": 1, "scale": 1}}, "sweep.a: distribution"),
        ({"a": {"distribution": "log_normal", "min": 0, "max": 1, "scale": 1}}, "sweep.a: .*log scale needs min above"),
        ({"a": {"distribution": "log_normal", "min": "x", "max": 1, "scale": "time"}}, "sweep.a: .* is not a range"),
    ],
)
def test_what_of_pufferlib_cannot_be_done_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_pufferlib(make_sweep(**changes))


def test_whole_parameters_must_be_there() -> None:
    with pytest.raises(UserError, match=r"no parameter 'train.clip'; .*train.clip_coef"):
        from_pufferlib(make_sweep(), whole=["train.clip"])


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.ini: cannot be read"):
        read_pufferlib(tmp_path / "nowhere.ini")
    (tmp_path / "a.ini").write_text("[train]\nx = 1\n")
    with pytest.raises(UserError, match=r"there is no \[sweep\] section"):
        read_pufferlib(tmp_path / "a.ini")


# ---- CARBS, by its attribute names


@dataclass
class LinearSpace:
    min: float = -inf
    max: float = inf
    scale: float = 1.0
    is_integer: bool = False
    rounding_factor: int = 1


@dataclass
class LogSpace(LinearSpace):
    min: float = 0.0
    base: int = 10


@dataclass
class LogitSpace:
    min: float = 0.0
    max: float = 1.0
    scale: float = 1.0
    is_integer: bool = False


@dataclass
class ChoiceSpace:
    choices: tuple[str, ...] = ("a", "b")


@dataclass
class Param:
    name: str
    space: Any
    search_center: float


def converted(space: Any, centre: float) -> dict[str, Any]:
    return from_carbs([Param("x", space, centre)])["x"].model_dump(exclude_none=True)


@pytest.mark.parametrize(
    ("space", "centre", "expected"),
    [
        (LinearSpace(scale=3), 5, ("uniform", -1, 11, 0.075)),
        (LinearSpace(min=0, max=1, scale=0.5), 0.5, ("uniform", 0, 1, 0.15)),
        (LinearSpace(min=1, scale=4, is_integer=True), 5, ("int_uniform", 1, 13, 0.1)),
        (LogSpace(scale=0.5), 1e-3, ("log_normal", 1e-4, 1e-2, 0.075)),
        (LogSpace(min=8, max=128, is_integer=True, base=2), 32, ("int_log_normal", 8, 128, 0.075)),
        (LogSpace(is_integer=True), 20, ("int_log_normal", 1, 2000, pytest.approx(0.3 / 3.30103))),
        (LogitSpace(), 0.5, ("logit_normal", pytest.approx(1 / 101), pytest.approx(100 / 101), pytest.approx(0.075))),
    ],
)
def test_the_spaces_of_carbs(space: Any, centre: float, expected: tuple[Any, ...]) -> None:
    distribution, low, high, scale = expected
    assert converted(space, centre) == {
        "distribution": distribution,
        "min": pytest.approx(low) if isinstance(low, float | int) else low,
        "max": pytest.approx(high) if isinstance(high, float | int) else high,
        "mean": centre,
        "scale": pytest.approx(scale) if isinstance(scale, float) else scale,
    }


def test_protein_begins_at_the_search_centre_of_carbs() -> None:
    params = from_carbs([Param("lr", LogSpace(scale=0.5), 3e-4), Param("layers", LinearSpace(1, 9, 3, True), 4)])
    suggestion, _ = Protein(ProteinConfig(metric="score", parameters=params), seed=0).suggest()
    assert suggestion == {"lr": pytest.approx(3e-4), "layers": 4}


def test_a_bound_that_carbs_has_not_is_told(caplog: pytest.LogCaptureFixture) -> None:
    converted(LogSpace(), 1e-3)
    assert [record.getMessage() for record in caplog.records] == [
        "x: CARBS has no lower bound, so it is searched from 1e-05",
        "x: CARBS has no upper bound, so it is searched up to 0.1",
    ]


@pytest.mark.parametrize(
    ("space", "centre", "reason"),
    [
        (ChoiceSpace(), 0, "x: ChoiceSpace is none of LinearSpace"),
        (LinearSpace(rounding_factor=8), 8, "x: rounding_factor=8"),
        (LogSpace(), 0.0, "x: the search centre 0.0 has no place in a LogSpace"),
        (LogSpace(min=1, max=2), 5.0, "x: mean .* is outside"),
        (LogitSpace(), 1.0, "x: the search centre"),
    ],
)
def test_what_of_carbs_cannot_be_done_is_named(space: Any, centre: float, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_carbs([Param("x", space, centre)])


def test_carbs_names_are_unique() -> None:
    with pytest.raises(UserError, match="x: given twice"):
        from_carbs([Param("x", LogSpace(), 1.0)] * 2)
