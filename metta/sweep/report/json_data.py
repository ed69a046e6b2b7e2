"""Sweeps and trials as strict JSON data, in which NaN and the infinities are text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from metta.common.plain import strict
from metta.sweep.analysis.comparison import Comparison
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import CurvePoint
from metta.sweep.trial import Progress, Trial, TrialState


def sweep_as_json(state: SweepState, shown: Sequence[Trial] | None = None) -> dict[str, Any]:
    """A sweep and some of its trials.

    Args:
        state: the sweep.
        shown: the trials to show, in their order; by default all.
    """
    best, top = state.conclusions.best, state.conclusions.top
    return {
        "sweep": state.name,
        "num_trials": state.definition.num_trials,
        "metric": state.metric,
        "goal": state.goal,
        "cost_metric": state.definition.cost_metric,
        "seed": state.definition.seed,
        "spent": strict(state.spent),
        "best": best.number if best else None,
        "top": top.number if top else None,
        "problems": {str(number): reason for number, reason in state.problems.items()},
        "trials": [
            trial_as_json(trial) | {"pareto": trial.number in state.on_front}
            for trial in (state.trials if shown is None else shown)
        ],
    }


def trial_as_json(trial: Trial) -> dict[str, Any]:
    """A trial."""
    return {
        "number": trial.number,
        "state": str(trial.state),
        "params": strict(trial.params),
        "score": strict(trial.score),
        "cost": strict(trial.cost),
        "dropped": trial.dropped,
        "stopped": trial.stopped,
        "share": strict(trial.share),
        "attempts": trial.attempts,
        "metrics": strict(trial.metrics),
        "suggestion": strict(trial.suggestion),
        "policy_uri": trial.artefacts.get("policy"),
        "artefacts": trial.artefacts,
        "created_at": _time(trial.created_at),
        "started_at": _time(trial.started_at),
        "ended_at": _time(trial.ended_at),
        "error": trial.error,
    }


def trial_with_curve_as_json(trial: Trial, curve: Sequence[CurvePoint], commands: dict[str, str]) -> dict[str, Any]:
    """A trial with its learning curve and the commands for it."""
    points = [
        {
            "attempt": point.attempt,
            "step": point.step,
            "seconds": strict(point.seconds),
            "metrics": strict(point.metrics),
        }
        for point in curve
    ]
    return trial_as_json(trial) | {"curve": points, "commands": commands}


def progress_as_json(progress: Progress) -> dict[str, Any]:
    """The progress of a running trial."""
    metrics = strict(progress.metrics)
    return {"step": progress.step, "total": progress.total, "seconds": progress.seconds, "metrics": metrics}


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """Two sweeps side by side."""
    a, b = comparison.a, comparison.b
    return {
        "metric": a.metric,
        "goal": a.goal,
        "cost_metric": a.definition.cost_metric,
        "a": _compared(a),
        "b": _compared(b),
        "regret": [{"spent": row.spent, "a": row.a, "b": row.b} for row in comparison.rows],
        "differences": comparison.differences,
    }


def _compared(sweep: SweepState) -> dict[str, Any]:
    best, top = sweep.conclusions.best, sweep.conclusions.top
    return {
        "sweep": sweep.name,
        "ended": sweep.counted,
        "failed": sweep.counts[TrialState.FAILED],
        "spent": strict(sweep.spent),
        "best": best.number if best else None,
        "best_score": best.score if best else None,
        "best_cost": best.cost if best else None,
        "top": top.number if top else None,
        "top_score": top.score if top else None,
        "top_cost": top.cost if top else None,
        "pareto": [{"number": t.number, "score": t.score, "cost": t.cost} for t in sweep.front],
    }


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
