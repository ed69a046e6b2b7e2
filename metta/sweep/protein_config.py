"""What Protein searches, and how: the space of hyperparameters and the optimiser's settings."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from metta.common.config import Config

Distribution = Literal["uniform", "log_normal", "int_uniform"]


class ParameterConfig(Config):
    """One hyperparameter's range.

    Attributes:
        min, max: bounds, both inclusive.
        distribution: `uniform`, `log_normal` (searched on a log scale) or `int_uniform` (whole numbers).
        mean: the search centre; the middle of the range (on its scale) if left out.
        scale: width of the search around a centre, as a share of the range; "auto" is the default width.
    """

    min: float
    max: float
    distribution: Distribution
    mean: float | None = None
    scale: float | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"min ({self.min:g}) must be below max ({self.max:g})")
        if self.distribution == "log_normal" and self.min <= 0:
            raise ValueError(f"a log scale needs min above 0, not {self.min:g}")
        if self.mean is not None and not self.min <= self.mean <= self.max:
            raise ValueError(f"mean ({self.mean:g}) lies outside {self.min:g}..{self.max:g}")
        return self


class ProteinSettings(Config):
    """How Protein searches."""

    num_random_samples: int = Field(default=8, ge=0)
    suggestions_per_pareto: int = Field(default=64, ge=1)
    expansion_rate: float = Field(default=0.25, ge=0)
    max_suggestion_cost: float | None = Field(default=None, gt=0)
    global_search_scale: float = Field(default=1.0, gt=0)
    random_suggestions: int = Field(default=1024, ge=1)
    resample_frequency: int = Field(default=0, ge=0)
    seed_with_search_center: bool = True


class ProteinConfig(Config):
    """A search: which metric, which way, over which hyperparameters.

    Attributes:
        metric: name of the metric that is the score.
        goal: whether a larger or a smaller score is better.
        method: the optimiser; "bayes" is Protein.
        parameters: nested like the Tool that is swept, with a `ParameterConfig` at each leaf.
        settings: how to search.
    """

    metric: str
    goal: Literal["maximize", "minimize"] = "maximize"
    method: Literal["bayes"] = "bayes"
    parameters: dict[str, Any]
    settings: ProteinSettings = Field(default_factory=ProteinSettings)
