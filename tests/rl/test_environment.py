from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mettagrid.config.mettagrid_config import MettaGridConfig

from metta.common.errors import UserError
from metta.rl.environment import EMPTY, Buffers, Environment, EnvironmentSpec
from tests.rl.small import NORTH, small_env


def start(config: MettaGridConfig, seed: int) -> Environment:
    environment = Environment(config, Buffers.allocate(EnvironmentSpec.of(config)))
    environment.reset(seed)
    return environment


def trajectory(seed: int) -> list[npt.NDArray[Any]]:
    environment = start(small_env(), seed)
    generator = np.random.default_rng(0)
    seen: list[npt.NDArray[Any]] = [environment.buffers.observations.copy()]
    while not environment.done:
        environment.buffers.actions[:] = generator.integers(0, 5, size=2)
        environment.step()
        seen += [environment.buffers.observations.copy(), environment.buffers.rewards.copy()]
    return seen


def test_a_seed_repeats_the_map_and_what_happens_on_it() -> None:
    first, again, other = trajectory(seed=5), trajectory(seed=5), trajectory(seed=6)
    assert all(np.array_equal(left, right) for left, right in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_an_environment_like_another_plays_as_one_of_its_own() -> None:
    def play(environment: Environment) -> list[npt.NDArray[Any]]:
        environment.reset(seed=3)
        seen = []
        for step in range(10):
            environment.buffers.actions[:] = step % 5
            environment.step()
            seen.append(environment.buffers.observations.copy())
        return seen

    config = small_env()
    first = start(config, seed=1)
    like = Environment(config, Buffers.allocate(first.spec), first)
    expected = play(start(config, seed=2))
    assert all(np.array_equal(*pair) for pair in zip(play(like), expected, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(play(first), expected, strict=True))


def test_the_configuration_that_was_given_keeps_its_seed() -> None:
    config = small_env()
    before = config.model_copy(deep=True)
    start(config, seed=9)
    assert config == before


@pytest.mark.parametrize("truncates", [True, False])
def test_the_end_is_flagged_at_that_step_only(truncates: bool) -> None:
    environment = start(small_env(max_steps=3, truncates=truncates), seed=0)
    for _ in range(3):
        assert not environment.done
        environment.step()
    assert environment.done
    assert environment.buffers.truncations.all() == truncates
    assert environment.buffers.terminals.all() != truncates
    environment.reset(1)
    environment.step()
    assert not environment.done


def test_stats_are_means_over_agents() -> None:
    environment = start(small_env(num_agents=3), seed=0)
    generator, rewards = np.random.default_rng(1), 0.0
    while not environment.done:
        environment.buffers.actions[:] = generator.integers(0, 5, size=3)
        environment.step()
        rewards += float(environment.buffers.rewards.sum())
    stats = environment.episode_stats()
    assert rewards > 0
    assert stats["reward"] == pytest.approx(rewards / 3)
    assert stats["heart.gained"] == pytest.approx(rewards / 3)
    assert stats["episode_length"] == 20


def test_an_episode_ends_when_a_game_stat_reaches_its_threshold() -> None:
    config = small_env()
    config.game.end_episode_on_game_stats = {"objects.altar": 3}
    environment = start(config, seed=0)
    environment.step()
    assert environment.buffers.truncations.all()


def test_vibes_are_actions_after_the_others() -> None:
    config = small_env(num_vibes=3)
    environment = start(config, seed=0)
    environment.buffers.actions[:] = [NORTH, environment.spec.actions.index(f"change_vibe_{environment.spec.vibes[2]}")]
    environment.step()
    stats = environment.episode_stats()
    assert stats["action.change_vibe.success"] == 0.5
    assert stats.get("action.move.success", 0) + stats.get("action.move.failed", 0) == 0.5


def test_empty_tokens_come_last() -> None:
    locations = start(small_env(), seed=0).buffers.observations[:, :, 0]
    empty = locations == EMPTY
    assert (np.diff(empty.astype(int), axis=1) >= 0).all()
    assert empty.any()
    assert not empty.all()


def test_observations_of_another_kind_are_refused() -> None:
    config = small_env()
    config.game.obs.token_dim = 4
    with pytest.raises(UserError, match="token_dim"):
        EnvironmentSpec.of(config)


def test_vibes_without_a_noop_are_refused() -> None:
    config = small_env(num_vibes=2)
    config.game.actions.noop.enabled = False
    with pytest.raises(UserError, match="noop"):
        EnvironmentSpec.of(config)
