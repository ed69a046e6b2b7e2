"""What a sweep found, in plain words: the best setting, how sure that is, what matters, and what to run next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from metta.common.config import flatten
from metta.sweep.confirmation import Setting, Verdict
from metta.sweep.report.advice import confirm, range_words, widen, wider_ranges
from metta.sweep.report.analysis import Analysis
from metta.sweep.report.axes import choice_text
from metta.sweep.report.summary import SEE_ALL, metta_sweep_command, next_commands, range_text, short_text
from metta.sweep.report.verdict import sentences
from metta.sweep.report.words import cost_name, cost_text, one_cost_text
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

GOOD, FAIR = 0.7, 0.4
"""Rank correlations of forecasts and measurements from which on a model is called good, or fair."""

HARDLY = 0.05
"""A parameter with a smaller share of the score's variation hardly matters."""

LUCKY = 1.5
"""A score so many standard deviations of one run above what is expected is called luck."""

NEARLY_ALL = 0.9
"""A parameter of which more of the range is as good hardly matters near the best setting."""

FEW = 5
"""Fewer completed trials than this say next to nothing."""

MOST_NAMED = 12
"""So many trials are named one by one."""

MANY = 20
"""With fewer scored trials than this the model's choice of the best is a guess."""

NOT_ASKED = "The model has not been asked yet."

LONGEST_REASON = 300
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", re.IGNORECASE)


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
    """The sweep's outcome in one sentence; "" where it is too early for one."""
    best, centre, analysis = sweep.best, _centre(sweep), sweep.analysis
    if best is None or analysis is None or len(analysis.expected) < FEW:
        return ""
    said = f"Trial {best.number} is the best trial found"
    if (worth := _worth(sweep, best)) is not None:
        start = None if centre is None or centre is best else _worth(sweep, centre)
        beside = "" if start is None else f" (the middle of the search space: {start:.3g})"
        said += f", worth about {worth:.3g}{beside}"
    doubts = []
    if rivals := [] if sweep.verdict else sweep.contenders:
        doubts.append(f"{_count(rivals, 'other')} may be as good")
    if wider := wider_ranges(sweep):
        names = [sweep.parameter_names[path] for path in wider]
        doubts.append(f"the range{'' if len(names) == 1 else 's'} of {_listed(names)} may be too narrow")
    return f"{said}, but {', and '.join(doubts)}." if doubts else f"{said}."


def findings(sweep: SweepState) -> list[Finding]:
    """The four questions that one asks of a sweep, answered."""
    order, verdict, best = sweep.ranked, sweep.verdict, sweep.best
    if best is None:
        return [_nothing_yet(sweep), _next(sweep, None, None)]
    return [
        _best(sweep, best, order, verdict),
        _sureness(sweep, best, order, verdict),
        _importance(sweep, order),
        _next(sweep, best, verdict),
    ]


def failure_reasons(sweep: SweepState) -> list[tuple[str, list[Trial]]]:
    """Trials that failed, by what went wrong, the most frequent first: the latest one's reason, and the trials.

    Reasons that differ in their numbers only are one.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in sweep.with_state(TrialState.FAILED):
        groups.setdefault(_NUMBER.sub("#", last_line(trial.error)), []).append(trial)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [(last_line(trials[-1].error), trials) for trials in ordered]


def last_line(error: str | None) -> str:
    """The line of a traceback that says what went wrong."""
    lines = (error or "").strip().splitlines()
    return lines[-1][:LONGEST_REASON] if lines else "no reason was recorded"


def _nothing_yet(sweep: SweepState) -> Finding:
    if not sweep.trials:
        return Finding("What was found?", "Nothing yet: no trial has been started.")
    told = ", ".join(f"{count} {state}" for state, count in sweep.counts.items() if count)
    told += f", {len(sweep.dropped)} dropped" if sweep.dropped else ""
    details = [f"Trials so far: {told or 'none that counts'}."]
    details += [f"{len(trials)} failed with: {reason}" for reason, trials in failure_reasons(sweep)[:3]]
    return Finding("What was found?", "Nothing yet: no trial has a score.", details)


def _best(sweep: SweepState, best: Trial, order: Sequence[Trial], verdict: Verdict | None) -> Finding:
    worth, cost = _worth(sweep, best), cost_text(best, sweep.definition)
    if worth is None or len(order) < FEW:
        answer = f"Trial {best.number}: {sweep.metric} {_score(best)} for {cost}"
    else:
        answer = f"Trial {best.number}: {sweep.metric} about {worth:.3g}, for {cost}"
    details = [_why_best(sweep, best, order, verdict)]
    cheaper = _cheaper(sweep, best)
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


def _worth(sweep: SweepState, trial: Trial) -> float | None:
    """What the trial's setting should score if it is run again."""
    verdict = sweep.verdict
    means = {} if verdict is None else {setting.trial: setting.mean for setting in verdict.settings}
    if means.get(trial.number) is not None:
        return means[trial.number]
    expected = sweep.analysis.expected.get(trial.number) if sweep.analysis else None
    return None if expected is None else expected.score


def _why_best(sweep: SweepState, best: Trial, order: Sequence[Trial], verdict: Verdict | None) -> str:
    if len(order) == 1:
        return "It is the only trial that completed."
    if verdict is not None and len(verdict.settings) > 1:
        return f"It did best of the {len(verdict.settings)} settings that were run again on fresh seeds."
    top = order[0]
    if best is not top:
        more = "more" if sweep.sign > 0 else "less"
        return (
            f"It measured {_score(best)}. The top trial, {top.number}, measured {more} ({_score(top)}), but the model "
            f"(fitted to all trials) expects less of it{_hedge(order)}."
        )
    measured = f"It measured {_score(best)}, the best score of the {len(order):,} trials that completed"
    deviations = _luck(sweep, best)
    if deviations < LUCKY:
        return f"{measured}."
    side = "above" if sweep.sign > 0 else "below"
    return (
        f"{measured}, but that was probably a lucky run: {deviations:.1f} standard deviations of the noise {side} what "
        "the model (fitted to all trials) expects."
    )


def _hedge(order: Sequence[Trial]) -> str:
    return "" if len(order) >= MANY else f"; after {_count(order, 'scored trial')} that is a guess"


def _luck(sweep: SweepState, trial: Trial) -> float:
    """How much better the trial measured than the model expects, in standard deviations of one run."""
    expected = sweep.analysis.expected.get(trial.number) if sweep.analysis else None
    if expected is None or trial.score is None or expected.noise_std <= 0:
        return 0.0
    return sweep.sign * (trial.score - expected.score) / expected.noise_std


def _centre(sweep: SweepState) -> Trial | None:
    scored = sweep.ranked
    return next((trial for trial in scored if trial.suggestion.get("source") == "search centre"), None)


def _cheaper(sweep: SweepState, best: Trial) -> Trial | None:
    """The cheapest trial that costs under 80% of the best one's and may be as good."""
    cheap = [
        trial
        for trial in sweep.contenders
        if trial.cost is not None and best.cost is not None and trial.cost < 0.8 * best.cost
    ]
    return min(cheap, key=lambda trial: trial.cost or 0.0, default=None)


def _terms(sweep: SweepState) -> str:
    """What the score and the cost are."""
    metric, more = sweep.metric, "higher" if sweep.sign > 0 else "lower"
    cost = cost_name(sweep.definition)
    simulations = [name for name in sweep.definition.simulations if name.startswith(f"{metric}/")]
    if not simulations:
        return f"The score is {metric}; {more} is better. The cost is {cost}."
    stats = {str(sweep.definition.simulations[name].get("score", "")) for name in simulations}
    counted = f" in {stats.pop()} per agent" if len(stats) == 1 and "" not in stats else ""
    of = f"the mean of {_listed(simulations)}" if len(simulations) > 1 else f"that of {simulations[0]}"
    return f"The score, {metric}, is {of}{counted}; {more} is better. The cost is {cost}."


def _sureness(sweep: SweepState, best: Trial, order: Sequence[Trial], verdict: Verdict | None) -> Finding:
    question, analysis = "How sure is that?", sweep.analysis
    if verdict is not None:
        compared = sentences(verdict) if verdict.differences else []
        told = [*compared[:1], *map(_on_fresh_seeds, verdict.settings), *compared[1:]]
        return Finding(question, told[0], told[1:] + ([_model_quality(analysis)] if analysis else []))
    if len(order) < FEW:
        return Finding(question, f"Not sure at all: only {_count(order, 'trial')} completed")
    if analysis is None or best.number not in analysis.expected:
        return Finding(question, NOT_ASKED)
    expected = analysis.expected[best.number]
    low, high = analysis.interval(expected)
    details = []
    if rivals := sweep.contenders:
        named = ", ".join(str(trial.number) for trial in rivals[:MOST_NAMED])
        named += f" and {len(rivals) - MOST_NAMED:,} more" if len(rivals) > MOST_NAMED else ""
        other = "other setting" if len(rivals) == 1 else "other settings"
        details.append(
            f"{len(rivals):,} {other} may be as good: the model expects them within the noise of one run of the best "
            f"({f'trial {named}' if len(rivals) == 1 else f'trials {named}; the most promising first'})."
        )
    details.append(
        f"The noise of one run, by the luck of its seed and evaluation, has a standard deviation of "
        f"{expected.noise_std:.2g}."
    )
    return Finding(
        question,
        f"Run again, it should average {low:.3g} to {high:.3g} (95% sure)",
        [*details, *_repeats(analysis, order), _model_quality(analysis)],
    )


def _repeats(analysis: Analysis, order: Sequence[Trial]) -> list[str]:
    """What the best setting, and those nearest to it, scored."""
    by_number = {trial.number: trial for trial in order}
    twins = [_score(by_number[number]) for number in analysis.twins if number in by_number]
    near = [_score(by_number[number]) for number in analysis.neighbours if number in by_number]
    told = (
        "This setting was run once"
        if len(twins) < 2
        else f"This setting was run {len(twins)} times and scored {', '.join(twins)}"
    )
    return [f"{told}; the {len(near)} settings nearest to it scored {', '.join(near)}." if near else f"{told}."]


def _on_fresh_seeds(setting: Setting) -> str:
    if setting.mean is None:
        return f"Trial {setting.trial} failed on all fresh seeds."
    seeds = len(setting.scores)
    sure = "" if setting.low is None else f" (95% sure of {setting.low:.3g} to {setting.high:.3g})"
    failed = f"; it failed on {setting.failures}" if setting.failures else ""
    return f"Trial {setting.trial} on {seeds} fresh seeds: {setting.mean:.4g} on average{sure}{failed}."


def _model_quality(analysis: Analysis) -> str:
    forecasts = analysis.forecasts
    correlation, misses = forecasts.rank_correlation, forecasts.misses
    if correlation is None or misses is None:
        return (
            f"The model predicted {_count(forecasts.numbers, 'trial')} before they ran: too few to say whether it is "
            "any good."
        )
    word = "good" if correlation >= GOOD else "fair" if correlation >= FAIR else "poor"
    wider = f" It missed by {misses:.1f} times what it thought, so its 95% ranges here are made that much wider."
    cost = "" if forecasts.cost_error is None else f" Costs were off by {forecasts.cost_error:.0%} (median)."
    return (
        f"The model predicted {len(forecasts.numbers):,} trials before they ran. Its order of them was {word}: a rank "
        f"correlation of {correlation:.2f} (1 is perfect, 0 is chance).{wider if misses >= 1.05 else ''}{cost}"
    )


def _importance(sweep: SweepState, order: Sequence[Trial]) -> Finding:
    question, analysis = "Which parameters matter?", sweep.analysis
    if len(order) < FEW:
        return Finding(question, f"Too early to say: only {_count(order, 'trial')} completed")
    if analysis is None:
        return Finding(question, NOT_ASKED)
    names = sweep.parameter_names
    paths = sorted(analysis.importance, key=lambda path: -analysis.importance[path].score)
    everywhere = [path for path in paths if analysis.importance[path].score >= HARDLY]
    nearby = [path for path in paths if path not in everywhere and _good_values(sweep, analysis, path)]
    hardly = [path for path in paths if path not in everywhere and path not in nearby]
    first, others = everywhere[:1] or nearby[:1], [*everywhere, *nearby][1:]
    answer = "None that the model can see"
    if first:
        answer = f"{names[first[0]]} most" + (f"; then {_listed([names[path] for path in others])}" if others else "")
    details = []
    if nearby:
        told = "matters" if len(nearby) == 1 else "matter"
        details.append(f"{_listed([names[path] for path in nearby])} {told} near the best setting only.")
    if hardly:
        told = "matters" if len(hardly) == 1 else "matter"
        details.append(f"{_listed([names[path] for path in hardly])} hardly {told} within the range searched.")
    if cost := _cost_driver(sweep, analysis):
        details.append(cost)
    details.append(
        "Share: how much of the score's ups and downs over the whole search space involve the parameter. Some involve "
        "several, so shares may add up to over 100%. As good: within the noise of one run, if nothing else changes."
    )
    if analysis.known < 3 * len(paths):
        details.append(f"After {analysis.known} trials this is a first guess.")
    rows = [
        (names[path], f"{analysis.importance[path].score:.0%}", _good_values(sweep, analysis, path) or "nearly all")
        for path in [*everywhere, *nearby]
    ]
    return Finding(question, answer, details, [("parameter", "share", "as good"), *rows] if rows else [])


def _cost_driver(sweep: SweepState, analysis: Analysis) -> str:
    """Which parameter moves the cost most, which way and by how much; "" where none does."""
    path = max(analysis.importance, key=lambda each: analysis.importance[each].cost)
    cut, name = analysis.slices[path], sweep.parameter_names[path]
    costs = [prediction.cost for prediction in cut.predictions if prediction.cost is not None]
    if analysis.importance[path].cost < HARDLY or len(costs) < 2:
        return ""
    least, most = (one_cost_text(cost, sweep.definition) for cost in (min(costs), max(costs)))
    if sweep.searched[path].choices is not None:
        return f"The cost depends most on {name}: from {least} to {most}."
    rises = costs[-1] - costs[0]
    if abs(rises) < 0.8 * (max(costs) - min(costs)):
        return f"The cost depends most on {name}: from {least} to {most} over its range."
    first, last = (most, least) if rises < 0 else (least, most)
    return f"The cost depends most on {name}: larger costs {'less' if rises < 0 else 'more'}, from {first} to {last}."


def _good_values(sweep: SweepState, analysis: Analysis, path: str) -> str:
    """The values round the recommended one that the model expects to be as good; "" where nearly all are."""
    cut, sign = analysis.slices[path], sweep.sign
    recommended = sweep.by_number[analysis.recommended].params.get(path)
    expected = analysis.expected[analysis.recommended]
    good = [sign * (each.score - expected.score) >= -expected.noise_std for each in cut.predictions]
    if sum(good) > NEARLY_ALL * len(good) or recommended is None:
        return ""
    if sweep.searched[path].choices is not None:
        return " or ".join(choice_text(cut.values[i]) for i in range(len(good)) if good[i])
    first = last = min(range(len(good)), key=lambda i: abs(cut.values[i] - recommended))
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(good) - 1 and good[last + 1]:
        last += 1
    ends = [short_text(cut.values[first]), short_text(cut.values[last])]
    return " to ".join(dict.fromkeys(ends))


def _next(sweep: SweepState, best: Trial | None, verdict: Verdict | None) -> Finding:
    known = next_commands(sweep)
    commands = [(reason, command) for reason, command in known.items() if reason != SEE_ALL]  # the page shows them
    advised, ended, details = commands[:1], sweep.counted, list(sweep.remarks)
    if ended and len(sweep.with_state(TrialState.FAILED)) == ended:
        answer = "Mend what makes the trials fail, and then go on"
    elif not sweep.trials:
        answer = "Start the sweep"
    elif best is None:
        answer = "Go on until trials have scores"
    elif ended < sweep.definition.num_trials:
        answer = f"Go on: {ended:,} of {sweep.definition.num_trials:,} trials have ended"
    else:
        wider, repeated = widen(sweep), None if verdict is not None else confirm(sweep, best, sweep.contenders)
        advised = [each for each in (wider, repeated) if each is not None] or advised
        if wider_ranges(sweep):
            answer = "Widen the search" + (", then confirm the best on fresh seeds" if repeated else "")
        elif repeated:
            answer = "Confirm the best on fresh seeds, before you trust or extend it"
        else:
            answer = f"{'Use what fresh seeds have confirmed' if verdict else 'Use the best'}, or extend the sweep"
    if edges := [range_words(sweep, path, end, value) for path, (end, value) in wider_ranges(sweep).items()]:
        details.append(f"Best at an end of its range, and still getting better there: {_listed(edges)}.")
    reasons = failure_reasons(sweep)
    if reasons and best is not None:
        failed = sum(len(trials) for _, trials in reasons)
        details.append(
            f"{failed:,} of {ended:,} trials failed; most often, such as trial {reasons[0][1][-1].number}: "
            f"{reasons[0][0]}"
        )
    others = [each for each in commands if each not in advised]
    return Finding("What should be run next?", answer, details, commands=advised, others=others)


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _score(trial: Trial) -> str:
    return "none" if trial.score is None else f"{trial.score:.4g}"


def _listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
