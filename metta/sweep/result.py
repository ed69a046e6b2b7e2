"""The result of a sweep, for Python code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metta.common.config import unflatten
from metta.common.errors import UserError
from metta.sweep.definition import SweepDefinition
from metta.sweep.state import SweepState
from metta.sweep.store.loaded import load_sweep
from metta.sweep.trial import Trial

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended.

    Attributes:
        store: the store's URL.
        state: the sweep when it ended.
    """

    store: str = field(repr=False)
    state: SweepState = field(repr=False)

    @property
    def name(self) -> str:
        """The sweep's name in the store."""
        return self.state.name

    @property
    def definition(self) -> SweepDefinition:
        """The settings of the sweep."""
        return self.state.definition

    @property
    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return list(self.state.trials)

    @property
    def best_trial(self) -> Trial:
        """The recommended trial: the one with the best expected score of another run. The top score may be luck.

        Raises:
            UserError: no trial has a score.
        """
        return self._found(self.state.best)

    @property
    def top_trial(self) -> Trial:
        """The trial whose measured score ranks first.

        Raises:
            UserError: no trial has a score.
        """
        return self._found(self.state.top)

    @property
    def best_params(self) -> dict[str, Any]:
        """The best trial's hyperparameters, nested as the trial received them."""
        return unflatten(self.state.params_of(self.best_trial))

    @property
    def best_score(self) -> float:
        """The best trial's score as measured."""
        assert self.best_trial.score is not None
        return self.best_trial.score

    @property
    def pareto_front(self) -> list[Trial]:
        """The trials for which no other one has a better score at the same or less cost, by number."""
        return [trial for trial in self.state.trials if trial.number in self.state.on_front]

    def to_frame(self) -> pd.DataFrame:
        """A table with one row for each trial, see `metta.sweep.load_sweep`.

        Raises:
            UserError: pandas is not installed.
        """
        return load_sweep(self.store, self.name).to_frame()

    def _found(self, trial: Trial | None) -> Trial:
        if trial is None:
            raise UserError(f"no trial of {self.name!r} has a score, so there is no best trial")
        return trial
