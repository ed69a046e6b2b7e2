"""The sweep of the arena: what it searches, and its budget."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import arena
from experiments.sweep_arena import sweep_optimizer
from metta.common.config import flatten
from metta.sweep.constraints import Constraint
from metta.sweep.protein_config import ParameterConfig
from metta.tools.sweep import SweepTool


def ranges(tool: SweepTool) -> dict[str, ParameterConfig]:
    return flatten(tool.sweep.protein.parameters)


def values(tool: SweepTool) -> dict[str, Any]:
    """The settings that a trial has before anything is suggested."""
    trained = tool.train_tool_factory("r").update(tool.train_overrides.root)
    return flatten(trained.model_dump(mode="json", include={"trainer"}))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_trainers_own_values_lie_inside_what_is_searched(device: Any) -> None:
    tool = sweep_optimizer("s", device=device)
    own = values(tool)
    for path, parameter in ranges(tool).items():
        assert parameter.min is not None
        assert parameter.max is not None
        assert parameter.min < own[path] < parameter.max, path
    for text in tool.sweep.protein.constraints:
        assert Constraint.parse(text, list(ranges(tool))).holds(own)


def test_the_budget_grows_with_the_trials() -> None:
    ten, twenty = (sweep_optimizer("s", num_trials=number, device="cpu").sweep.max_cost for number in (10, 20))
    assert ten is not None
    assert twenty == 2 * ten


def test_a_given_length_of_training_is_not_searched_and_has_no_budget() -> None:
    tool = sweep_optimizer("s", total_timesteps=20_000)
    assert "trainer.total_timesteps" not in ranges(tool)
    assert values(tool)["trainer.total_timesteps"] == 20_000
    assert tool.sweep.max_cost is None
    assert tool.definition()


def test_the_game_that_is_trained_on_can_have_combat() -> None:
    labels = [sweep_optimizer("s", combat=combat).train_tool_factory("r").env.label for combat in (False, True)]
    assert labels == [each.env.label for each in arena.simulations()]
