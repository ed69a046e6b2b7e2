"""What a search space may be, and how a wrong one is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from metta.common.config import ConfigError
from metta.sweep.protein_config import ParameterConfig, ProteinConfig

LEARNING_RATE = ParameterConfig(min=1e-5, max=1e-2, distribution="log_normal")


def config(parameters: dict[str, Any]) -> ProteinConfig:
    return ProteinConfig(metric="score", parameters=parameters)


def test_a_configuration_is_rebuilt_from_its_own_json() -> None:
    original = config(
        {
            "trainer": {"optimizer": {"learning_rate": LEARNING_RATE, "type": "adam"}, "epochs": 3},
            "activation": ParameterConfig.model_validate({"choices": ["relu", None, {"leaky": 0.1}]}),
        }
    )
    rebuilt = ProteinConfig.model_validate(json.loads(json.dumps(original.model_dump(mode="json"))))
    assert rebuilt == original
    assert rebuilt.parameters["trainer"]["optimizer"]["learning_rate"] == LEARNING_RATE
    assert rebuilt.parameters["activation"].choices == ["relu", None, {"leaky": 0.1}]


def test_an_override_walks_to_a_leaf() -> None:
    changed = config({"trainer": {"learning_rate": LEARNING_RATE}})
    changed.override("parameters.trainer.learning_rate.max", 1.0)
    assert changed.parameters["trainer"]["learning_rate"].max == 1.0
    assert LEARNING_RATE.max == 1e-2


def test_an_override_that_breaks_a_range_is_refused() -> None:
    changed = config({"trainer": {"learning_rate": LEARNING_RATE}})
    with pytest.raises(ConfigError, match=r"parameters\.trainer\.learning_rate\.max.*must be below max"):
        changed.override("parameters.trainer.learning_rate.max", 1e-6)


def test_dotted_keys_are_nested() -> None:
    dotted = config({"trainer.lr": LEARNING_RATE, "trainer": {"seed": 1}})
    assert dotted.parameters == {"trainer": {"lr": LEARNING_RATE, "seed": 1}}


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ({"min": 1, "max": 1, "distribution": "uniform"}, "must be below max"),
        ({"min": 0, "max": 1, "distribution": "log_normal"}, "log scale needs min above 0"),
        ({"min": 0, "max": 8, "distribution": "uniform_pow2"}, "log scale needs min above 0"),
        ({"min": 0.5, "max": 1, "distribution": "logit_normal"}, "logit scale needs bounds between 0 and 1"),
        ({"min": 0, "max": 1, "mean": 2, "distribution": "uniform"}, "mean .2. is outside 0..1"),
        ({"min": 0, "max": float("inf"), "distribution": "uniform"}, "max: .*finite"),
        ({"min": 0, "max": 1}, "the distribution is missing; write .*int_uniform"),
        ({"min": 0, "max": 1, "distribution": "unifrom"}, "distribution: .*'uniform'"),
        ({"min": 0, "distribution": "uniform"}, "needs min and max"),
        (
            {"min": 0, "max": 1, "distribution": "uniform", "maen": 1},
            "maen: there is no such .*'mean'",
        ),
        ({"min": 0, "max": 1, "distribution": "uniform", "scale": 0}, "scale .0. must be above 0"),
        ({"choices": []}, "needs choices"),
        ({"choices": [1, 2, 1.0]}, "given twice"),
        ({"choices": [1], "min": 0}, "not min, max, mean"),
        ({"choices": [1], "default": 2}, "not one of the choices"),
        ({"choices": {1, 2}, "distribution": "categorical"}, "choices: .*is a set, which has no order; use a list"),
        ({"min": "low", "max": 1, "distribution": "uniform"}, "min: 'low' is not a number"),
        ({"min": 0, "max": 10**400, "distribution": "int_uniform"}, "max: 10*.* is too large"),
        ({"min": -1.7e308, "max": 1.7e308, "distribution": "uniform"}, "is too wide"),
        ({"min": 1, "max": 2, "distribution": "log_normal", "default": 0}, "default .0. must be above 0"),
        ({"min": 0.1, "max": 0.2, "distribution": "logit_normal", "default": 1}, "must be between 0 and 1"),
        ({"min": 0, "max": 1, "distribution": "uniform", "default": "x"}, "default .'x'. must be a number"),
        ({"min": 0, "max": 1, "distribution": "uniform", "default": 10**400}, "is too large"),
    ],
)
def test_a_bad_range_is_an_error_that_names_the_parameter(leaf: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"parameters\.trainer\.ppo\.clip: .*{message}"):
        config({"trainer": {"ppo": {"clip": leaf}}})


@pytest.mark.parametrize("parameters", [{}, {"trainer": {}}, {"trainer": {"seed": 1}}])
def test_an_empty_space_is_an_error(parameters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="space is empty"):
        config(parameters)


def test_a_parameter_given_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"parameters\.a.*given twice"):
        config({"a.b": LEARNING_RATE, "a": {"b": LEARNING_RATE}})


def test_numbers_and_choices_of_any_library_become_plain() -> None:
    leaves = {
        "count": {"min": np.int64(1), "max": Decimal(2**70 + 1), "mean": 2**53 + 1, "distribution": "int_uniform"},
        "rate": {"min": np.float32(0.5), "max": Fraction(3, 2), "distribution": "uniform", "default": np.float64(1)},
        "layers": {"choices": ((64, 32), np.array([8]), None), "default": (64, 32)},
        "kind": {"choices": np.array([1, 2])},
        "betas": (np.float32(0.5), 1),
    }
    built = config(leaves).parameters
    assert (built["count"].min, built["count"].max, built["count"].mean) == (1, 2**70 + 1, 2**53 + 1)
    assert all(type(value) is int for value in (built["count"].min, built["count"].max, built["count"].mean))
    assert [type(value) for value in (built["rate"].min, built["rate"].max, built["rate"].default)] == [float] * 3
    assert built["layers"].choices == [[64, 32], [8], None]
    assert built["layers"].default == [64, 32]
    assert built["kind"].choices == [1, 2]
    assert built["betas"] == [0.5, 1]
    rebuilt = ProteinConfig.model_validate(json.loads(json.dumps(config(leaves).model_dump(mode="json"))))
    assert rebuilt == config(leaves)
    assert rebuilt.parameters["count"].max == 2**70 + 1


def test_choices_do_not_change_with_the_list_they_were_given_as() -> None:
    layers = [[64], [128]]
    parameter = ParameterConfig(choices=layers, distribution="categorical")
    layers[0].append(10)
    assert parameter.choices == [[64], [128]]
