"""The search spaces of PufferLib, CARBS and Metta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest

from metta.common.config import flatten
from metta.common.errors import UserError
from metta.sweep.ending import trials_of
from metta.sweep.interop.carbs import from_carbs
from metta.sweep.interop.metta import SP, Distribution, from_metta
from metta.sweep.interop.metta import grid_search as metta_grid_search
from metta.sweep.interop.metta import make_sweep as make_metta_sweep
from metta.sweep.interop.pufferlib import from_pufferlib, read_pufferlib
from metta.sweep.protein import Protein
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from tests.support.functions import parabola

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


def read_text(tmp_path: Path, *texts: str) -> ProteinConfig:
    paths = [tmp_path / f"{i}.ini" for i in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return read_pufferlib(*paths)


SPACE = "\n[sweep.train.x]\ndistribution = {}\nmin = {}\nmax = {}\nmean = {}\nscale = auto\n"
METRIC = "[sweep]\nmetric = score\ngoal = maximize\n"
SECTION = "[sweep]\nname = sweep\n[sweep.metric]\nname = reward\ngoal = minimize\nmin = 0\nmax = None\n"


@pytest.mark.parametrize("name", ["uniform", "log_normal", "logit_normal", "uniform_pow2"])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.99), (0.6, 0.995), (0.5, 0.999)])
@pytest.mark.parametrize("off", [0, 1e-16, -1e-16, 2e-11, -2e-11])
def test_a_mean_outside_by_rounding_is_the_bound(
    tmp_path: Path, name: str, low: float, high: float, off: float
) -> None:
    if name == "uniform_pow2":
        low, high = 2.0, 64.0
    for bound in (low, high):
        config = read_text(tmp_path, METRIC + SPACE.format(name, low, high, repr(bound * (1 + off))))
        mean = config.parameters["train"]["x"].mean
        assert low <= mean <= high
        assert mean == pytest.approx(bound)


def test_a_mean_that_lies_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sweep.train.x: mean \(0.59\) is outside 0.6..0.9"):
        read_text(tmp_path, METRIC + SPACE.format("logit_normal", 0.6, 0.9, 0.59))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([METRIC], ("score", "maximize")),
        ([SECTION], ("reward", "minimize")),
        ([METRIC, SECTION], ("reward", "minimize")),
        ([SECTION, METRIC], ("score", "maximize")),
        ([METRIC.replace("\n", "\n\n") + SECTION.replace("[sweep]\nname = sweep\n", "")], ("reward", "minimize")),
        ([METRIC, "[sweep.metric]\nname = perf\n"], ("perf", "minimize")),
    ],
)
def test_a_section_for_the_metric_comes_before_a_plain_one(
    tmp_path: Path, files: list[str], expected: tuple[str, str]
) -> None:
    if files[-1].endswith("perf\n"):
        files = [files[0].replace("maximize", "minimize"), files[1]]
    config = read_text(tmp_path, *files[:-1], files[-1] + SPACE.format("uniform", 0, 1, 0.5))
    assert (config.metric, config.goal) == expected


def test_the_largest_cost_may_stand_in_base(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = "[base]\nenv_name = x\nmax_suggestion_cost = 3600\nmax_cost = 9000\n"
    space = SPACE.format("uniform", 0, 1, 0.5)
    assert read_text(tmp_path, base + METRIC + space).settings.max_suggestion_cost == 3600
    assert "max_cost (give the sweep max_cost)" in caplog.text
    of_environment = "[sweep]\nmax_suggestion_cost = 7200\n"
    assert read_text(tmp_path, base + METRIC + space, of_environment).settings.max_suggestion_cost == 7200


def test_what_is_passed_over_is_named_with_what_takes_its_place(caplog: pytest.LogCaptureFixture) -> None:
    from_pufferlib(make_sweep(downsample=5, early_stop_quantile=0.3, prune_pareto=True, max_runs=1200))
    for name in ("downsample (", "early_stop_quantile (give the sweep early_stopping", "prune_pareto (", "num_trials"):
        assert name in caplog.text


def test_spaces_of_the_older_form_are_read(tmp_path: Path) -> None:
    text = SECTION.replace("name = sweep", "method = bayes") + (
        "[sweep.parameters.train.parameters.steps]\ndistribution = log_uniform_values\nmin = 1_000\nmax = 100_000\n"
        "[sweep.parameters.train.parameters.batch_size]\nvalues = [4096, 8192]\n"
    )
    parameters = read_text(tmp_path, text).parameters
    assert parameters["train"]["steps"].distribution == "log_normal"
    assert parameters["train"]["batch_size"].choices == [4096, 8192]


def test_sweep_only_is_kept() -> None:
    sweep = make_sweep(sweep_only="clip, lr")
    sweep["train"]["gamma"] = {"distribution": "uniform", "min": 0, "max": 1, "scale": "auto"}
    assert set(flatten(from_pufferlib(sweep).parameters)) == {"train.clip_coef"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method": "ParetoGenetic"}, "sweep.method: 'ParetoGenetic' is not .* method = Protein"),
        ({"metric": None}, "sweep.metric is missing; .* default.ini"),
        ({"a": {"distribution": "uniform", "min": 0, "max": 1, "scale": "time"}}, "sweep.a: scale = time needs min"),
        ({"max_run": 3}, "sweep.max_run: unknown.*max_runs"),
        ({"goal": "up"}, "sweep: .*goal"),
        ({"a": {"b": 3}}, "sweep.a.b: 3 is not a search space"),
        ({"a": {"distribution": "uniform", "min": 3}}, "sweep.a: 'max' is missing"),
        ({"a": {"min": 0, "max": 1}}, "sweep.a: its distribution is missing"),
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
        (ChoiceSpace(), 0, "x: ChoiceSpace is not one of LinearSpace"),
        (LogSpace(), 0.0, "x: the search centre 0.0 is outside a LogSpace"),
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


@pytest.mark.parametrize(
    "space",
    [LinearSpace(104e6, inf, 104e6, True, 10_000_000), LogSpace(104e6, 1e9, 0.5, True, 10_000_000)],
)
def test_all_suggestions_are_multiples_of_the_rounding_factor_of_carbs(space: Any) -> None:
    params = from_carbs([Param("steps", space, 153_000_000)])
    protein = Protein(ProteinConfig(metric="score", parameters=params), seed=0)
    values = []
    for _ in range(15):
        suggestion, _ = protein.suggest()
        values.append(suggestion["steps"])
        protein.observe(suggestion, -abs(suggestion["steps"] - 2e8), 1.0)
    assert values[0] == 150_000_000
    assert [value % 10_000_000 for value in values] == [0] * 15
    assert min(values) >= 104e6
    assert len(set(values)) == 15


def test_a_rounding_factor_is_of_whole_numbers_only() -> None:
    assert "step" not in converted(LinearSpace(0, 1, 0.5, rounding_factor=10), 0.5)


# ---- Metta


def test_presets_and_parameters_of_metta() -> None:
    space: list[Mapping[str, Any]] = [
        SP.LEARNING_RATE,
        SP.PPO_CLIP_COEF,
        SP.param("trainer.total_timesteps", Distribution.INT_UNIFORM, min=5e8, max=2e9, search_center=7.5e8),
        SP.categorical("trainer.optimizer.type", ["adam", "muon"]),
        {"trainer.losses.ppo_critic.vf_coef": {"min": 0.1, "max": 1.0, "distribution": "uniform", "scale": "auto"}},
        {"trainer.batch_size": [4096, 8192]},
        {"trainer.seed": 3},
    ]
    converted = from_metta(space)
    assert converted["trainer.optimizer.learning_rate"].mean == 1e-3
    assert converted["trainer.total_timesteps"].mean == 7.5e8
    assert converted["trainer.optimizer.type"].choices == ["adam", "muon"]
    assert converted["trainer.ppo.vf_coef"].max == 1.0
    assert converted["trainer.batch_size"].choices == [4096, 8192]
    assert converted["trainer.seed"] == 3
    params, _ = Protein(ProteinConfig(metric="score", parameters=converted), seed=0).suggest()
    assert params["trainer"]["total_timesteps"] == 750_000_000


@pytest.mark.parametrize(("low", "high"), [(0, 0.9), (0.1, 1), (0, 1), (0.0, 1.0)])
def test_a_logit_scale_at_0_and_1(low: float, high: float) -> None:
    config = SP.param("x", Distribution.LOGIT_NORMAL, min=low, max=high)["x"]
    assert (config.min, config.max) == (low or 1e-6, high if high < 1 else 1 - 1e-6)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ([{"x": [1]}, {"x": [2]}], "x: given twice"),
        ({"trainer.advantage.gae_lambda": [1], "trainer.ppo.gae_lambda": [2]}, "trainer.ppo.gae_lambda: given twice"),
        ({"x": {"min": 2, "max": 1, "distribution": "uniform"}}, r"x: min \(2\) must be below max \(1\)"),
        ({"x": {"min": "a", "max": 1, "distribution": "uniform"}}, "x: .* is not a range"),
        ({"x": []}, "x: a categorical parameter needs choices"),
    ],
)
def test_what_of_metta_cannot_be_searched_is_named(space: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        from_metta(space)


def test_grid_search_of_metta_takes_each_combination_once() -> None:
    space = {
        "trainer": {"losses": {"ppo": {"clip_coef": [0.1, 0.2]}}},
        "trainer.seed": [0, 1, 2],
        "trainer.batch_size": 8,
    }
    fields = metta_grid_search("g", "tests.support.functions", "parabola", "", "score", space, goal="minimize")
    config = fields["sweep"].protein
    assert trials_of(fields["sweep"]) == 6
    suggestions = [params["trainer"] for params, _ in Protein(config).suggest(6)]
    assert [(each["ppo"]["clip_coef"], each["seed"]) for each in suggestions] == [
        (clip, seed) for clip in (0.1, 0.2) for seed in (0, 1, 2)
    ]
    assert {each["batch_size"] for each in suggestions} == {8}
    capped = metta_grid_search("g", "tests.support.functions", "parabola", "", "score", space, max_trials=4)
    assert trials_of(capped["sweep"]) == 4
    ranged = metta_grid_search("g", "tests.support.functions", "parabola", "", "score", [SP.ADAM_EPS])
    with pytest.raises(UserError, match="a grid needs countable values"):
        trials_of(ranged["sweep"])


def test_make_sweep_of_metta_gives_what_a_sweep_is_made_with() -> None:
    recipe = "tests.support.functions"
    fields = make_metta_sweep("arena", recipe, "parabola", "", "score", [SP.ADAM_EPS], max_trials=3, goal="minimize")
    assert fields["sweep"].num_trials == 3
    assert (fields["sweep"].protein.metric, fields["sweep"].protein.goal) == ("score", "minimize")
    assert fields["train_tool_factory"] is parabola
    for wrong, reason in [
        ({"recipe": "no.such"}, "recipe: No module named 'no'"),
        ({"train_entrypoint": "parabol"}, "has no function 'parabol'; did you mean 'parabola'"),
        ({"eval_entrypoint": "parabola"}, "must return simulations when called without arguments"),
    ]:
        given: dict[str, Any] = {"recipe": recipe, "train_entrypoint": "parabola", "eval_entrypoint": "", **wrong}
        with pytest.raises(UserError, match=reason):
            make_metta_sweep("arena", metric_key="score", search_space=[SP.ADAM_EPS], **given)
