"""Matches of a policy against opponents."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from experiments import arena, navigation
from metta.common.errors import UserError
from metta.rl.checkpoint import load_policy
from metta.sim.evaluate import evaluate
from metta.sim.league import KEPT, Match, matches, require_opponents
from metta.sim.metrics import metric_names
from metta.sim.simulation_config import SimulationConfig
from tests.rl.small import small_env


class Still:
    """Does nothing."""

    def reset(self, num_agents: int, seed: int) -> None:
        self.num_agents = num_agents

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        assert len(observations) == self.num_agents
        return np.zeros(len(observations), dtype=np.int32)


def league(*opponents: str, episodes: int = 4, **settings: Any) -> SimulationConfig:
    return SimulationConfig(
        name="small/league", env=small_env(num_agents=4), num_episodes=episodes, opponents=list(opponents), **settings
    )


def test_opponents_take_turns_and_teams_change_after_each_had_one() -> None:
    assert matches(league("random", "miners")) == [
        Match("random", plays_even=True),
        Match("miners", plays_even=True),
        Match("random", plays_even=False),
        Match("miners", plays_even=False),
    ]
    assert Match("random", plays_even=True).ours(4).tolist() == [True, False, True, False]
    assert Match("random", plays_even=False).ours(4).tolist() == [False, True, False, True]


def test_stats_are_those_of_the_policys_team() -> None:
    for episode in evaluate(Still(), [league("random")]).results[0].episodes:
        assert episode["action.noop.success"] == episode["episode_length"], "our agents stand still"
        assert episode["heart.gained"] == 0


def test_the_team_with_the_larger_reward_wins() -> None:
    defeats = evaluate(Still(), [league("random", score="win")])
    assert defeats.metrics()["small/league"] == 0
    assert defeats.metrics()["small/league/lead"] < 0
    env = small_env(num_agents=4, max_steps=1)
    env.game.agent.rewards = {}
    without_reward = SimulationConfig(name="small/league", env=env, score="win", opponents=["random"])
    assert evaluate(Still(), [without_reward]).metrics()["small/league"] == 0.5


def test_the_result_of_a_match_is_a_metric_where_there_are_opponents() -> None:
    assert {"small/league/win", "small/league/lead"} <= set(metric_names([league("random")]))
    with pytest.raises(UserError, match="no stat 'win'"):
        league(score="win")


def test_an_opponent_that_nobody_keeps_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"no opponent is named 'minors'.*'miners'"):
        league("minors")


def test_an_opponent_that_cannot_play_the_game_is_refused() -> None:
    with pytest.raises(UserError, match="opponent miners"):
        require_opponents(SimulationConfig(name="n/league", env=navigation.make_env(), opponents=["random", "miners"]))
    with pytest.raises(UserError, match=r"there is no policy\.json"):
        require_opponents(league("file:///nowhere/at/all"))


def test_one_agent_has_no_opponents() -> None:
    with pytest.raises((UserError, ValidationError), match="one agent"):
        SimulationConfig(name="small/league", env=small_env(num_agents=1), opponents=["random"])


def test_kept_policies_are_small_and_play_the_arenas_league() -> None:
    simulation = arena.league().model_copy(update={"num_episodes": 2})
    assert set(simulation.opponents) - {"random"} == {path.name for path in KEPT.iterdir()}
    for path in KEPT.iterdir():
        assert sum(file.stat().st_size for file in path.iterdir()) < 200_000
    require_opponents(simulation)
    against_random = simulation.model_copy(update={"opponents": ["random"]})
    assert evaluate(load_policy(str(KEPT / "miners")), [against_random]).metrics()["arena/league"] == 1
