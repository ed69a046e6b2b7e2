"""The results of an evaluation, and how they are combined into scores."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from metta.sim.metrics import AVERAGE, categories
from metta.sim.simulation_config import SimulationConfig


@dataclass(frozen=True)
class Score:
    """A mean and its uncertainty.

    Attributes:
        mean: the score.
        stderr: its standard error over episodes, or None if a simulation had only one.
        episodes: number of episodes in the mean.
    """

    mean: float
    stderr: float | None
    episodes: int


@dataclass(frozen=True)
class SimulationResult:
    """The episodes of one simulation.

    Attributes:
        simulation: the simulation that was played.
        episodes: the stats of each episode that ended, as `metta.rl.environment.Environment.episode_stats` gives
            them; at least one.
        seeds: the seed of each of these episodes.
    """

    simulation: SimulationConfig
    episodes: list[dict[str, float]]
    seeds: list[int]

    @property
    def score(self) -> Score:
        return _mean_of_simulations([self])

    @property
    def scores(self) -> list[float]:
        """The score of each episode."""
        return self._values(self.simulation.score)

    def stat(self, name: str) -> float:
        """Mean of a stat over episodes; an episode without the stat counts as 0."""
        return statistics.fmean(self._values(name))

    def _values(self, stat: str) -> list[float]:
        return [episode.get(stat, 0.0) for episode in self.episodes]


@dataclass(frozen=True)
class Evaluation:
    """The results of a policy on several simulations; `metta.sim.metrics` describes the names of its metrics.

    Attributes:
        results: the result of each simulation.
        seconds: the duration. It is not part of a trial's cost.
    """

    results: list[SimulationResult]
    seconds: float

    @property
    def simulation_scores(self) -> dict[str, Score]:
        return {result.simulation.name: result.score for result in self.results}

    @property
    def category_scores(self) -> dict[str, Score]:
        results = {result.simulation.name: result for result in self.results}
        grouped = categories([result.simulation for result in self.results])
        return {
            category: _mean_of_simulations([results[member.name] for member in members])
            for category, members in grouped.items()
        }

    @property
    def average(self) -> Score:
        """The mean over categories. Each has the same weight, independent of its number of simulations."""
        return _mean_of_categories(list(self.category_scores.values()))

    def metrics(self) -> dict[str, float]:
        """Every metric by its name."""
        metrics: dict[str, float] = {}
        for name, score in {AVERAGE: self.average, **self.category_scores, **self.simulation_scores}.items():
            metrics[name] = score.mean
            if score.stderr is not None:
                metrics[f"{name}.stderr"] = score.stderr
        for result in self.results:
            name = result.simulation.name
            metrics[f"{name}.episodes"] = len(result.episodes)
            metrics |= {f"{name}/{stat}": result.stat(stat) for stat in result.simulation.stats}
        return metrics

    def summary(self) -> list[str]:
        """One line for each simulation, in the game's own terms: ``arena/basic: 3.20 hearts, 7.50 ore per agent``."""
        return [_summary(result) for result in self.results]


def _mean_of_simulations(results: Sequence[SimulationResult]) -> Score:
    """The mean over the simulations of a category, each with the same weight.

    Its variance adds up over seeds, because episodes of one seed are alike: they have the same map, or one like it.
    """
    means = [statistics.fmean(result.scores) for result in results]
    stderr = None
    if all(len(result.scores) > 1 for result in results):
        errors = defaultdict[int, float](float)
        for result, mean in zip(results, means, strict=True):
            episodes = len(result.scores)
            share = len(results) * math.sqrt(episodes * (episodes - 1))
            for seed, score in zip(result.seeds, result.scores, strict=True):
                errors[seed] += (score - mean) / share
        stderr = math.hypot(*errors.values())
    return Score(statistics.fmean(means), stderr, sum(len(result.scores) for result in results))


def _mean_of_categories(scores: Sequence[Score]) -> Score:
    """The mean of the scores of categories, which are independent because they have different seeds."""
    errors = [score.stderr for score in scores if score.stderr is not None]
    return Score(
        mean=statistics.fmean(score.mean for score in scores),
        stderr=math.hypot(*errors) / len(scores) if len(errors) == len(scores) else None,
        episodes=sum(score.episodes for score in scores),
    )


def _summary(result: SimulationResult) -> str:
    gained = {name: result.stat(f"{name}.gained") for name in result.simulation.env.game.resource_names}
    score = result.score
    error = "" if score.stderr is None else f" ± {score.stderr:.2f}"
    amounts = ", ".join(f"{amount:.2f} {name}" for name, amount in gained.items())
    return f"{result.simulation.name}: {result.simulation.score} {score.mean:.2f}{error}; gained per agent: {amounts}"
