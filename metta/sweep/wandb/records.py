"""Encodes a sweep and its trials as runs of Weights & Biases, and decodes them.

Config and summary are for display, and W&B may change their values: a NaN in a config becomes null, a float without a
fraction becomes an integer. Only one string in each run is read back, JSON as in the store, which W&B does not change.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from metta.common.plain import strict
from metta.sweep.store import encoding
from metta.sweep.store.protocol import CurvePoint, SweepRecord
from metta.sweep.store.results import as_float, as_step
from metta.sweep.trial import Trial, TrialState

KEY = "metta"
"""Config and summary hold our internal data under this key. No hyperparameter or metric has this name."""

DEFINITION = "sweep"
"""The item that is the sweep itself. Its trials are named by their numbers."""

BEST = "best"
"""The item that records which trial's policy was last logged as the best one."""

_OPTIONAL = ("dropped", "cost_metric", "stopped", "share")
"""Fields that are written only if they are set, so that other trials have the same text as in earlier versions."""

_TIMES = ("created_at", "started_at", "ended_at")


def sweep_id(record: SweepRecord) -> str:
    """Identifies the sweep, distinguishes it from earlier ones of the same name, and is kept in copies."""
    identity = f"{record.name} {record.created_at.isoformat()}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def run_id(record: SweepRecord, item: str | int) -> str:
    """The run of a trial, by its number, or of the sweep itself."""
    return f"{sweep_id(record)}-{item}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def encode_sweep(record: SweepRecord) -> str:
    data = asdict(record) | {"created_at": record.created_at.isoformat()}
    del data["damage"]  # describes the stored row here
    return encoding.dumps(data)


def decode_sweep(text: str) -> SweepRecord:
    data = encoding.loads(text)
    return SweepRecord(**_known(SweepRecord, data) | {"created_at": datetime.fromisoformat(data["created_at"])})


def encode_trial(trial: Trial) -> str:
    data = {name: value for name, value in asdict(trial).items() if name not in _OPTIONAL or value is not None}
    data |= {name: None if data[name] is None else data[name].isoformat() for name in _TIMES}
    data.pop("damage", None)  # describes the stored row here
    return encoding.dumps(data)


def decode_trial(text: str) -> Trial:
    data = encoding.loads(text)
    times = {name: None if data[name] is None else datetime.fromisoformat(data[name]) for name in _TIMES}
    return Trial(**_known(Trial, data) | times | {"state": TrialState(data["state"])})


def _known(kind: type[Trial | SweepRecord], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data without fields of a newer version."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def trial_config(record: SweepRecord, trial: Trial) -> dict[str, Any]:
    """The hyperparameters, with the sweep and the trial that they belong to."""
    return {**trial.params, KEY: {"sweep": record.name, "sweep_id": sweep_id(record), "trial": trial.number}}


def trial_summary(trial: Trial, text: str) -> dict[str, Any]:
    """The trial's results for display, and `text`, which is the trial as `encode_trial` writes it.

    The digest is written last: if an ended trial has it, everything before it has arrived.
    """
    summary: dict[str, Any] = {**trial.metrics, "state": str(trial.state), "attempts": trial.attempts}
    summary |= {name: value for name, value in (("score", trial.score), ("cost", trial.cost)) if value is not None}
    if trial.suggestion:
        summary["suggestion"] = trial.suggestion
    if trial.dropped is not None:
        summary["dropped"] = trial.dropped or True
    if trial.stopped is not None:
        summary["stopped"] = trial.stopped
    if trial.state is TrialState.PRUNED and trial.share is not None:
        summary["share"] = trial.share
    if trial.mishap:
        summary["mishap"] = True
    if trial.error:
        summary["error"] = trial.error.strip().rpartition("\n")[2][:1000]
    return {**summary, KEY: {"trial": text, "digest": digest(text)}}


def shown(value: Any) -> Any:
    """JSON data with NaN and the infinities as text, spelt as in W&B, which would drop the numbers."""
    return strict(value, lambda number: "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity")


def history_row(point: CurvePoint) -> dict[str, Any]:
    """A point of the learning curve; its step is a separate axis, because a later attempt may start from zero."""
    return point.metrics | {
        "progress/step": point.step,
        "progress/seconds": point.seconds,
        "progress/attempt": point.attempt,
    }


def curve_point(row: dict[str, Any]) -> CurvePoint | None:
    """The point that `history_row` wrote, or None for any other row."""
    if "progress/step" not in row:
        return None
    ours = ("progress/step", "progress/seconds", "progress/attempt")
    metrics = {name: as_float(value) for name, value in row.items() if name not in ours and not name.startswith("_")}
    attempt, step, seconds = (row.get(name) for name in ("progress/attempt", "progress/step", "progress/seconds"))
    return CurvePoint(as_step(attempt), as_step(step), as_float(seconds), metrics)


def explain(error: BaseException) -> str:
    """One line without anything that looks like an API key."""
    reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if reason in ("", "<no message>"):  # the client's text for some refusals
        reason = f"{type(error).__name__} without a reason"
    return re.sub(r"[\w-]{40,}", "***", reason)[:300]
