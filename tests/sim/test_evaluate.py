import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import metta.sim.evaluate
from experiments import arena, navigation
from metta.common.errors import UserError
from metta.rl.environment import EnvironmentSpec
from metta.sim.evaluate import UnfinishedEvaluationError, evaluate, evaluation_seeds, worthwhile_cores
from metta.sim.players import PlayerError
from metta.sim.simulation_config import SimulationConfig
from metta.sim.stats import possible_stats


class RandomPlayer:
    """Acts at random."""

    def __init__(self, num_actions: int = 5) -> None:
        self.num_actions = num_actions
        self.asked: list[int] = []

    def reset(self, num_agents: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        self.asked.append(len(observations))
        return self.random.integers(self.num_actions, size=len(observations), dtype=np.int32)


class Watcher(RandomPlayer):
    """Chooses each action from the agent's own observation alone, independent of the other agents."""

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        self.asked.append(len(observations))
        sums = observations.reshape(len(observations), -1).astype(np.int64).sum(axis=1)
        return np.asarray(sums // 7 % self.num_actions, dtype=np.int32)


def simulation(name: str = "arena/combat", episodes: int = 4, **settings: Any) -> SimulationConfig:
    env = arena.make_env(num_agents=6, max_steps=40)
    return SimulationConfig(name=name, env=env, num_episodes=episodes, **settings)


def test_the_same_policy_gets_the_same_score_again() -> None:
    first, second = (evaluate(RandomPlayer(), [simulation()]).metrics() for _ in range(2))
    assert first == second
    assert first["arena/combat/ore.gained"] > 0


def test_every_episode_has_its_own_seed() -> None:
    seeds = evaluation_seeds(simulation(episodes=50))
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert evaluation_seeds(simulation(episodes=20)) == seeds[:20]
    assert evaluation_seeds(simulation("arena/basic", episodes=50)) == seeds, "a category has the same maps"
    assert not set(seeds) & set(evaluation_seeds(simulation("other/combat", episodes=50)))
    episodes = evaluate(Watcher(), [simulation()]).results[0].episodes
    assert len({episode["cell.visited"] for episode in episodes}) == 4, "the maps differ"


def test_the_number_of_environments_side_by_side_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    together = Watcher()
    results = evaluate(together, [simulation()]).results
    monkeypatch.setattr(metta.sim.evaluate, "AGENTS_TOGETHER", 13)
    in_pairs = Watcher()
    assert evaluate(in_pairs, [simulation()]).results == results
    assert (set(together.asked), set(in_pairs.asked)) == ({24}, {12})


@pytest.mark.parametrize("opponents", [[], ["random"]])
def test_the_number_of_cores_does_not_matter(monkeypatch: pytest.MonkeyPatch, opponents: list[str]) -> None:
    monkeypatch.setattr(metta.sim.evaluate, "AGENTS_TOGETHER", 6)
    two = [simulation(episodes=5, opponents=opponents), simulation("other/combat", episodes=2)]
    alone, together = (evaluate(RandomPlayer(), two, cores) for cores in (1, 3))
    assert alone.results == together.results
    assert alone.seconds > 0


class Failing(RandomPlayer):
    """Fails in every process but the one that it was made in."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        assert os.getpid() == self.home, "far from home"
        return super().act(observations)


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metta.sim.evaluate, "AGENTS_TOGETHER", 6)
    with pytest.raises(PlayerError, match="far from home"):
        evaluate(Failing(), [simulation()], cores=2)


def test_a_short_evaluation_starts_no_processes() -> None:
    assert worthwhile_cores([simulation()]) == 1


def test_an_episode_that_ends_early_is_not_stepped_again() -> None:
    env = arena.make_env(num_agents=6, max_steps=60, shaping={"ore": 1.0})
    env.game.end_episode_on_game_stats = {"tokens_written": 4_000}
    result = evaluate(Watcher(), [SimulationConfig(name="arena/combat", env=env)]).results[0]
    lengths = {episode["episode_length"] for episode in result.episodes}
    assert len(lengths) > 1
    assert max(lengths) < 60


def test_stats_are_known_beforehand() -> None:
    for named in [simulation(), *navigation.simulations()[1:]]:
        result = evaluate(RandomPlayer(7), [named]).results[0]  # 7 actions: some are invalid
        occurred = {stat for episode in result.episodes for stat in episode if not stat.startswith("game/")}
        occurred -= {stat for stat in occurred if stat.startswith("action.invalid_index.")}
        assert occurred <= set(possible_stats(named.env))
        assert {"heart.gained", "action.invalid_index"} <= occurred


def test_an_evaluation_that_runs_out_of_time_is_an_error() -> None:
    with pytest.raises(UnfinishedEvaluationError, match="arena/combat: no episode ended within"):
        evaluate(RandomPlayer(), [simulation(max_seconds=1e-9)])


def test_simulations_of_the_same_name_are_refused_before_any_is_played() -> None:
    player = RandomPlayer()
    with pytest.raises(UserError, match="two simulations"):
        evaluate(player, [simulation(), simulation()])
    assert not player.asked


def test_a_player_sees_all_agents_of_the_environment() -> None:
    class Shape(RandomPlayer):
        def act(self, observations: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
            assert observations.shape == (6 * 4, EnvironmentSpec.of(simulation().env).num_tokens, 3)
            assert observations.dtype == np.uint8
            return super().act(observations)

    evaluate(Shape(), [simulation()])
