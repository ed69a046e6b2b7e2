"""A sweep's conclusions as sentences: the best setting, how sure that is, what matters, and what to run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from metta.common.config import flatten
from metta.common.counts import count_text, plural
from metta.common.entry_point import metta_sweep_command
from metta.sweep.analysis.conclusions import BestReason, Certainty, Conclusions, Evidence, NextStep, Quality
from metta.sweep.definition import SweepDefinition
from metta.sweep.protein.types import OtherLength
from metta.sweep.report.commands import SEE_ALL, confirm_command, next_commands, widen_command
from metta.sweep.report.confirmation import sentences, setting_sentence
from metta.sweep.report.format import (
    choice_text,
    cost_name,
    cost_text,
    list_text,
    one_cost_text,
    range_text,
    score_text,
    short_text,
    source_text,
)
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

MOST_NAMED = 12
"""The most trials that are named one by one."""

MOST_REASONS = 3
"""The most reasons of failures that are named before any trial has a score."""

NOT_ASKED = "The model has not analysed the sweep yet."

QUALITIES = {Quality.GOOD: "good", Quality.FAIR: "fair", Quality.POOR: "poor"}


@dataclass(frozen=True)
class Finding:
    """One question and its answer.

    Attributes:
        question: in a few words.
        answer: in one line.
        details: sentences.
        table: rows of three cells, a name first; the first row has the headings. Empty for no table.
        commands: what to run, with the reason for each.
        others: what may be run instead.
    """

    question: str
    answer: str
    details: list[str] = field(default_factory=list)
    table: list[tuple[str, str, str]] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)


def in_short(sweep: SweepState) -> str:
    """The sweep's outcome in one sentence; "" if it is too early for one."""
    found = sweep.conclusions
    best, baseline = found.best, found.baseline
    if best is None or found.evidence is Evidence.ALMOST_NONE or sweep.analysis is None:
        return ""
    said = f"Trial {best.number} is the best trial found"
    if (worth := found.worth(best)) is not None:
        start = None if baseline is None or baseline is best else found.worth(baseline)
        beside = "" if baseline is None or start is None else f" ({source_text(baseline.suggestion)}: {start:.3g})"
        said += f", worth about {worth:.3g}{beside}"
    doubts = []
    if found.contenders and found.confirmation is None:
        doubts.append(f"{count_text(found.contenders, 'other')} may be as good")
    if found.wider_ranges:
        names = [sweep.parameter_names[path] for path in found.wider_ranges]
        doubts.append(f"the {plural('range', len(names))} of {list_text(names)} may be too narrow")
    return f"{said}, but {', and '.join(doubts)}." if doubts else f"{said}."


def findings(sweep: SweepState) -> list[Finding]:
    """The answers to four questions about a sweep, and to a fifth if trials were stopped early or repeated."""
    found, best = sweep.conclusions, sweep.conclusions.best
    if best is None:
        return [_nothing_yet(found), _next(found)]
    four = [_best(found, best), _certainty(found, best), _importance(found), _next(found)]
    return [*four, _savings(found)] if sweep.stopped or sweep.repeats else four


def best_reason(sweep: SweepState) -> str:
    """Why the best trial is the best one, in a sentence that is as certain as the evidence."""
    found = sweep.conclusions
    best, top = found.best, found.top
    if best is None or top is None or found.reason is None:
        return "No trial has a score yet."
    if found.reason is BestReason.ONLY:
        return "It is the only trial with a score."
    if found.reason is BestReason.CONFIRMED and found.confirmation is not None:
        if len(found.confirmation.settings) == 1:
            return "It is the only setting that was run again on fresh seeds."
        return f"It did best of the {len(found.confirmation.settings)} settings that were run again on fresh seeds."
    if found.reason is BestReason.MODEL:
        more = "as much" if top.score == best.score else "more" if sweep.sign > 0 else "less"
        return (
            f"It measured {score_text(best)}. The top trial, {top.number}, measured {more} ({score_text(top)}), but "
            f"the model (fitted to all trials) expects a worse score if it is trained again{_hedge(found)}."
        )
    compared = "settings with a whole run" if sweep.repeats else "trials that completed"
    measured = f"It measured {score_text(best)}, the top score of the {found.scored:,} {compared}"
    if found.was_lucky:
        side = "above" if sweep.sign > 0 else "below"
        return (
            f"{measured}, but that was probably a lucky run: {found.luck:.1f} standard deviations of the noise {side} "
            "what the model (fitted to all trials) expects."
        )
    agrees = ", and the model agrees" if found.reason is BestReason.TOP else ""
    doubt = "; a few trials say little, so confirm it" if found.evidence is Evidence.ALMOST_NONE else ""
    return f"{measured}{agrees}{doubt}."


def other_length_sentence(other: OtherLength, sweep: SweepState) -> str:
    """What the model expects of a configuration with a length that was not tried."""
    low, middle, high = (short_text(float(f"{score:.4g}")) for score in (other.low, other.score, other.high))
    length = f"{other.changed}={short_text(other.value)}"
    return (
        f"Not tried, but probably better: trial {other.number} with {length}, for which the model expects "
        f"{sweep.metric} {middle} ({low} to {high}) for about {one_cost_text(other.cost, sweep.definition)}."
    )


def _hedge(found: Conclusions) -> str:
    if found.evidence is Evidence.ENOUGH:
        return ""
    return f"; after only {count_text(found.scored, 'scored trial')} that is a guess, so compare both on fresh seeds"


def saved_text(sweep: SweepState) -> str:
    """What early stopping saved, and how many trials are repeats; "" if there are none."""
    said: list[str] = []
    if sweep.stopped:
        said.append(
            f"{count_text(sweep.stopped, 'trial was', 'trials were')} stopped early, so "
            f"{count_text(sweep.counted, 'trial')} took {sweep.whole_runs:.1f} whole runs"
        )
    if sweep.repeats:
        first = len(set(sweep.repeats.values()))
        said.append(f"{count_text(sweep.repeats, 'trial')} repeated {count_text(first, 'setting')} on other seeds")
    return "; ".join(said)


def _savings(found: Conclusions) -> Finding:
    """Which trials were stopped and why, and which were repeated."""
    sweep = found.state
    latest = sweep.stopped[-MOST_NAMED:]
    table = [("trial", "share of a run", "why it was stopped")] if latest else []
    table += [(str(trial.number), f"{trial.share or 0:.0%}", trial.stopped or "") for trial in reversed(latest)]
    again: dict[int, list[str]] = {}
    for number, first in sweep.repeats.items():
        again.setdefault(first, []).append(str(number))
    details = [f"Trial {first} was repeated as {list_text(again[first])}." for first in sorted(again)]
    details += [f"The latest {len(latest)} are:"] if len(latest) < len(sweep.stopped) else []
    return Finding("What was stopped early or repeated?", f"{saved_text(sweep)}.", details[:MOST_NAMED], table)


def _nothing_yet(found: Conclusions) -> Finding:
    sweep, question = found.state, "What was found?"
    if not sweep.trials:
        return Finding(question, "Nothing yet: no trial has been started.")
    counts = ", ".join(f"{count} {state}" for state, count in sweep.counts.items() if count)
    counts += f", {len(sweep.dropped)} dropped" if sweep.dropped else ""
    details = [f"Trials so far: {counts or 'none'}."]
    details += [f"{len(each.trials)} failed with: {each.reason}" for each in found.failures[:MOST_REASONS]]
    return Finding(question, "Nothing yet: no trial has a score.", details)


def _best(found: Conclusions, best: Trial) -> Finding:
    sweep, worth, cost = found.state, found.worth(best), cost_text(best, found.state.definition)
    if worth is None or found.evidence is Evidence.ALMOST_NONE:
        answer = f"Trial {best.number}: {sweep.metric} {score_text(best)} for {cost}"
    else:
        answer = f"Trial {best.number}: {sweep.metric} about {worth:.3g}, for {cost}"
    details = [best_reason(sweep)]
    cheaper = found.cheaper_contender
    if cheaper is not None and cheaper.cost is not None and best.cost:
        details.append(f"Trial {cheaper.number} may be as good and costs {cheaper.cost / best.cost:.0%} as much.")
    details.append(_terms(sweep))
    parameters = flatten(sweep.definition.protein.parameters)
    rows = [
        (path, short_text(value), range_text(parameters[path]) if path in parameters else "")
        for path, value in best.params.items()
    ]
    shown = metta_sweep_command(sweep.store_url, "trial", sweep.record.name, str(best.number))
    commands = [("print all that was measured in this trial, and the command that trains it again", shown)]
    return Finding(
        "What is the best setting?", answer, details, [("parameter", "value", "searched in"), *rows], commands
    )


def _terms(sweep: SweepState) -> str:
    """The meaning of the score and the cost."""
    metric, better = sweep.metric, "higher" if sweep.sign > 0 else "lower"
    cost = cost_name(sweep.definition)
    simulations = [name for name in sweep.definition.simulations if name.startswith(f"{metric}/")]
    if not simulations:
        return f"The score is {metric}; {better} is better. The cost is {cost}."
    notes = {_score_note(sweep.definition, name) for name in simulations}
    note = f" {notes.pop()}" if len(notes) == 1 and "" not in notes else ""
    of = f"the mean of {list_text(simulations)}" if len(simulations) > 1 else f"that of {simulations[0]}"
    return f"The score, {metric}, is {of}{note}; {better} is better. The cost is {cost}."


def _score_note(definition: SweepDefinition, simulation: str) -> str:
    """What the Tool declares about the score of a simulation; "" if it lacks a field that this needs."""
    note = definition.traits.score_note
    for name, value in definition.simulations[simulation].items():
        note = note.replace(f"{{{name}}}", str(value))
    return "" if "{" in note else note


def _certainty(found: Conclusions, best: Trial) -> Finding:
    question, result, quality = "How sure is that?", found.confirmation, _model_quality(found)
    expected, interval = found.expected(best), found.interval
    if found.certainty is Certainty.CONFIRMED and result is not None:
        compared = sentences(result) if result.differences else []
        said = [*compared[:1], *map(setting_sentence, result.settings), *compared[1:]]
        return Finding(question, said[0], [*said[1:], *quality])
    if found.certainty is Certainty.TOO_FEW:
        return Finding(question, f"Not sure at all: only {count_text(found.scored, 'trial')} completed")
    if expected is None or interval is None:
        return Finding(question, NOT_ASKED)
    noise = f"The noise of one run, from its seed and evaluation, has a standard deviation of {expected.noise_std:.2g}."
    return Finding(
        question,
        f"Run again, it should average {interval[0]:.3g} to {interval[1]:.3g} (95% sure)",
        [*_contenders(found.contenders), *standing_sentences(found, best), noise, _repeats(found), *quality],
    )


def standing_sentences(found: Conclusions, trial: Trial) -> list[str]:
    """What fresh seeds of a trial's setting showed, or else what the model believes of it; none where unknown."""
    settings_again = found.confirmation.settings if found.confirmation else []
    if confirmed := [setting_sentence(each) for each in settings_again if each.trial == trial.number]:
        return confirmed
    belief = found.belief(trial)
    if belief is None:
        return []
    analysis = found.state.analysis
    settings = f"the {count_text(analysis.beliefs, 'setting')}" if analysis else "all settings"
    return [
        f"The probability that it is the best of {settings} is {belief.probability:.0%}.",
        f"A single run on another seed should score {belief.low:.3g} to {belief.high:.3g} (95% sure).",
    ]


def _contenders(contenders: Sequence[Trial]) -> list[str]:
    if not contenders:
        return []
    numbers = ", ".join(str(trial.number) for trial in contenders[:MOST_NAMED])
    numbers += f" and {len(contenders) - MOST_NAMED:,} more" if len(contenders) > MOST_NAMED else ""
    named = f"trial {numbers}" if len(contenders) == 1 else f"trials {numbers}; the most promising first"
    return [
        f"{count_text(contenders, 'other setting')} may be as good: the model expects them within the noise of one run "
        f"of the best ({named})."
    ]


def _repeats(found: Conclusions) -> str:
    """The scores of the best setting and of those nearest to it."""
    repeats, near = ([score_text(trial) for trial in trials] for trials in (found.repeats, found.neighbours))
    said = (
        "This setting was run once"
        if len(repeats) < 2
        else f"This setting was run {len(repeats)} times and scored {', '.join(repeats)}"
    )
    return f"{said}; the {len(near)} settings nearest to it scored {', '.join(near)}." if near else f"{said}."


def _model_quality(found: Conclusions) -> list[str]:
    """A sentence about the model; none without an analysis."""
    model = found.model_quality
    if model is None:
        return []
    if model.quality is Quality.UNKNOWN:
        predicted = count_text(model.forecasts, "trial")
        return [f"The model predicted {predicted} before they ran: too few to say how good it is."]
    missed = model.missed_by
    wider = (
        ""
        if missed is None
        else f" It was off by {missed:.1f} times what it predicted, so its 95% ranges here are that much wider."
    )
    cost = "" if model.cost_error is None else f" Costs were off by {model.cost_error:.0%} (median)."
    predicted = f"The model predicted {count_text(model.forecasts, 'trial')} before they ran."
    allowed = f"the noise of one run allows {model.attainable:.2f} at most"
    if model.quality is Quality.HIDDEN:
        order = f"Noise hides how good its order of them was: {allowed} as a correlation of predicted and measured."
    else:
        order = (
            f"Its order of them was {QUALITIES[model.quality]}: a rank correlation of {model.rank_correlation:.2f}, "
            f"where 0 is chance and {allowed}."
        )
    return [f"{predicted} {order}{wider}{cost}"]


def _importance(found: Conclusions) -> Finding:
    question, sweep, parts = "Which parameters matter?", found.state, found.importances
    if found.evidence is Evidence.ALMOST_NONE:
        return Finding(question, f"Too early to say: only {count_text(found.scored, 'trial')} completed")
    if parts is None or sweep.analysis is None:
        return Finding(question, NOT_ASKED)
    names = sweep.parameter_names
    first, *others = [names[path] for path in parts.in_order] or [""]
    answer = (
        f"{first} most" + (f"; then {list_text(others)}" if others else "") if first else "None that the model can see"
    )
    details = []
    if parts.nearby:
        details.append(f"{_named(sweep, parts.nearby)} {_matter(parts.nearby)} near the best setting only.")
    if parts.hardly:
        details.append(f"{_named(sweep, parts.hardly)} hardly {_matter(parts.hardly)} within the range searched.")
    details += _cost_driver(found)
    details.append(
        "Share: how much of the score's variation over the whole search space involves the parameter. Some of it "
        "involves several, so shares may add up to over 100%. As good: within the noise of one run, if nothing else "
        "changes."
    )
    if parts.is_first_guess:
        details.append(f"After {count_text(parts.learnt_from, 'trial')} this is a first guess.")
    rows = [
        (names[path], f"{sweep.analysis.importance[path].score:.0%}", _good_values(found, path))
        for path in parts.in_order
    ]
    return Finding(question, answer, details, [("parameter", "share", "as good"), *rows] if rows else [])


def _named(sweep: SweepState, paths: Sequence[str]) -> str:
    return list_text([sweep.parameter_names[path] for path in paths])


def _matter(paths: Sequence[str]) -> str:
    return "matters" if len(paths) == 1 else "matter"


def _cost_driver(found: Conclusions) -> list[str]:
    """A sentence about the parameter with the largest effect on the cost; none if no parameter has one."""
    driver, definition = found.cost_driver, found.state.definition
    if driver is None:
        return []
    least, most = one_cost_text(driver.least, definition), one_cost_text(driver.most, definition)
    depends = f"The cost depends most on {found.state.parameter_names[driver.path]}:"
    if driver.direction is None:
        return [f"{depends} from {least} to {most}."]
    if driver.direction == 0:
        return [f"{depends} from {least} to {most} over its range."]
    if driver.direction > 0:
        return [f"{depends} larger costs more, from {least} to {most}."]
    return [f"{depends} larger costs less, from {most} to {least}."]


def _good_values(found: Conclusions, path: str) -> str:
    good = found.importances.good_values.get(path) if found.importances else None
    if good is None:
        return "nearly all"
    if good.choices:
        return " or ".join(choice_text(choice) for choice in good.choices)
    return " to ".join(dict.fromkeys([short_text(good.low), short_text(good.high)]))


def _next(found: Conclusions) -> Finding:
    sweep, details = found.state, list(found.state.remarks)
    commands = [pair for pair in next_commands(sweep).items() if pair[0] != SEE_ALL]  # the page shows every trial
    advised = commands[:1]
    if found.next_step in (NextStep.WIDEN, NextStep.WIDEN_THEN_CONFIRM, NextStep.CONFIRM):
        advised = [each for each in (widen_command(found), confirm_command(found)) if each is not None] or advised
    if edges := [_wider_range(found, path) for path in found.wider_ranges]:
        details.append(f"Best at an end of its range, where the score still improves: {list_text(edges)}.")
    if found.failures and found.best is not None:
        failed, most = sum(len(each.trials) for each in found.failures), found.failures[0]
        of = f"{failed:,} of {count_text(sweep.counted, 'trial')} failed"
        details.append(f"{of}; most often, such as trial {most.trials[-1].number}: {most.reason}")
    others = [each for each in commands if each not in advised]
    return Finding("What should be run next?", _step(found), details, commands=advised, others=others)


def _step(found: Conclusions) -> str:
    total = count_text(found.state.definition.num_trials, "trial has", "trials have")
    return {
        NextStep.FIX: "Fix the cause of the failures, then continue",
        NextStep.START: "Start the sweep",
        NextStep.CONTINUE_UNTIL_SCORED: "Continue until trials have scores",
        NextStep.CONTINUE: f"Continue: {found.state.counted:,} of {total} ended",
        NextStep.WIDEN: "Widen the search",
        NextStep.WIDEN_THEN_CONFIRM: "Widen the search, then confirm the best on fresh seeds",
        NextStep.CONFIRM: "Confirm the best on fresh seeds, before trusting or extending it",
        NextStep.EXTEND: f"Use {'what fresh seeds have confirmed' if found.confirmation else 'the best'}, "
        "or extend the sweep",
    }[found.next_step]


def _wider_range(found: Conclusions, path: str) -> str:
    """``learning_rate (0.01; try up to 0.04)``."""
    each, name = found.wider_ranges[path], found.state.parameter_names[path]
    return f"{name} ({each.now:.12g}; try {'down' if each.end == 'min' else 'up'} to {each.wider:.12g})"
