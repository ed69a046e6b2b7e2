"""Which values of a parameter lead to a point that no trial of an Optuna study has, while others are left.

A sampler that is asked for one parameter at a time does not know what will be asked next. Other trials with the same
values so far show it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

MAX_VALUES = 10_000
"""A parameter with more values is taken as it comes: a repeat is improbable."""

Point = Mapping[str, float]
"""Values by parameter, as Optuna's storages keep them."""


def untried(
    name: str,
    distribution: BaseDistribution,
    value: Any,
    trial: FrozenTrial,
    trials: Iterable[FrozenTrial],
    generator: random.Random,
) -> Any:
    """The value, or one drawn in its place, if every point that it can lead to is that of another trial.

    Args:
        name, distribution: of the parameter that is drawn.
        value: what is suggested for it.
        trial: has the values that were drawn before.
        trials: of the study, running ones among them.
        generator: draws.

    Returns:
        The value itself where no other one leads to anything new.
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
    if not _used_up({**before, name: distribution.to_internal_repr(value)}, alike):
        return value
    free = [each for each in values if not _used_up({**before, name: each}, alike)]
    return distribution.to_external_repr(generator.choice(free)) if free else value


def values_of(distribution: BaseDistribution) -> list[float] | None:
    """All values of a parameter, as Optuna's storages keep them; None where they are too many or not countable."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return [float(index) for index in range(len(choices))]
        case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=step) if step:
            count = math.floor((high - low) / step + 1e-9) + 1
            return [float(low + index * step) for index in range(count)] if count <= MAX_VALUES else None
    return None


def _used_up(point: Point, alike: Iterable[tuple[Point, Mapping[str, BaseDistribution]]]) -> bool:
    """Whether every point that begins like this one is that of a trial, as far as those trials show what follows."""
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
