"""What a sweep found, in plain words: the best setting, how sure that is, what matters, and what to run next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from metta.common.config import flatten
from metta.sweep.confirmation import Setting, Verdict, judge
from metta.sweep.report.analysis import Analysis
from metta.sweep.report.axes import choice_text
from metta.sweep.report.snapshot import Snapshot, near_the_front
from metta.sweep.report.standing import ranked
from metta.sweep.report.summary import metta_sweep_command, next_commands, range_text, short_text
from metta.sweep.report.verdict import sentences
from metta.sweep.report.words import cost_text
from metta.sweep.trial import Trial, TrialState

GOOD, FAIR = 0.7, 0.4
"""Rank correlations of forecasts and measurements from which on a model is called good, or fair."""

HARDLY = 0.05
"""A parameter with a smaller share of the score's variation hardly matters."""

FEW = 5
"""Fewer completed trials than this say next to nothing."""

NOT_ASKED = "The model has not been asked yet."
MODEL = "the model (Gaussian processes, fitted to all trials)"
CONFIRMED_TRIALS, CONFIRMED_SEEDS = 3, 5

LONGEST_REASON = 300
_NUMBER = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One question and its answer.

    Attributes:
        question: in a few words.
        answer: in one line.
        details: sentences.
        settings: rows of hyperparameter, value and where it was searched.
        commands: what to run, with the reason for each.
    """

    question: str
    answer: str
    details: list[str] = field(default_factory=list)
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)


def findings(sweep: Snapshot) -> list[Finding]:
    """The four questions that one asks of a sweep, answered."""
    order, verdict = ranked(sweep.trials, sweep.goal), _verdict(sweep)
    winner = _winner(sweep, order, verdict)
    if winner is None:
        return [_nothing_yet(sweep), _next(sweep, None, None)]
    return [
        _best(sweep, winner, order, verdict),
        _sureness(sweep, winner, order, verdict),
        _importance(sweep, order),
        _next(sweep, winner, verdict),
    ]


def failure_reasons(sweep: Snapshot) -> list[tuple[str, list[Trial]]]:
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


def _verdict(sweep: Snapshot) -> Verdict | None:
    """What fresh seeds say of the best settings, where they have been run."""
    numbers = {trial.suggestion.get("trial") for trial in sweep.confirmations}
    chosen = [trial for trial in sweep.trials if trial.number in numbers]
    verdict = judge(sweep.definition, chosen, sweep.confirmations)
    return verdict if any(setting.scores for setting in verdict.settings) else None


def _winner(sweep: Snapshot, order: Sequence[Trial], verdict: Verdict | None) -> Trial | None:
    """The trial that did best on fresh seeds; or that the model recommends; or before it was asked the best one."""
    chosen = sweep.analysis.recommended if sweep.analysis else None
    if verdict is not None and verdict.settings[0].mean is not None:
        chosen = verdict.settings[0].trial
    return next((trial for trial in order if trial.number == chosen), order[0] if order else None)


def _nothing_yet(sweep: Snapshot) -> Finding:
    states = Counter(trial.state for trial in sweep.trials)
    if not sweep.trials:
        return Finding("What was found?", "Nothing yet: no trial has been started.")
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    details = [f"Trials so far: {told}."]
    details += [f"{len(trials)} failed with: {reason}" for reason, trials in failure_reasons(sweep)[:3]]
    return Finding("What was found?", "Nothing yet: no trial has a score.", details)


def _best(sweep: Snapshot, winner: Trial, order: Sequence[Trial], verdict: Verdict | None) -> Finding:
    better = "more" if sweep.goal == "maximize" else "less"
    details = [
        f"The score is {sweep.metric}, of which {better} is better; the cost is in {sweep.definition.cost_metric}.",
        _why_best(sweep, winner, order, verdict),
    ]
    centre = next((trial for trial in order if trial.suggestion.get("source") == "search centre"), None)
    if centre is not None and centre.number != winner.number:
        details.append(_against_centre(winner, centre, sweep.goal))
    cheaper = _cheaper(sweep, winner)
    if cheaper is not None and cheaper.cost is not None and winner.cost:
        details.append(
            f"Trial {cheaper.number} costs {cheaper.cost / winner.cost:.0%} as much and scored {_score(cheaper)}: the "
            "two cannot be told apart within the noise of one run."
        )
    parameters = flatten(sweep.definition.protein.parameters)
    settings = [
        (path, short_text(winner.params[path]), range_text(parameters[path]) if path in parameters else "")
        for path in winner.params
    ]
    answer = f"Trial {winner.number}: {sweep.metric} {_score(winner)} for {cost_text(winner, sweep.definition)}"
    shown = metta_sweep_command(sweep.store_url, "trial", sweep.record.name, str(winner.number))
    return Finding(
        "What is the best setting?",
        answer,
        details,
        settings,
        [("see it in full, with the command that repeats it", shown)],
    )


def _why_best(sweep: Snapshot, winner: Trial, order: Sequence[Trial], verdict: Verdict | None) -> str:
    best = order[0]
    if len(order) == 1:
        return "It is the only trial that completed."
    if verdict is not None and len(verdict.settings) > 1:
        return f"It did best of the {len(verdict.settings)} settings that were run again on fresh seeds."
    if winner is best:
        agreed = f", and {MODEL} recommends it too" if sweep.analysis else ""
        return f"It has the best score of the {len(order):,} trials that completed{agreed}."
    measured = "more" if sweep.goal == "maximize" else "less"
    return (
        f"Trial {best.number} measured {measured} ({_score(best)}), but {MODEL} takes some of that for luck, and "
        f"trusts the setting of trial {winner.number} most."
    )


def _against_centre(winner: Trial, centre: Trial, goal: str) -> str:
    gain = (winner.score or 0.0) - (centre.score or 0.0)
    better = gain > 0 if goal == "maximize" else gain < 0
    return (
        f"The middle of the search space, trial {centre.number}, scored {_score(centre)}: this is {abs(gain):.3g} "
        f"{'better' if better else 'worse'}."
    )


def _cheaper(sweep: Snapshot, winner: Trial) -> Trial | None:
    """The cheapest trial that costs under 80% of the winner's and whose score is within the noise of its score."""
    if sweep.analysis is None or winner.number not in sweep.analysis.expected or winner.cost is None:
        return None
    close = _indistinguishable(sweep, sweep.analysis, winner)
    cheap = [trial for trial in close if trial.cost is not None and trial.cost < 0.8 * winner.cost]
    return min(cheap, key=lambda trial: trial.cost or 0.0, default=None)


def _indistinguishable(sweep: Snapshot, analysis: Analysis, winner: Trial) -> list[Trial]:
    """Other settings that the model expects within the noise of one measurement of the winner, or better."""
    sign = 1.0 if sweep.goal == "maximize" else -1.0
    level = sign * analysis.expected[winner.number].score - analysis.expected[winner.number].noise_std
    return [
        trial
        for trial in ranked(sweep.trials, sweep.goal)
        if trial.number in analysis.expected
        and trial.params != winner.params
        and sign * analysis.expected[trial.number].score >= level
    ]


def _sureness(sweep: Snapshot, winner: Trial, order: Sequence[Trial], verdict: Verdict | None) -> Finding:
    question, analysis = "How sure is that?", sweep.analysis
    if verdict is not None:
        compared = sentences(verdict) if verdict.differences else []
        told = [*compared[:1], *map(_on_fresh_seeds, verdict.settings), *compared[1:]]
        return Finding(question, told[0], told[1:] + ([_model_quality(analysis)] if analysis else []))
    if len(order) < FEW:
        return Finding(question, f"Not sure at all: only {_count(order, 'trial')} completed")
    if analysis is None or winner.number not in analysis.expected:
        return Finding(question, NOT_ASKED)
    expected = analysis.expected[winner.number]
    low, high = (expected.score + side * 1.96 * expected.score_std for side in (-1, 1))
    details = []
    rivals = _indistinguishable(sweep, analysis, winner)
    if rivals:
        named = ", ".join(str(trial.number) for trial in rivals[:5]) + (" and more" if len(rivals) > 5 else "")
        may = "others may be" if len(rivals) > 1 else "other may be"
        details.append(
            f"Whether it is the best is less sure: {len(rivals):,} {may} as good within the noise of one run (trials "
            f"{named})."
        )
    details.append(
        f"One run alone differs from the average by about ±{expected.noise_std:.2g} (one standard deviation), by the "
        "luck of its seed and of its evaluation."
    )
    return Finding(
        question,
        f"Run again, it should average {expected.score:.3g}: 95% sure of {low:.3g} to {high:.3g}",
        [*details, *_repeats(analysis, winner, order), _model_quality(analysis)],
    )


def _repeats(analysis: Analysis, winner: Trial, order: Sequence[Trial]) -> list[str]:
    """What the winner's setting, and those nearest to it, scored."""
    by_number = {trial.number: trial for trial in order}
    twins = [_score(by_number[number]) for number in analysis.twins if number in by_number]
    near = [_score(by_number[number]) for number in analysis.neighbours if number in by_number]
    told = (
        "In the sweep this setting was run once"
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
    correlation, within = forecasts.rank_correlation, forecasts.within_one_deviation
    if correlation is None or within is None:
        return (
            f"The model predicted {_count(forecasts.numbers, 'trial')} before they ran: too few to say whether it is "
            "any good."
        )
    word = "good" if correlation >= GOOD else "fair" if correlation >= FAIR else "poor"
    advice = "; trust what was measured more than what it says" if word == "poor" else ""
    cost = "" if forecasts.cost_error is None else f"; it was off on cost by {forecasts.cost_error:.0%} (median)"
    return (
        f"The model's forecasts have been {word}{advice}: it predicted {len(forecasts.numbers):,} trials before they "
        f"ran with a rank correlation of {correlation:.2f} (1 is perfect), and {within:.0%} were within one standard "
        f"deviation (68% would be right){cost}."
    )


def _importance(sweep: Snapshot, order: Sequence[Trial]) -> Finding:
    question, analysis = "Which parameters matter?", sweep.analysis
    if len(order) < FEW:
        return Finding(question, f"Too early to say: only {_count(order, 'trial')} completed")
    if analysis is None:
        return Finding(question, NOT_ASKED)
    names = sweep.parameter_names
    paths = sorted(analysis.importance, key=lambda path: -analysis.importance[path].score)
    strong = [path for path in paths if analysis.importance[path].score >= HARDLY]
    weak = [names[path] for path in paths if path not in strong]
    answer = (
        ", ".join(f"{names[path]} ({analysis.importance[path].score:.0%})" for path in strong[:3])
        or "None that the model can see"
    )
    details = ["Each number is the share of the score's variation that the parameter takes part in."] if strong else []
    if good := [told for path in strong[:3] if (told := _good_values(sweep, analysis, path))]:
        details.append(f"As good within the noise of one run, if all else stays: {'; '.join(good)}.")
    dearest = max(analysis.importance, key=lambda path: analysis.importance[path].cost)
    share = analysis.importance[dearest].cost
    if share >= HARDLY:
        details.append(f"The cost depends most on {names[dearest]} ({share:.0%}).")
    if weak:
        details.append(f"Hardly matter within their ranges: {', '.join(weak)}.")
    if edges := [
        f"{names[path]} ({'lowest' if end == 'min' else 'highest'})"
        for path, end in analysis.at_the_edge.items()
        if path in strong
    ]:
        details.append(f"Best at an end of its range, so a wider one may hold something better: {', '.join(edges)}.")
    if analysis.known < 3 * len(paths):
        details.append(f"After {analysis.known} trials this is a first guess.")
    return Finding(question, answer, details)


def _good_values(sweep: Snapshot, analysis: Analysis, path: str) -> str:
    """The parameter's values round the recommended one that the model expects to be as good; "" where all are."""
    cut, sign = analysis.slices[path], 1.0 if sweep.goal == "maximize" else -1.0
    recommended = next(trial for trial in sweep.trials if trial.number == analysis.recommended).params.get(path)
    expected = analysis.expected[analysis.recommended]
    good = [sign * (each.score - expected.score) >= -expected.noise_std for each in cut.predictions]
    name = sweep.parameter_names[path]
    if all(good) or recommended is None:
        return ""
    if sweep.searched[path].choices is not None:
        return f"{name} {' or '.join(choice_text(cut.values[i]) for i in range(len(good)) if good[i])}"
    first = last = min(range(len(good)), key=lambda i: abs(cut.values[i] - recommended))
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(good) - 1 and good[last + 1]:
        last += 1
    return f"{name} from {short_text(cut.values[first])} to {short_text(cut.values[last])}"


def _next(sweep: Snapshot, winner: Trial | None, verdict: Verdict | None) -> Finding:
    recommended = winner.number if winner else None
    commands = next_commands(sweep.record, sweep.store_url, sweep.definition, sweep.trials, recommended)
    chosen = [(reason, command) for reason, command in commands.items()]
    ended = len(sweep.ended)
    if ended and len(sweep.with_state(TrialState.FAILED)) == ended:
        answer = "Mend what makes the trials fail, and then go on"
    elif not sweep.trials:
        answer = "Start the sweep"
    elif winner is None:
        answer = "Go on until trials have scores"
    elif ended < sweep.definition.num_trials:
        answer = f"Go on: {ended:,} of {sweep.definition.num_trials:,} trials have ended"
    else:
        confirmed = verdict is not None
        answer = (
            "Use what fresh seeds have confirmed, or extend the sweep"
            if confirmed
            else "Confirm the best on fresh seeds, before you trust or extend it"
        )
        if sweep.record.entry_point is not None and not confirmed:
            chosen.insert(0, _confirm(sweep))
    details = []
    reasons = failure_reasons(sweep)
    if reasons and winner is not None:
        failed = sum(len(trials) for _, trials in reasons)
        details.append(
            f"{failed:,} of {ended:,} trials failed; most often, such as trial {reasons[0][1][-1].number}: "
            f"{reasons[0][0]}"
        )
    if winner is not None and near_the_front(sweep):
        details.append("Several trials are within noise of the Pareto front; only repeats can tell them apart.")
    return Finding("What should be run next?", answer, details, commands=chosen)


def _confirm(sweep: Snapshot) -> tuple[str, str]:
    options = ["--top", str(CONFIRMED_TRIALS), "--seeds", str(CONFIRMED_SEEDS)]
    return (
        f"retrain the best {CONFIRMED_TRIALS} on {CONFIRMED_SEEDS} fresh seeds and compare them",
        metta_sweep_command(sweep.store_url, "confirm", sweep.record.name, *options),
    )


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _score(trial: Trial) -> str:
    return "none" if trial.score is None else f"{trial.score:.4g}"
