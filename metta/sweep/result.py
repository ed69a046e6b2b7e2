"""What a sweep found, as Python code gets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metta.common.config import unflatten
from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition
from metta.sweep.report.standing import pareto_front, ranked
from metta.sweep.store.loaded import load_sweep
from metta.sweep.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Attributes:
        name: of the sweep in the store.
        store: the store's URL.
        definition: what the sweep did.
        trials: every trial, by number.
        recommended: number of the trial whose hyperparameters the model trusts most, or None if none completed. The
            best measured score may be luck.
    """

    name: str
    store: str = field(repr=False)
    definition: SweepDefinition = field(repr=False)
    trials: list[Trial] = field(repr=False)
    recommended: int | None

    @property
    def best_trial(self) -> Trial:
        """The completed trial with the best measured score.

        Raises:
            UserError: no trial completed.
        """
        order = ranked(self.trials, self.definition.protein.goal)
        if not order:
            raise UserError(f"no trial of {self.name!r} completed, so none is best")
        return order[0]

    @property
    def best_params(self) -> dict[str, Any]:
        """The best trial's hyperparameters, nested as they were given to it."""
        return unflatten(self.best_trial.params)

    @property
    def best_score(self) -> float:
        """The best trial's score."""
        assert self.best_trial.score is not None
        return self.best_trial.score

    @property
    def pareto_front(self) -> list[Trial]:
        """The trials for which no other has a better score at no more cost, by number."""
        front = pareto_front(self.trials, self.definition.protein.goal)
        return [trial for trial in self.trials if trial.number in front]

    def to_frame(self) -> pd.DataFrame:
        """One row a trial, as `metta.sweep.load_sweep` gives it.

        Raises:
            UserError: pandas is not installed.
        """
        return load_sweep(self.store, self.name).to_frame()
