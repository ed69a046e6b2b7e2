"""Logs one training run outside any sweep to Weights & Biases."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metta.common.data_dir import data_dir
from metta.sweep.trial import Progress, TrialResult
from metta.sweep.wandb import records
from metta.sweep.wandb.config import WandbConfig, destination

PATIENCE_SECONDS = 20.0

Notice = Callable[[str], None]


class TrainingLog:
    """Logs the progress and the result of a run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def report(self, progress: Progress) -> None:
        """Log a point of the learning curve."""
        if self._run is not None and progress.metrics:
            self._run.log(progress.metrics | {"progress/step": progress.step, "progress/seconds": progress.seconds})

    def end(self, result: TrialResult) -> None:
        """Log the metrics of the whole run."""
        if self._run is not None:
            self._run.summary.update(records.shown(dict(result.metrics)) | {"artefacts": dict(result.artefacts)})


@contextmanager
def logged_training(
    config: WandbConfig,
    run_name: str,
    run_dir: Path,
    settings: Mapping[str, Any],
    notice: Notice,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[TrainingLog]:
    """Log the training of the body. The same folder resumes the same W&B run.

    If W&B does not answer, the run is kept in files for ``wandb sync``.

    Args:
        settings: the run's config as JSON data.
        notice: called with one line about where the run is.
    """
    where = destination(config)
    if where.mode == "off":
        yield TrainingLog(None)
        return
    run = _begin(config, run_name, run_dir, settings, where.mode == "offline", notice, patience)
    failed = True
    try:
        yield TrainingLog(run)
        failed = False
    finally:
        _end(run, failed, notice)


def _begin(
    config: WandbConfig,
    run_name: str,
    run_dir: Path,
    settings: Mapping[str, Any],
    offline: bool,
    notice: Notice,
    patience: float,
) -> Any:
    import wandb

    from metta.sweep.wandb.project import client_settings

    data_dir().mkdir(parents=True, exist_ok=True)
    identity = f"{run_name[:100]}-{hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12]}"
    logging.getLogger("wandb").setLevel(logging.ERROR)
    while True:
        try:
            run = wandb.init(
                id=identity,
                entity=config.entity,
                project=config.project,
                name=run_name,
                job_type="train",
                config=records.shown(dict(settings)),
                resume=None if offline else "allow",
                reinit="create_new",
                mode="offline" if offline else "online",
                dir=str(data_dir()),
                settings=client_settings(patience),
            )
        except wandb.Error as error:
            if offline:
                raise
            offline, identity = True, f"{identity}-offline"  # the client keeps the first run open
            notice(f"Weights & Biases is unreachable, so the run is kept in files: {records.explain(error)}")
            continue
        run.define_metric("*", step_metric="progress/step")
        notice(
            f"Weights & Biases: {run.url}"
            if run.url
            else f"Weights & Biases: send the run with: wandb sync {_folder(run)}"
        )
        return run


def _end(run: Any, failed: bool, notice: Notice) -> None:
    try:
        run.finish(exit_code=1 if failed else 0)
    except TimeoutError:
        notice(f"Weights & Biases did not receive the whole run; send it with: wandb sync {_folder(run)}")


def _folder(run: Any) -> Path:
    return Path(run.dir).parent
