"""A trial on several seeds: its result is the mean, and the spread shows the noise."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metta.common.files import write_whole
from metta.sweep.executor.messages import from_json, to_json
from metta.sweep.trial import Progress, Report, RunTrial, TrialResult, TrialSpec


def run_repeats(run_trial: RunTrial, spec: TrialSpec, report: Report) -> TrialResult:
    """Run a trial on one seed after the other, each in its own folder, and return the mean of the results.

    A seed that an earlier attempt completed is not run again.
    """
    results: list[TrialResult] = []
    steps, seconds = 0, 0.0
    for index, tool in enumerate([spec.tool, *spec.repeats]):
        last = steps

        def forward(progress: Progress, before: int = steps, earlier: float = seconds, index: int = index) -> bool:
            nonlocal last
            last = before + progress.step
            total = None if progress.total is None else progress.total * (1 + len(spec.repeats))
            metrics = {**progress.metrics, "seed": float(index)}
            return report(Progress(last, total, earlier + progress.seconds, metrics))

        folder = Path(spec.run_dir) / f"seed_{index}"
        results.append(_run_once(run_trial, replace(spec, tool=tool, repeats=[], run_dir=str(folder)), forward))
        steps, seconds = last, seconds + results[-1].cost
        if results[-1].stopped:
            break
    return mean_result(results)


def _run_once(run_trial: RunTrial, spec: TrialSpec, report: Report) -> TrialResult:
    kept = Path(spec.run_dir) / "result.json"
    if kept.exists():
        return replace(from_json(TrialResult, kept.read_text()), cost=0.0)
    result = run_trial(spec, report)
    leads = os.environ.get("RANK", "0") == "0"  # only the first rank evaluates, and its result counts
    if leads and not result.stopped and result.error is None:
        write_whole(kept, to_json(result))
    return result


def mean_result(results: Sequence[TrialResult]) -> TrialResult:
    """Means of the metrics that all results have, with their standard deviations; costs are summed."""
    first = results[0]
    common = [name for name in first.metrics if all(name in result.metrics for result in results)]
    values = {name: [float(result.metrics[name]) for result in results] for name in common}
    artefacts = {
        name if index == 0 else f"{name}.seed_{index}": uri
        for index, result in enumerate(results)
        for name, uri in result.artefacts.items()
    }
    return TrialResult(
        metrics={name: statistics.fmean(each) for name, each in values.items()},
        cost=sum(result.cost for result in results),
        artefacts=artefacts,
        error=next((result.error for result in results if result.error), None),
        stopped=any(result.stopped for result in results),
        spread={name: _deviation(each) for name, each in values.items()} if len(results) > 1 else {},
    )


def _deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; unlike `statistics.stdev` it accepts NaN and infinities, and then returns NaN."""
    mean = statistics.fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
