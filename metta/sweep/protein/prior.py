"""How likely the values of a range are, where they are not equally likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri

Array = NDArray[np.float64]


class Prior(Protocol):
    """A distribution over a range, which is 0..1 here."""

    def quantile(self, uniform: Array) -> Array:
        """Turn numbers [n] that are uniform in 0..1 into values [n] of the distribution, in 0..1."""
        ...


@dataclass(frozen=True)
class Normal:
    """A normal distribution, cut off at both ends of the range."""

    mean: float
    std: float

    def quantile(self, uniform: Array) -> Array:
        low, high = ndtr(-self.mean / self.std), ndtr((1.0 - self.mean) / self.std)
        values = self.mean + self.std * ndtri(low + uniform * (high - low))
        return np.asarray(np.clip(values, 0.0, 1.0))


@dataclass(frozen=True)
class Beta:
    """A beta distribution over the whole range."""

    a: float
    b: float

    def quantile(self, uniform: Array) -> Array:
        return np.asarray(betaincinv(self.a, self.b, uniform))
