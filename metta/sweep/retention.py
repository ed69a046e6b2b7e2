"""Which trials' policies stay on disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlparse

from metta.sweep.report.standing import Goal, pareto_front, ranked
from metta.sweep.trial import Trial

KeepPolicies = Literal["best", "pareto", "all"]


def remove_policies(trials: Sequence[Trial], keep: KeepPolicies, goal: Goal, root: Path) -> None:
    """Delete what trials that ended made and checkpointed in their folders, unless they are to be kept.

    Logs and all that is recorded stay. What lies elsewhere is nobody's to delete.

    Args:
        keep: "best" keeps those of the trial with the best score, "pareto" of those on the Pareto front.
        root: the sweep's folder, with the folder ``trial_0007`` of each trial.
    """
    if keep == "all":
        return
    kept = pareto_front(trials, goal) if keep == "pareto" else {trial.number for trial in ranked(trials, goal)[:1]}
    for trial in trials:
        if trial.state.ended and trial.number not in kept:
            _remove(trial, trial_folder(root, trial.number).resolve())


def trial_folder(root: Path, number: int) -> Path:
    """The folder of one trial in that of its sweep."""
    return root / f"trial_{number:04d}"


def artefact_path(uri: str) -> Path | None:
    """The path that a file:// URI names, or None for anything else."""
    parts = urlparse(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" and parts.netloc in ("", "localhost") else None


def _remove(trial: Trial, folder: Path) -> None:
    made = [path.resolve() for uri in trial.artefacts.values() if (path := artefact_path(uri))]
    checkpoints = [folder / "checkpoints", *folder.glob("seed_*/checkpoints")]
    for path in [*made, *checkpoints]:
        if path == folder or not path.is_relative_to(folder):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
