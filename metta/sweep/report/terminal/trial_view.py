"""One trial: its hyperparameters, its outcome, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from metta.common.config import flatten
from metta.common.text import shortened
from metta.sweep.analysis.failures import log_end
from metta.sweep.definition import SweepDefinition
from metta.sweep.report.curves import curve_metric, curve_points
from metta.sweep.report.format import (
    cost_text,
    duration_text,
    number_text,
    range_text,
    score_text,
    suggestion_text,
    value_text,
)
from metta.sweep.report.terminal.chart import chart
from metta.sweep.retention import sweep_folder, trial_folder
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import CurvePoint
from metta.sweep.trial import Trial, TrialState

CURVE_HEIGHT = 12
FEW_METRICS = 12
LONGEST_TEXT = 50_000
"""Characters of an error, a hyperparameter or another text; of a longer one the beginning and the end are shown."""


def print_trial(
    console: Console,
    state: SweepState,
    trial: Trial,
    curve: Sequence[CurvePoint],
    commands: dict[str, str],
) -> None:
    """Print everything about a trial.

    Args:
        console: where to print.
        state: its sweep.
        trial: the one to show.
        curve: its learning curve.
        commands: what to run next, by purpose.
    """

    def say(text: str, style: str | None = None) -> None:
        text = shortened(text, LONGEST_TEXT)
        console.print(text, highlight=False, markup=False, soft_wrap=True, style=style)

    definition = state.definition
    say(f"trial {trial.number}: {_outcome(state, trial)}", "bold")
    for line in _remarks(state, trial):
        say(line, "yellow")
    say(_times(trial))
    say(f"hyperparameters: {suggestion_text(trial.suggestion, definition)}", "bold")
    parameters = flatten(definition.protein.parameters)
    for path, value in trial.params.items():
        searched = f"  (from {range_text(parameters[path])})" if path in parameters else ""
        say(f"  {path}={value_text(value)}{'' if '(fixed)' in searched else searched}")
    if trial.metrics:
        say("measured:", "bold")
        for line in _measured(definition, trial):
            say(f"  {line}")
    name = curve_metric(state.metric, curve, definition.traits, at_least=2, watched=definition.progress_metric)
    if name is not None:
        say(f"learning curve: {name}", "bold")
        for line in chart({"*": curve_points(curve, name)}, min(console.width, 80), CURVE_HEIGHT, "step"):
            say(line)
    if trial.error:
        say("error:", "bold red")
        say(trial.error.rstrip(), "red")
        folder = trial_folder(sweep_folder(state.record), trial.number)
        if folder.is_dir():
            say("\n".join([f"its folder: {folder}", *log_end(folder, trial.error)]))
    for artefact, uri in trial.artefacts.items():
        say(f"{artefact}: {uri}")
    for what, command in commands.items():
        say(f"{what}:")
        say(f"  {command}", "bold")


def _remarks(state: SweepState, trial: Trial) -> list[str]:
    """Remarks: why the sweep does not use the trial, or not all of it, and why it ran."""
    reading, lines = state.reader.read(trial), []
    if trial.dropped is not None:
        lines.append(f"dropped{f': {trial.dropped}' if trial.dropped else ''}")
    if trial.mishap:
        lines.append("a mishap: it says nothing about the hyperparameters, so it is neither learnt from nor counted")
    if trial.stopped is not None:
        lines.append(f"stopped early: {trial.stopped}")
    if trial.number in state.repeats:
        lines.append(f"repeats trial {state.repeats[trial.number]} with another seed")
    if reading.problem is not None:
        lines.append(f"not learnt from: {reading.problem}")
    if reading.remark is not None:
        lines.append(f"kept without a cost: {reading.remark}")
    lines += [f"cannot be read: {line}" for line in trial.damage]
    return lines


def _outcome(state: SweepState, trial: Trial) -> str:
    definition = state.definition
    if trial.state is not TrialState.COMPLETED or trial.score is None:
        score = "" if trial.score is None else f", {definition.protein.metric} {trial.score:.4g}"
        return f"{trial.state}{score}"
    order, best = [each.number for each in state.ranked], state.conclusions.best
    said = f"{definition.protein.metric} {score_text(trial)} for {cost_text(trial, definition)}"
    if trial.number in order:
        rank = order.index(trial.number) + 1
        said += ", the top score" if rank == 1 else f", number {rank} of {len(order)}"
    if best is not None and trial.number == best.number:
        said += ", the best trial"
    if trial.number in state.on_front:
        said += ", on the Pareto front"
    return said


def _times(trial: Trial) -> str:
    said = [f"{trial.attempts} attempt{'' if trial.attempts == 1 else 's'}"]
    if trial.started_at:
        said.append(f"started {trial.started_at:%Y-%m-%d %H:%M:%S} UTC")
        if trial.ended_at:
            said.append(f"took {duration_text((trial.ended_at - trial.started_at).total_seconds())}")
    return ", ".join(said)


def _details(definition: SweepDefinition, metrics: Mapping[str, float], simulation: str) -> str:
    """The details that the Tool declares, for a line with a simulation's score: ``  per agent gained: 1.20 heart``."""
    own = {name.removeprefix(f"{simulation}/"): value for name, value in metrics.items()}
    text = ""
    for ending, title in definition.traits.details.items():
        amounts = [
            f"{value:.2f} {name.removesuffix(ending)}"
            for name, value in own.items()
            if name.endswith(ending) and "/" not in name
        ]
        text += f"  {title}: {', '.join(amounts)}" if amounts else ""
    return text


def _measured(definition: SweepDefinition, trial: Trial) -> list[str]:
    """The score, each simulation with its details, and the first numbers of the training."""
    metrics, chosen = trial.metrics, dict[str, str]()
    for name in (definition.protein.metric, *definition.simulations):
        if name in metrics:
            details = _details(definition, metrics, name) if name in definition.simulations else ""
            chosen[name] = f"{name} {metrics[name]:.4g}{details}"
    plain = [name for name in metrics if "/" not in name and name not in chosen][:FEW_METRICS]
    lines = [*chosen.values()]
    if plain:
        lines.append(", ".join(f"{name} {number_text(metrics[name])}" for name in plain))
    rest = len(metrics) - len(chosen) - len(plain)
    return [*lines, f"and {rest} more numbers, which --json shows"] if rest > 0 else lines
