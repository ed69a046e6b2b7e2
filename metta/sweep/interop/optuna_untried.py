"""Chooses values of a parameter so that no two trials of an Optuna study have the same point while others are untried.

Optuna asks a sampler for one parameter at a time, so the sampler does not know the next parameters. Other trials with
the same values so far show them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

MAX_VALUES = 10_000
"""A parameter with more values is not checked, because a repeat is improbable."""

Point = Mapping[str, float]
"""Values by parameter, in the internal form of Optuna's storages."""


def untried(
    name: str,
    distribution: BaseDistribution,
    value: Any,
    trial: FrozenTrial,
    trials: Iterable[FrozenTrial],
    generator: random.Random,
) -> Any:
    """The value, or a replacement if every point that it can lead to belongs to another trial.

    Args:
        name, distribution: of the parameter that is sampled.
        value: the suggested value.
        trial: contains the values that were sampled before.
        trials: the trials of the study, including running ones.
        generator: draws the replacement.

    Returns:
        The value itself if no other value leads to an untried point.
    """
    values = values_of(distribution)
    if values is None:
        return value
    before = _point(trial)
    alike = [
        (_point(other), other.distributions)
        for other in trials
        if other.number != trial.number and name in other.params and before.items() <= _point(other).items()
    ]
    if not _is_exhausted({**before, name: distribution.to_internal_repr(value)}, alike):
        return value
    free = [each for each in values if not _is_exhausted({**before, name: each}, alike)]
    return distribution.to_external_repr(generator.choice(free)) if free else value


def values_of(distribution: BaseDistribution) -> list[float] | None:
    """All values of a parameter, in the form of Optuna's storages; None if they are too many or not countable."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return [float(index) for index in range(len(choices))]
        case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step) if step:
            count = math.floor((high - low) / step + 1e-9) + 1
            return [float(low + index * step) for index in range(count)] if count <= MAX_VALUES else None
    return None


def _is_exhausted(point: Point, alike: Iterable[tuple[Point, Mapping[str, BaseDistribution]]]) -> bool:
    """Whether every point that begins like this one belongs to a trial, as far as those trials show the rest."""
    rests: dict[frozenset[str], set[frozenset[tuple[str, float]]]] = {}
    sizes: dict[str, float] = {}
    for other, distributions in alike:
        if point.items() <= other.items():
            rest = other.keys() - point.keys()
            rests.setdefault(frozenset(rest), set()).add(frozenset((name, other[name]) for name in rest))
            for name in rest:
                values = values_of(distributions[name])
                sizes[name] = max(sizes.get(name, 0.0), math.inf if values is None else len(values))
    return bool(rests) and all(len(seen) >= math.prod(sizes[name] for name in rest) for rest, seen in rests.items())


def _point(trial: FrozenTrial) -> Point:
    return {name: trial.distributions[name].to_internal_repr(value) for name, value in trial.params.items()}
