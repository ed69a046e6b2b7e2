"""Which setting of a sweep is best, and which others may be as good."""

from __future__ import annotations

from metta.sweep.confirmation import Verdict, judge
from metta.sweep.report.snapshot import Snapshot
from metta.sweep.report.standing import ranked
from metta.sweep.trial import Trial


def on_fresh_seeds(sweep: Snapshot) -> Verdict | None:
    """What fresh seeds say of the best settings, where they have been run."""
    numbers = {trial.suggestion.get("trial") for trial in sweep.confirmations}
    chosen = [trial for trial in sweep.trials if trial.number in numbers]
    verdict = judge(sweep.definition, chosen, sweep.confirmations)
    return verdict if any(setting.scores for setting in verdict.settings) else None


def best_trial(sweep: Snapshot) -> Trial | None:
    """The trial that did best on fresh seeds; or that the model recommends; or before it was asked the best score's."""
    order, verdict = ranked(sweep.trials, sweep.goal), on_fresh_seeds(sweep)
    chosen = sweep.analysis.recommended if sweep.analysis else None
    if verdict is not None and verdict.settings[0].mean is not None:
        chosen = verdict.settings[0].trial
    return next((trial for trial in order if trial.number == chosen), order[0] if order else None)


def as_good(sweep: Snapshot) -> list[Trial]:
    """Trials of other settings that may be as good as the best one, those that the model expects most of first.

    It expects them within the noise of one measurement of the best, or better. Of one setting this is one trial.
    """
    best, analysis = best_trial(sweep), sweep.analysis
    if best is None or analysis is None or best.number not in analysis.expected:
        return []
    sign, expected = 1.0 if sweep.goal == "maximize" else -1.0, analysis.expected
    level = sign * expected[best.number].score - expected[best.number].noise_std
    close: dict[str, Trial] = {}
    for trial in ranked(sweep.trials, sweep.goal):
        if trial.number in expected and trial.params != best.params and sign * expected[trial.number].score >= level:
            close.setdefault(repr(sorted(trial.params.items())), trial)
    return sorted(close.values(), key=lambda trial: -sign * expected[trial.number].score)
