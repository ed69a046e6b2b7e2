"""A sweep for analysis: trials as dataclasses, or as a pandas frame."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.sweep.store import open_store
from metta.sweep.store.protocol import CurvePoint, Store, SweepRecord
from metta.sweep.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from metta.sweep.state import SweepState


@dataclass(frozen=True)
class LoadedSweep:
    """A sweep in a store. Each call reads it again, so a running sweep can be watched.

    Attributes:
        record: its name, configuration and entry point at the time of loading.
    """

    store: Store
    record: SweepRecord

    def trials(self) -> list[Trial]:
        """Every trial, by number."""
        return self.store.trials(self.record.name)

    def curve(self, number: int) -> list[CurvePoint]:
        """A trial's learning curve, over all its attempts."""
        return self.store.curve(self.record.name, number)

    def state(self) -> SweepState:
        """The current sweep as one value: best, top, Pareto front, cost."""
        from metta.sweep.state import read_state

        return read_state(self.store, self.record.name)

    def to_frame(self) -> pd.DataFrame:
        """One row per trial, indexed by its number; columns as in `metta.sweep.store.transfer.rows`.

        Raises:
            UserError: pandas is not installed.
        """
        from metta.sweep.store.transfer import rows

        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise UserError(f"to_frame needs pandas: {install_command('pandas')}") from None
        table = rows(self.trials())
        frame: pd.DataFrame = pandas.DataFrame(table, columns=list(table[0]) if table else ["number"])
        return frame.set_index("number")


def load_sweep(url: str, name: str) -> LoadedSweep:
    """Load a sweep from the store at `url`.

    Example:
        >>> frame = load_sweep("sqlite:///train_dir/sweeps.sqlite", "my_arena_sweep").to_frame()  # doctest: +SKIP
        >>> frame.sort_values("score")[["params.trainer.optimizer.learning_rate", "score"]]  # doctest: +SKIP

    Raises:
        StoreError: the store cannot be opened.
        SweepNotFoundError: the store has no such sweep.
    """
    store = open_store(url, create=False)
    return LoadedSweep(store, store.sweep(name))
