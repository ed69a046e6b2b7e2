"""Commands to run next."""

from __future__ import annotations

from collections.abc import Sequence

from metta.common.counts import count_text
from metta.common.data_dir import store_in_command
from metta.common.entry_point import EntryPoint, metta_sweep_command
from metta.sweep.analysis.conclusions import CONFIRMED_SEEDS, Conclusions
from metta.sweep.definition import SweepDefinition, built_from_fields, readable_entry_point
from metta.sweep.ending import may_be_extended, on_target
from metta.sweep.report.format import about_text
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import SweepRecord
from metta.sweep.trial import Trial, TrialState

SEE_ALL = "see every trial"


def next_commands(state: SweepState) -> dict[str, str]:
    """What to run next, by purpose: resume or extend the sweep, retrain its best trial, show its trials."""
    record, store_url, num_trials = state.record, state.store_url, state.definition.num_trials
    commands, best = {}, state.conclusions.best
    entry_point, resume = runner_entry_point(record), resume_command(record, store_url)
    goes_on = not state.complete and not state.budget_is_spent and on_target(state) is None
    if goes_on and resume is not None:
        commands["resume the sweep"] = resume
    elif not goes_on and entry_point is not None and may_be_extended(state):
        total = 2 * num_trials
        more = with_larger_budget(with_num_trials(with_store(entry_point, store_url), total), state)
        commands[f"extend the sweep to {count_text(total, 'trial')} in total"] = more.command()
    if best is not None:
        retrain = retrain_command(record.name, store_url, state.definition, best.number, seed=1)
        commands |= {f"retrain trial {best.number} on another seed": retrain} if retrain else {}
    return commands | retry_commands(state) | {SEE_ALL: metta_sweep_command(store_url, "show", record.name)}


def resume_command(record: SweepRecord, store_url: str) -> str | None:
    """The command that resumes a sweep; None if only the Python code that started it can."""
    if readable_entry_point(record) is None:
        return None
    entry_point = runner_entry_point(record)
    if entry_point is None:
        return metta_sweep_command(store_url, "work", record.name)
    return with_store(entry_point, store_url).command()


def confirm_words(state: SweepState, *words: str) -> str | None:
    """The command that runs trials on fresh seeds; None if only the Python code that started the sweep can run any."""
    if readable_entry_point(state.record) is None:
        return None
    return metta_sweep_command(state.store_url, "confirm", state.name, *words)


def retry_commands(state: SweepState) -> dict[str, str]:
    """The command that queues the failed trials again, by its purpose; nothing where none failed."""
    if not state.with_state(TrialState.FAILED):
        return {}
    return {"queue the failed trials again": metta_sweep_command(state.store_url, "retry", state.name, "--failed")}


def widen_command(conclusions: Conclusions) -> tuple[str, str] | None:
    """The reason and the command that continues the sweep with wider ranges.

    None if no range should be wider, or if `tools/run.py` cannot start the sweep again.
    """
    state, wider = conclusions.state, conclusions.wider_ranges
    entry_point = runner_entry_point(state.record)
    if not wider or entry_point is None:
        return None
    more, total = state.definition.num_trials, 2 * state.definition.num_trials
    ranges = {f"sweep.protein.parameters.{path}.{each.end}": f"{each.wider:.12g}" for path, each in wider.items()}
    overrides = {**entry_point.overrides, **ranges, "on_change": "extend"}
    changed = with_store(entry_point.model_copy(update={"overrides": overrides}), state.store_url)
    them = "the range" if len(wider) == 1 else "these ranges"
    price = _price_text(conclusions, more, state.trials)
    reason = f"widen {them} and run {count_text(more, 'more trial')} ({total:,} in total){price}"
    return reason, with_num_trials(changed, total).command()


def confirm_command(conclusions: Conclusions) -> tuple[str, str] | None:
    """The reason and the command that runs the best settings on fresh seeds.

    None if there is nothing to confirm, or only the Python code that started the sweep can run a trial.
    """
    state, chosen, contenders = conclusions.state, conclusions.to_confirm, conclusions.contenders
    words = ["--trials", *(str(trial.number) for trial in chosen), "--seeds", str(CONFIRMED_SEEDS)]
    command = confirm_words(state, *words)
    if not chosen or command is None:
        return None
    if not contenders:
        which = f"trial {chosen[0].number}"
    elif len(chosen) <= len(contenders):
        which = f"the {len(chosen)} most promising of the {len(contenders) + 1:,} settings that may be best"
    else:
        which = f"the {len(chosen)} settings that may be best"
    runs = CONFIRMED_SEEDS * len(chosen)
    compared = " each, and compare" if contenders else ""
    price = f"{count_text(runs, 'run')}{_price_text(conclusions, runs, chosen)}"
    return f"run {which} on {CONFIRMED_SEEDS} fresh seeds{compared}: {price}", command


def _price_text(conclusions: Conclusions, runs: int, similar: Sequence[Trial]) -> str:
    """``, about 3 min of training``; "" where no cost is known."""
    price, definition = conclusions.price(runs, similar), conclusions.state.definition
    of = " of training" if definition.cost_metric == "seconds" else ""
    return "" if price is None else f", about {about_text(price, definition)}{of}"


def runner_entry_point(record: SweepRecord) -> EntryPoint | None:
    """The entry point with which `tools/run.py` starts the sweep again; None for a sweep of a function or a program."""
    entry_point = readable_entry_point(record)
    return None if entry_point is None or built_from_fields(entry_point) else entry_point


def retrain_command(
    name: str, store_url: str, definition: SweepDefinition, number: int, seed: int | None = None
) -> str | None:
    """The command that trains again with a trial's hyperparameters, with the trial's seed or another.

    None for a sweep of a function or a program, whose trials only the sweep itself can run.
    """
    if definition.traits.retrain is None:
        return None
    args = {"sweep_name": name, "trial": str(number)} | ({} if seed is None else {"seed": str(seed)})
    args |= {"store": store} if (store := store_in_command(store_url)) else {}
    return EntryPoint(path=definition.traits.retrain, args=args).command()


def with_store(entry_point: EntryPoint, store_url: str) -> EntryPoint:
    """The entry point with the store for a command, unless that is the default. They are stored without it."""
    store = store_in_command(store_url)
    if store is None:
        return entry_point
    return entry_point.model_copy(update={"overrides": {**entry_point.overrides, "store": store}})


def with_larger_budget(entry_point: EntryPoint, state: SweepState) -> EntryPoint:
    """The entry point with twice each exhausted budget that it sets itself."""
    paths = {f"sweep.{name}": limit for name, limit in state.spent_budgets.items()}
    larger = {path: f"{2 * limit:g}" for path, limit in paths.items() if path in entry_point.overrides}
    return entry_point.model_copy(update={"overrides": {**entry_point.overrides, **larger}})


def with_num_trials(entry_point: EntryPoint, num_trials: int) -> EntryPoint:
    """The entry point with another total number of trials."""
    if "num_trials" in entry_point.args:
        return entry_point.model_copy(update={"args": {**entry_point.args, "num_trials": str(num_trials)}})
    overrides = {**entry_point.overrides, "sweep.num_trials": str(num_trials)}
    return entry_point.model_copy(update={"overrides": overrides})
