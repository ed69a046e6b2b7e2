"""Deletes policies and checkpoints that need not be kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import unquote

from metta.common import shared_files
from metta.common.data_dir import data_dir
from metta.common.errors import UserError
from metta.common.urls import public_url
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import SweepRecord
from metta.sweep.trial import Trial

LOW_DISK_BYTES = 2 * 2**30
"""If less space is free on the disk of the runs, files that need not be kept are deleted before the sweep ends."""


class Retention:
    """Deletes the artefacts and checkpoints of ended trials, except those to keep.

    `keep_policies` is applied when the sweep has ended. While it runs, the best trial may still change, so nothing is
    deleted unless the disk is nearly full; even then the policies of the top, the best and the Pareto-optimal trials
    are kept. Logs and records are always kept. Artefacts are deleted only inside the trial's own folders.

    Args:
        root: the sweep's folder, with a folder such as ``trial_0007`` for each trial.
        shared: returns the URL of the shared folder for the artefacts of a trial, by its number, or None.
        notice: called with a message when the disk is nearly full.
    """

    def __init__(
        self, root: Path, shared: Callable[[int], str | None], notice: Callable[[str], None] = lambda message: None
    ) -> None:
        self._root = root
        self._shared = shared
        self._notice = notice
        self._noticed = False
        self._done: set[tuple[int, int]] = set()

    def trial_ended(self, state: SweepState) -> None:
        """Free space, if the disk is nearly full and `keep_policies` is not "all".

        Raises:
            UserError: a file cannot be deleted; it is tried again the next time.
        """
        if state.definition.keep_policies == "all" or not self._disk_is_low():
            return
        if not self._noticed:
            self._notice(
                f"the disk of {self._root} is nearly full, so policies other than those of the top, the best and the "
                f"Pareto-optimal trials are deleted now (keep_policies={state.definition.keep_policies})"
            )
            self._noticed = True
        self._delete(state, state.policies_wanted)

    def sweep_ended(self, state: SweepState) -> None:
        """Apply `keep_policies`.

        Raises:
            UserError: a file cannot be deleted; it is tried again when the sweep is run again.
        """
        if state.definition.keep_policies != "all":
            self._delete(state, state.policies_kept(state.definition.keep_policies))

    def _disk_is_low(self) -> bool:
        try:
            return shutil.disk_usage(self._root).free < LOW_DISK_BYTES
        except OSError:
            return False

    def _delete(self, state: SweepState, kept: Collection[int]) -> None:
        for trial in state.trials:
            attempt = (trial.number, trial.attempts)
            if trial.state.ended and trial.number not in kept and attempt not in self._done:
                try:
                    _remove_here(trial, trial_folder(self._root, trial.number).resolve())
                except OSError as error:
                    raise UserError(f"{error.filename}: {error.strerror}") from None
                self._remove_shared(trial)
                self._done.add(attempt)

    def _remove_shared(self, trial: Trial) -> None:
        folder = self._shared(trial.number)
        for uri in trial.artefacts.values():
            if folder is not None and _is_below(uri, folder):
                shared_files.remove(uri)


def sweeps_folder(name: str) -> Path:
    """The folder of the runs of all sweeps of that name."""
    return data_dir() / "sweeps" / name


def sweep_folder(record: SweepRecord) -> Path:
    """The sweep's folder; its time of creation keeps it apart from an earlier sweep of the same name."""
    return sweeps_folder(record.name) / f"{record.created_at:%Y%m%d-%H%M%S}"


def trial_folder(root: Path, number: int) -> Path:
    """The folder of a trial in the folder of its sweep."""
    return root / f"trial_{number:04d}"


def require_written_by(state: SweepState, trial: Trial, uri: str) -> None:
    """Refuse an artefact that its trial cannot have written, because its URI in the store is not trusted.

    A trial writes only into its folder among the sweep's runs, and into its folder below the URL for policies.

    Raises:
        UserError: the URI leads elsewhere.
    """
    policies = state.definition.tool.get("policies")
    run = f"{state.name}.{trial.number:04d}"
    shared = [f"{policies.rstrip('/')}/{run}"] if isinstance(policies, str) else []
    own = trial_folder(sweep_folder(state.record).absolute(), trial.number).as_uri()
    if not any(_is_below(uri, folder) for folder in (own, *shared)):
        raise UserError(
            f"trial {trial.number}: {public_url(uri)} is not read, because it is not where the sweep writes: {own}"
        )


def _is_below(uri: str, folder: str) -> bool:
    """Whether a URI leads into a folder. Links and ``..`` are followed."""
    path, root = artefact_path(uri), shared_files.local_path(folder)
    if path is not None and root is not None:
        return path.resolve() != root.resolve() and path.resolve().is_relative_to(root.resolve())
    parts = unquote(uri.removeprefix(f"{folder}/")).split("/")
    return uri.startswith(f"{folder}/") and ".." not in parts and not {"?", "#"} & set(uri)


def artefact_path(uri: str) -> Path | None:
    """The path of a file:// URI; None for any other URI, and for one that cannot name a file."""
    try:
        path = shared_files.local_path(uri) if "://" in uri else None
    except ValueError:  # not a URL
        return None
    return path if path is not None and _may_exist(path) else None


def _may_exist(path: Path) -> bool:
    """Whether a file may have this path; the operating system raises errors for others."""
    return (
        "\0" not in str(path) and len(os.fsencode(path)) < 4096 and all(len(os.fsencode(p)) < 256 for p in path.parts)
    )


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
