"""Which trials' policies stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from metta.common import shared_files
from metta.sweep.report.standing import Goal, pareto_front, ranked
from metta.sweep.trial import Trial

KeepPolicies = Literal["best", "pareto", "all"]


class Retention:
    """Deletes what trials that ended made and checkpointed, unless they are to be kept.

    Logs and all that is recorded stay. Of what a trial names as its artefacts only that is deleted which lies in its
    own folders; anything else is nobody's to delete.

    Args:
        keep: "best" keeps those of the trial with the best score, "pareto" of those on the Pareto front.
        goal: of the sweep.
        root: the sweep's folder, with the folder ``trial_0007`` of each trial.
        shared: URL of the other folder that the trial of a number may put its artefacts in, or None.
    """

    def __init__(self, keep: KeepPolicies, goal: Goal, root: Path, shared: Callable[[int], str | None]) -> None:
        self._keep = keep
        self._goal = goal
        self._root = root
        self._shared = shared
        self._done: set[tuple[int, int]] = set()

    def apply(self, trials: Sequence[Trial]) -> None:
        """Delete what of these trials, all that the sweep has, is not to be kept any longer.

        Raises:
            UserError: a place does not let itself be reached; it is tried again the next time.
        """
        if self._keep == "all":
            return
        kept = kept_trials(trials, self._keep, self._goal)
        for trial in trials:
            attempt = (trial.number, trial.attempts)
            if trial.state.ended and trial.number not in kept and attempt not in self._done:
                _remove_here(trial, trial_folder(self._root, trial.number).resolve())
                self._remove_shared(trial)
                self._done.add(attempt)

    def _remove_shared(self, trial: Trial) -> None:
        folder = self._shared(trial.number)
        for uri in trial.artefacts.values():
            if folder is not None and uri.startswith(f"{folder}/"):
                shared_files.remove(uri)


def kept_trials(trials: Sequence[Trial], keep: KeepPolicies, goal: Goal) -> set[int]:
    """The numbers of the trials whose policies are to be kept."""
    if keep == "all":
        return {trial.number for trial in trials}
    return set(pareto_front(trials, goal)) if keep == "pareto" else {trial.number for trial in ranked(trials, goal)[:1]}


def trial_folder(root: Path, number: int) -> Path:
    """The folder of one trial in that of its sweep."""
    return root / f"trial_{number:04d}"


def artefact_path(uri: str) -> Path | None:
    """The path that a file:// URI names, or None for anything else."""
    return shared_files.local_path(uri) if "://" in uri else None


def _remove_here(trial: Trial, folder: Path) -> None:
    made = [path.resolve() for uri in trial.artefacts.values() if (path := artefact_path(uri))]
    checkpoints = [folder / "checkpoints", *folder.glob("seed_*/checkpoints")]
    for path in [*made, *checkpoints]:
        if path == folder or not path.is_relative_to(folder):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
