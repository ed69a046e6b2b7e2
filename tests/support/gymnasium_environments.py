"""Small environments of Gymnasium, and one of PettingZoo: what is asked for at each step lies in the observation."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

STEPS = 5


class Levers(gymnasium.Env[Any, Any]):
    """Which lever is shown by a number in a Dict, in an image or in a flag; or a real number is to be repeated.

    A step takes some seconds.
    """

    def __init__(self, shown: str = "number", real: bool = False, seconds: float = 0.0) -> None:
        kinds: dict[str, spaces.Space[Any]] = {
            "number": spaces.Box(-100.0, 100.0, (1,), np.float32),
            "flag": spaces.Discrete(2),
            "image": spaces.Box(0, 255, (8, 12, 3), np.uint8),
        }
        nothing = spaces.MultiBinary(2)
        self.observation_space = spaces.Dict({"a": spaces.Dict({"nothing": nothing, "shown": kinds[shown]})})
        if shown == "image":
            self.observation_space = kinds["image"]
        self.action_space = spaces.Box(-2.0, 4.0, (1,), np.float32) if real else spaces.Discrete(2, start=5)
        self._shown, self._real, self._seconds, self._wanted, self._step = shown, real, seconds, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        time.sleep(self._seconds)
        reward = 1.0 - abs(float(action[0]) - self._wanted) if self._real else float(action - 5 == self._wanted)
        self._step += 1
        return self._observe(), reward, False, self._step == STEPS, {}

    def _observe(self) -> Any:
        self._wanted = int(self.np_random.integers(2))
        if self._shown == "image":
            image = np.zeros((8, 12, 3), np.uint8)
            image[:, 6 * self._wanted : 6 * self._wanted + 6] = 255
            return image
        shown = self._wanted if self._shown == "flag" else np.array([50.0 + self._wanted], np.float32)
        return {"a": {"nothing": np.array([0, 1], np.int8), "shown": shown}}


class Pair(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """Two agents, who each repeat the number they see; the second leaves after three steps, with or without an end."""

    metadata = {"name": "pair"}

    def __init__(self, same: bool = True, truncated: bool = False) -> None:
        self.possible_agents = ["a", "b"]
        self._same, self._truncated = same, truncated

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Box(0.0, 1.0, (1 if self._same or agent == "a" else 2,), np.float32)

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        if seed is not None:
            self._random = np.random.default_rng(seed)
        self.agents, self._step = ["a", "b"], 0
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        assert list(actions) == self.agents
        rewards = {agent: float(actions[agent] == self._wanted[agent]) for agent in self.agents}
        self._step += 1
        over = {agent: self._step == (STEPS if agent == "a" else 3) for agent in self.agents}
        observations = self._observe()
        never = dict.fromkeys(self.agents, False)
        self.agents = [agent for agent in self.agents if not over[agent]]
        terminated, truncated = (never, over) if self._truncated else (over, never)
        return observations, rewards, terminated, truncated, {agent: {} for agent in over}

    def _observe(self) -> dict[str, Any]:
        self._wanted = {agent: int(self._random.integers(2)) for agent in self.agents}
        return {agent: np.array([wanted], np.float32) for agent, wanted in self._wanted.items()}


def parallel_env(**options: Any) -> Pair:
    return Pair(**options)


gymnasium.register("Levers-v0", f"{__name__}:Levers")


class Recall(gymnasium.Env[Any, Any]):
    """The first observation shows which action is right at the last step; the others are zeros."""

    def __init__(self, steps: int = 4) -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._steps, self._wanted, self._step = steps, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step, self._wanted = 0, int(self.np_random.integers(2))
        return np.array([2 * self._wanted - 1], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        over = self._step == self._steps
        return np.zeros(1, np.float32), float(over and action == self._wanted), over, False, {}


gymnasium.register("Recall-v0", f"{__name__}:Recall")


class Broken(gymnasium.Env[Any, Any]):
    """Raises at a reset or step."""

    def __init__(self, when: str) -> None:
        self.observation_space, self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2)
        self._when = when

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._when == "reset":
            raise RuntimeError("the reset broke")
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise RuntimeError("the step broke")


gymnasium.register("Broken-v0", f"{__name__}:Broken")
