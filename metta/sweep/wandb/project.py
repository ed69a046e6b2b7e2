"""A project of Weights & Biases, through its client: runs are written with `wandb.init`, and read with `wandb.Api`.

The client reports that a run is finished even if the server stored nothing. So each run is read back, and it counts as
sent only if the server returns it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import wandb

from metta.sweep.store.protocol import CurvePoint, SweepRecord
from metta.sweep.trial import Trial
from metta.sweep.wandb import records
from metta.sweep.wandb.config import WandbConfig

RUNS_PER_PAGE = 200
POLICY_KIND = "model"
UPLOAD_PATIENCE = 10.0
"""A multiple of a request's patience."""


class NotReceivedError(Exception):
    """The server has not stored a run that was sent to it."""


class Project:
    """The W&B project of a sweep's runs.

    Args:
        config: names the project.
        folder: for the client's files.
        patience: the time limit in seconds for a request, or for the start or end of a run.
        offline: write files for ``wandb sync`` instead of sending.
    """

    def __init__(self, config: WandbConfig, folder: Path, patience: float, offline: bool = False) -> None:
        self._project = config.project
        self._entity = config.entity
        self._folder = folder
        self.patience = patience
        self._offline = offline
        self._opened_api: Any = None
        self.url: str | None = None

    def open_trial(self, record: SweepRecord, trial: Trial) -> TrialRun:
        """Start the run of a trial, or resume it."""
        config = records.trial_config(record, trial)
        run = self._open(record, trial.number, f"{record.name}.{trial.number:04d}", "trial", config)
        if not trial.state.ended:
            run.summary.update(records.shown(records.trial_summary(trial, records.encode_trial(trial))))
        return TrialRun(self, run)

    def send_sweep(self, record: SweepRecord, text: str) -> None:
        """Write the sweep without its trials. `text` is the sweep as `records.encode_sweep` writes it."""
        shown = {name: value for name, value in record.config.items() if name not in ("tool", "simulations")}
        run = self._open(record, records.DEFINITION, record.name, "sweep", shown)
        run.summary.update({records.KEY: {"digest": records.digest(text), "sweep": text}})
        self.finish(run, records.digest(text))

    def sweeps(self, name: str) -> list[SweepRecord]:
        """The sweeps of that name, the newest first."""
        texts = (self._read(run, "sweep") for run in self._runs(name, "sweep"))
        found = [records.decode_sweep(text) for text in texts if text is not None]
        return sorted(found, key=lambda record: record.created_at, reverse=True)

    def trials(self, record: SweepRecord) -> Iterator[str]:
        """The sweep's trials, each as `records.encode_trial` wrote it."""
        for run in self._runs(record.name, "trial"):
            text = self._read(run, "trial")
            if text is not None and run.id.startswith(f"{records.sweep_id(record)}-"):
                yield text

    def curve(self, record: SweepRecord, number: int) -> list[CurvePoint]:
        """The learning curve of a trial."""
        run = self._api().run(self._path(records.run_id(record, number)))
        return [point for row in run.scan_history(use_cache=False) if (point := records.curve_point(row)) is not None]

    def answers(self, record: SweepRecord) -> bool:
        """Whether the server answers and allows reading."""
        if self._offline:
            return False
        try:
            self._api().flush()
            next(self._runs(record.name, "sweep"), None)
        except Exception:
            return False
        return True

    def finish(self, run: Any, digest: str) -> None:
        """End a run, and check that the server has the version with this digest.

        Raises:
            NotReceivedError: it does not.
        """
        run.finish()
        if self._offline:
            return
        self._entity = run.entity
        deadline = time.monotonic() + self.patience
        while True:
            self._api().flush()
            shown = self._api().run(self._path(run.id)).summary.get(records.KEY)
            if shown is not None and shown["digest"] == digest:
                return
            if time.monotonic() > deadline:
                raise NotReceivedError(f"run {run.id} was sent but has not arrived")
            time.sleep(min(0.5, self.patience / 10))

    def _open(self, record: SweepRecord, item: str | int, name: str, kind: str, config: dict[str, Any]) -> Any:
        run = wandb.init(
            id=records.run_id(record, item),
            entity=self._entity,
            project=self._project,
            group=record.name,
            job_type=kind,
            name=name,
            config=records.shown(config),
            resume=None if self._offline else "allow",
            reinit="create_new",
            mode="offline" if self._offline else "online",
            dir=str(self._folder),
            settings=client_settings(self.patience),
        )
        self.url = run.project_url or self.url
        return run

    def _runs(self, group: str, kind: str) -> Iterator[Any]:
        filters = {"$and": [{"group": group}, {"jobType": kind}]}
        runs = self._api().runs(self._path(), filters, order="+created_at", per_page=RUNS_PER_PAGE, lazy=False)
        try:
            yield from runs
        except ValueError as error:
            if "Could not find project" not in str(error):
                raise

    def _read(self, run: Any, what: str) -> str | None:
        ours = run.summary.get(records.KEY)
        return None if ours is None else ours.get(what)

    def _path(self, *run: str) -> str:
        if self._entity is None:
            self._entity = self._api().default_entity
        return "/".join([str(self._entity), self._project, *run])

    def _api(self) -> Any:
        if self._opened_api is None:
            self._opened_api = wandb.Api(timeout=max(1, round(self.patience)))
        return self._opened_api


class TrialRun:
    """The run of one trial, while it is open."""

    def __init__(self, project: Project, run: Any) -> None:
        self._project = project
        self._run = run
        self._logged = int(run.starting_step)
        run.define_metric("*", step_metric="progress/step")

    def log(self, curve: Sequence[CurvePoint]) -> None:
        """Log the points of the trial's learning curve that the run does not have yet; they are numbered from 0."""
        for number in range(self._logged, len(curve)):
            self._run.log(records.history_row(curve[number]), step=number)
        self._logged = max(self._logged, len(curve))

    def log_policy(self, uri: str, name: str, metadata: dict[str, Any]) -> None:
        """Log a policy as an artefact: its files if they are here, otherwise their address."""
        artifact = wandb.Artifact(name, POLICY_KIND, metadata=metadata)
        address = urlsplit(uri)
        path = Path(unquote(address.path) if address.scheme == "file" else uri)
        if path.is_dir():
            artifact.add_dir(str(path))
        elif path.is_file():
            artifact.add_file(str(path))
        else:
            artifact.add_reference(uri, checksum=False)
        self._run.log_artifact(artifact, aliases=["best"]).wait(round(UPLOAD_PATIENCE * self._project.patience))

    def end(self, trial: Trial, text: str) -> None:
        """Write the trial's result. `text` is the trial as `records.encode_trial` writes it."""
        self._run.summary.update(records.shown(records.trial_summary(trial, text)))
        self._project.finish(self._run, records.digest(text))

    def interrupt(self) -> None:
        """End the run of a trial that has not ended. The run is resumed together with the trial."""
        self._run.mark_preempting()
        self._run.finish(exit_code=1)


def client_settings(patience: float) -> wandb.Settings:
    """The client's settings: silent, without data about machine and code, and with short timeouts."""
    parts = ("graphql", "file_stream")
    retries = {"retry_max": 3, "retry_wait_min_seconds": 1, "retry_wait_max_seconds": max(1, round(patience / 10))}
    retries["timeout_seconds"] = max(1, round(patience / 4))  # whole seconds, because the client truncates fractions
    limits: dict[str, Any] = {f"x_{part}_{name}": value for part in parts for name, value in retries.items()}
    return wandb.Settings(
        silent=True,
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        init_timeout=patience,
        finish_timeout=patience,
        finish_timeout_raises=True,
        x_file_transfer_retry_max=3,
        **limits,
    )
