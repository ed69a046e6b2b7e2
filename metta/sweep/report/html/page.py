"""The parts of a page, which the report and the dashboard share: JSON data for its script, and sentences as HTML."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from metta.common.distribution import install_command
from metta.common.entry_point import metta_sweep_command
from metta.common.errors import UserError
from metta.common.plain import strict
from metta.sweep.analysis.failures import last_line
from metta.sweep.report import plots
from metta.sweep.report.commands import retrain_command, retry_commands
from metta.sweep.report.findings import Finding, findings, in_short
from metta.sweep.report.format import cost_text, duration_text, one_cost_text, state_text, value_text
from metta.sweep.report.plots.axes import numbers
from metta.sweep.report.plots.theme import DARK, LIGHT
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial, TrialState

TEMPLATES = {"light": {"layout": LIGHT["layout"]}, "dark": {"layout": DARK["layout"]}}
WIDE_PLOTS = ("score_against_cost", "parallel_coordinates")
MOST_REASONS = 50
LONGEST_ERROR = 20_000
"""Characters of an error that are shown: the last ones, because the reason is at the end."""


def asset(name: str) -> str:
    """The text of a file that belongs to the page."""
    return files("metta.sweep.report.html").joinpath("assets", name).read_text()


@cache
def plotly_js() -> bytes:
    """plotly.js, compressed with gzip, as plotly's Python package ships it.

    Raises:
        UserError: plotly is not installed.
    """
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"plots need plotly: {install_command('dashboard')}")
    path = Path(found.submodule_search_locations[0], "package_data", "plotly.min.js")
    return gzip.compress(path.read_bytes(), compresslevel=6, mtime=0)


def body(title: str, beside_title: str, facts: str, answers: str, footer: str) -> str:
    """The page's body, without its scripts. All arguments but `title` are HTML."""
    return f"""
<header><div class="inner">
<h1>{escape(title)}</h1>{beside_title}
<div class="facts" id="facts">{facts}</div>
<div class="bar" id="bar"><div></div></div>
</div></header>
<main id="overview">
<section class="findings" id="findings">{answers}</section>
<section class="card running" id="running" hidden></section>
<section class="plots"><h2>How the sweep went</h2>
<div class="figures" id="figures"></div></section>
<section class="plots"><h2>Each parameter against the score</h2>
<p class="facts">{escape(plots.PARAMETER_CAPTION)}</p>
<div class="figures small" id="parameters"></div></section>
<h2>Trials</h2>
<section class="card" id="trials"></section>
<h2>Failures</h2>
<section class="card" id="failures"></section>
<footer>{footer}</footer>
</main>
<main id="trial" tabindex="-1" hidden></main>
"""


def answers_html(sweep: SweepState) -> str:
    """The sweep's outcome in a sentence, and the four findings, as HTML; everything is escaped."""
    short = in_short(sweep)
    outcome = f'<p class="short">{escape(short)}</p>' if short else ""
    return outcome + "".join(_finding_html(finding) for finding in findings(sweep))


def _finding_html(finding: Finding) -> str:
    parts = [
        f'<h2 class="question">{escape(finding.question)}</h2>',
        f'<p class="answer">{escape(finding.answer)}</p>',
    ]
    if finding.details:
        parts.append("<ul>" + "".join(f"<li>{escape(detail)}</li>" for detail in finding.details) + "</ul>")
    if finding.table:
        head, body = _row_html("th", finding.table[0]), "".join(_row_html("td", row) for row in finding.table[1:])
        parts.append(f'<table class="settings"><thead>{head}</thead><tbody>{body}</tbody></table>')
    parts += [_command_html(reason, command) for reason, command in finding.commands]
    if finding.others:
        others = "".join(_command_html(reason, command) for reason, command in finding.others)
        parts.append(f'<div class="others"><p>Or instead</p>{others}</div>')
    return f'<section class="card finding">{"".join(parts)}</section>'


def _row_html(cell: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in texts)}</tr>"


def _command_html(reason: str, command: str) -> str:
    return (
        f'<div class="command"><p>{escape(reason)}</p><div><pre>{escape(command)}</pre>'
        '<button class="copy" type="button">copy</button></div></div>'
    )


def facts_html(sweep: SweepState) -> str:
    """The sweep in one line."""
    unit = "s" if sweep.definition.cost_metric == "seconds" else sweep.definition.cost_metric
    budget = "" if sweep.definition.max_cost is None else f" of {sweep.definition.max_cost:,.0f}"
    pairs = [
        (f"{sweep.counted:,} of {sweep.definition.num_trials:,}", "trials ended"),
        *((f"{count:,}", str(state)) for state, count in sweep.counts.items() if count),
        *([(f"{len(sweep.dropped):,}", "dropped")] if sweep.dropped else []),
        (f"{sweep.spent:,.0f}{budget} {unit}", f"{'of training ' if unit == 's' else ''}spent"),
        *_elapsed(sweep),
        (sweep.metric, f"{sweep.goal}d"),
    ]
    return "".join(f"<span><b>{escape(value)}</b> {escape(name)}</span>" for value, name in pairs)


def _elapsed(sweep: SweepState) -> list[tuple[str, str]]:
    """The time from the first start to the last end of a trial, and when that was."""
    starts = [trial.started_at for trial in sweep.trials if trial.started_at is not None]
    ends = [trial.ended_at for trial in sweep.trials if trial.ended_at is not None]
    if not starts or not ends:
        return []
    first, last = min(starts), max(ends)
    until = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
    return [(duration_text((last - first).total_seconds()), f"elapsed, {first:%Y-%m-%d %H:%M} to {until} UTC")]


def progress(sweep: SweepState) -> float:
    """The share of the sweep's trials that ended, 0..1."""
    return min(1.0, len(sweep.ended) / sweep.definition.num_trials)


def plot_list(sweep: SweepState) -> list[dict[str, Any]]:
    """Name, title, caption and position of every plot."""
    names = sweep.parameter_names
    listed = []
    for name, plot in plots.all_plots(sweep).items():
        own = name.startswith(plots.PARAMETER)
        title = names[name.removeprefix(plots.PARAMETER)] if own else plot.title
        caption = "" if own else plot.caption
        listed.append({"name": name, "title": title, "caption": caption, "parameter": own, "wide": name in WIDE_PLOTS})
    return listed


def columns(sweep: SweepState) -> list[dict[str, Any]]:
    """The columns of the table of trials, in the order of `row`."""
    metric = {"label": sweep.metric, "title": "score", "text": False}
    cost = {"label": f"cost ({sweep.definition.cost_metric})", "title": "cost", "text": False}
    text = [{"label": name, "title": name, "text": name != "trial"} for name in ("trial", "state", "ranking")]
    names = sweep.parameter_names.items()
    return [*text, metric, cost, *({"label": label, "title": path, "text": False} for path, label in names)]


def row(trial: Trial, paths: Sequence[str]) -> list[Any]:
    """A trial's row of the table. The page's script fills in its ranking."""
    params = [_cell(trial.params[path]) if path in trial.params else "" for path in paths]
    return [trial.number, state_text(trial), "", *numbers([trial.score, trial.cost]), *params]


def _cell(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value_text(value)
    return numbers([value])[0]


def ranking(sweep: SweepState) -> dict[str, Any]:
    """The numbers of the best trial, of the top one, and of those on the Pareto front."""
    best, top = (None if trial is None else trial.number for trial in (sweep.conclusions.best, sweep.conclusions.top))
    return {"best": best, "top": top, "front": sorted(sweep.on_front)}


def failures(sweep: SweepState) -> list[dict[str, Any]]:
    """Why trials failed: the most frequent reasons, with their trials and the latest error in full."""
    return [
        {
            "reason": each.reason,
            "numbers": [trial.number for trial in reversed(each.trials)],
            "error": (each.trials[-1].error or each.reason)[-LONGEST_ERROR:],
        }
        for each in sweep.conclusions.failures[:MOST_REASONS]
    ]


def retry(sweep: SweepState) -> list[tuple[str, str]]:
    """The purpose and the command that queues all failed trials again; nothing where none failed."""
    return [(f"{what[0].upper()}{what[1:]}", command) for what, command in retry_commands(sweep).items()]


def details(sweep: SweepState) -> list[dict[str, Any]]:
    """The details of all trials; with all metrics only for trials whose learning curves were read."""
    ranks, commands = ranking(sweep), _commands(sweep)
    return [detail(sweep, trial, ranks, commands, trial.number in sweep.curves) for trial in sweep.trials]


def detail(
    sweep: SweepState,
    trial: Trial,
    ranks: dict[str, Any],
    commands: list[tuple[str, str]] | None = None,
    with_metrics: bool = True,
) -> dict[str, Any]:
    """Everything that the page of a trial shows.

    Args:
        sweep, trial: what to show.
        ranks: the sweep's `ranking`.
        commands: the sweep's `_commands`.
        with_metrics: whether to include all its metrics.
    """
    has_curve = bool(sweep.curves.get(trial.number))
    commands = [*(commands or _commands(sweep)), *(_retry_commands(sweep) if trial.state is TrialState.FAILED else [])]
    return {
        "number": trial.number,
        "facts": _facts(sweep, trial, ranks),
        "params": [[path, value_text(value)] for path, value in trial.params.items()],
        "error": (trial.error or "")[-LONGEST_ERROR:],
        "metrics": sorted([name, strict(value)] for name, value in trial.metrics.items()) if with_metrics else [],
        "commands": [[what, command.replace(_NUMBER, str(trial.number))] for what, command in commands],
        "curve": plots.trial_curve(trial.number).build(sweep) if has_curve else None,
    }


def _facts(sweep: SweepState, trial: Trial, ranks: dict[str, Any]) -> list[list[str]]:
    facts = [["state", state_text(trial)]]
    facts += [["dropped because", trial.dropped]] if trial.dropped else []
    facts += [["not learnt from", sweep.problems[trial.number]]] if trial.number in sweep.problems else []
    facts += [["stopped early", trial.stopped]] if trial.stopped else []
    facts += [["repeats", f"trial {sweep.repeats[trial.number]}"]] if trial.number in sweep.repeats else []
    if trial.score is not None:
        error = trial.metrics.get(f"{sweep.metric}.stderr")
        about = "" if error is None else f" (standard error of its evaluation: {error:.2g})"
        facts.append([sweep.metric, f"{trial.score:.6g}{about}"])
    if trial.cost is not None:
        facts.append(["cost", cost_text(trial, sweep.definition)])
    if trial.number == ranks["best"]:
        facts.append(["ranking", "the best trial: the recommended one"])
    if trial.number == ranks["top"]:
        facts.append(["ranking", "the top score measured"])
    elif trial.number in ranks["front"]:
        facts.append(["ranking", "on the Pareto front"])
    said = trial.suggestion
    if "source" in said:
        facts.append(["source", str(said["source"])])
    if "score" in said and "score_std" in said:
        cost = f", for {one_cost_text(said['cost'], sweep.definition)}" if said.get("cost") else ""
        facts.append(["predicted before it ran", f"{said['score']:.4g}{cost}"])
    expected, interval = sweep.conclusions.expected(trial), sweep.conclusions.interval_of(trial)
    if expected is not None and interval is not None:
        sure = f"(95% sure of {interval[0]:.4g} to {interval[1]:.4g})"
        facts.append(["run again, it should average", f"{expected.score:.4g} {sure}"])
    if trial.attempts > 1:
        facts.append(["attempts", str(trial.attempts)])
    for name, moment in (("started", trial.started_at), ("ended", trial.ended_at)):
        if moment is not None:
            facts.append([name, f"{moment:%Y-%m-%d %H:%M:%S} UTC"])
    if trial.error:
        facts.append(["error", last_line(trial.error)])
    return [*facts, *([name, uri] for name, uri in trial.artefacts.items())]


_NUMBER = "918273645"
"""A placeholder for the trial's number in commands that are made once for all trials."""


def _commands(sweep: SweepState) -> list[tuple[str, str]]:
    """Pairs of purpose and command for a trial whose number is `_NUMBER`."""
    name, url = sweep.record.name, sweep.store_url
    again = retrain_command(name, url, sweep.definition, int(_NUMBER))
    shown = "Show it in the terminal", metta_sweep_command(url, "trial", name, _NUMBER)
    return [("Train again with these hyperparameters", again), shown] if again else [shown]


def _retry_commands(sweep: SweepState) -> list[tuple[str, str]]:
    """The same for a trial that failed: how to queue it, or all that failed, again."""
    one = metta_sweep_command(sweep.store_url, "retry", sweep.record.name, _NUMBER)
    return [("Queue it again", one), *retry(sweep)]
