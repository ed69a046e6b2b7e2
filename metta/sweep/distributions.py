"""The distributions of hyperparameters, in one table that all other code reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Distribution = Literal[
    "uniform", "int_uniform", "log_normal", "int_log_normal", "uniform_pow2", "logit_normal", "categorical"
]
"""The name of a distribution, as users write it."""

Scale = Literal["linear", "log", "logit"]
Step = Literal["none", "integer", "power of two"]


@dataclass(frozen=True)
class Kind:
    """The properties of a numeric distribution.

    Attributes:
        scale: the scale on which random values are uniform.
        step: which values are possible.
        words: its description for people.
    """

    scale: Scale
    step: Step
    words: tuple[str, ...]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "uniform": Kind("linear", "none", ()),
        "int_uniform": Kind("linear", "integer", ("whole numbers",)),
        "log_normal": Kind("log", "none", ("log scale",)),
        "int_log_normal": Kind("log", "integer", ("whole numbers", "log scale")),
        "uniform_pow2": Kind("log", "power of two", ("powers of two",)),
        "logit_normal": Kind("logit", "none", ("logit scale",)),
    }
)
"""The numeric distributions by name; `categorical` has neither scale nor step."""
