"""Sweep a Python function: `optimize`."""

from __future__ import annotations

import importlib
import inspect
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from metta.common.config import unflatten
from metta.common.entry_point import EntryPoint
from metta.common.errors import UserError, nearest
from metta.common.plain import copied, plain, plain_float, plain_number, shown
from metta.sweep.abstract_sweep import AbstractSweep, assemble
from metta.sweep.definition import SweepDefinition
from metta.sweep.ending import may_be_extended
from metta.sweep.executor.inline import InlineExecutor
from metta.sweep.executor.protocol import Executor
from metta.sweep.foreign_ranges import refuse_foreign
from metta.sweep.mishaps import MISHAP
from metta.sweep.observations import own_values
from metta.sweep.protein_config import ProteinSettings
from metta.sweep.result import SweepResult
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

Metrics = Mapping[str, float]


@dataclass
class RunningTrial:
    """The second argument of the swept function: its trial.

    Attributes:
        number: of the trial in its sweep, from 0.
        attempt: number of the attempt, from 1; an earlier attempt was lost because its process ended.
        seed: seed for random numbers; it differs between trials, and is the same for all attempts of a trial.
        run_dir: a folder for this trial only, such as for a model or a checkpoint; the same for all its attempts.
        artefacts: URIs of files that the function made, by name; recorded with the trial.
        stopped: whether `report` has returned False.
    """

    number: int
    attempt: int
    seed: int
    run_dir: Path
    artefacts: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    _stopped_at: int | None = field(default=None, repr=False)
    _ignored: bool = field(default=False, repr=False)
    _report: Report = field(default=lambda progress: True, repr=False)
    _last: dict[str, float] = field(default_factory=dict, repr=False)
    _started: float = field(default_factory=time.perf_counter, repr=False)

    def report(self, step: int, metrics: Metrics, total: int | None = None) -> bool:
        """Report progress: a point of the trial's learning curve.

        Args:
            step: number of epochs, updates or any other unit, from 1.
            metrics: current values, by name.
            total: the last step of a whole run. Without it, no trial is stopped early before the first one has ended.

        Returns:
            Whether to continue. If not, the function should soon return its metrics.
        """
        if not isinstance(metrics, Mapping):
            raise NotANumberError(f"report(step, {{name: value}}) takes metrics by name, not {shown(metrics)}")
        self._last = numbers(metrics)
        at, end = int(_metric("step", step)), None if total is None else int(_metric("total", total))
        if self._stopped_at is not None and at > self._stopped_at:
            self._ignored = True
        if not self._report(Progress(at, end, self.seconds, self._last)) and self._stopped_at is None:
            self._stopped_at, self.stopped = at, True
        return not self.stopped

    def __getattr__(self, name: str) -> Any:
        if name == "should_prune":
            raise NoSuchNameError(f"{name} is Optuna's. Here report says it: if not trial.report(step, metrics): break")
        if name.startswith("suggest_"):
            example = '"lr": {"min": 1e-5, "max": 0.1, "distribution": "log_normal"}'
            raise NoSuchNameError(
                f"{name} is Optuna's. Here `parameters` declares each range, such as {example}, "
                'and the function reads config["lr"]'
            )
        if name.startswith("__"):  # Python itself asks, as copy does
            raise AttributeError(name)
        raise NoSuchNameError(f"{type(self).__name__} has no {name!r}; {nearest(name, _PUBLIC)}")

    def restart_clock(self) -> None:
        """Start counting seconds here, so that setup such as loading data is not part of the trial's cost."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the function was called, or since `restart_clock`."""
        return time.perf_counter() - self._started


_PUBLIC = [name for name in dir(RunningTrial) if not name.startswith("_")]

Function = Callable[[dict[str, Any], RunningTrial], Metrics | float | None]
"""Takes hyperparameters, nested as in `parameters`, and the trial; returns its metrics by name, or one number, the
score. If it returns None, the last reported metrics are the result."""


def function_path(function: Function) -> str | None:
    """The path by which another process can import a function, ``module:name``; None if it cannot."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__":
        return None
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else None


def load_function(path: str) -> Function:
    """Import the function at ``module:name``.

    Raises:
        UserError: it does not exist.
    """
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise UserError(f"{path!r} is not MODULE:FUNCTION, such as experiments.sweep_digits:train")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: {error}") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise UserError(f"{module} has no {name!r}; {nearest(name, _functions(found))}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{path} is not a function")
    return found  # type: ignore[no-any-return]


def _functions(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]


def _loaded(value: Any) -> Any:
    return load_function(value) if isinstance(value, str) else value


def _written(function: Function) -> str:
    return function_path(function) or str(getattr(function, "__qualname__", repr(function)))


_TOOL = f"{__name__}.FunctionSweep"

FunctionField = Annotated[Function, BeforeValidator(_loaded), PlainSerializer(_written)]


class FunctionSweep(AbstractSweep):
    """Searches the hyperparameters of a Python function, see `optimize`.

    Attributes:
        function: called for each trial, see `Function`; as text, ``module:name``.
    """

    function: FunctionField

    def definition(self) -> SweepDefinition:
        _require_two_arguments(self.function)
        tool_class, tool = f"{__name__}:{FunctionTrial.__name__}", {"function": _written(self.function)}
        return self.define(tool_class, tool, own_values=own_values(self.sweep.protein, _defaults(self.function)))

    def prepare(self, definition: SweepDefinition, attempt: Attempt, seed: int, run_dir: Path) -> TrialSpec:
        tool = {
            **definition.tool,
            "metric": definition.protein.metric,
            "params": unflatten(attempt.params),
            "seed": seed,
        }
        return TrialSpec(attempt.number, attempt.attempt, definition.tool_class, tool, [], str(run_dir))

    def rebuilt_by(self) -> EntryPoint | None:
        path = function_path(self.function)
        if self._entry_point is not None or path is None:
            return self._entry_point
        return self.entry_point_from_fields()

    def open_executor(self) -> Executor:
        executor = super().open_executor()
        if isinstance(executor, InlineExecutor):
            return InlineExecutor(lambda tool_class: self._run_here)
        if function_path(self.function) is None:
            executor.close()
            raise UserError(_why_not_importable(self.function))
        return executor

    def _run_here(self, spec: TrialSpec, report: Report) -> TrialResult:
        return call(self.function, spec, report)

    def next_commands(self, state: SweepState) -> dict[str, str]:
        if self._entry_point is not None and self._entry_point.path != _TOOL:
            return super().next_commands(state)
        if not may_be_extended(state):
            return {}
        larger: dict[str, float] = {"num_trials": 2 * state.definition.num_trials}
        larger |= {name: 2 * limit for name, limit in state.spent_budgets.items()}
        more = ", ".join([f"name={self.sweep_name!r}", *(f"{name}={limit:g}" for name, limit in larger.items())])
        return {"extend the sweep, in Python": f"optimize({_short_name(self.function)}, ..., {more})"}


def _short_name(function: Function) -> str:
    """The name of a function; an object that is called, such as a `functools.partial`, may have none."""
    return str(getattr(function, "__name__", "function"))


class NoSuchNameError(AttributeError):
    """The function uses something that its trial does not have, which does not depend on the hyperparameters."""


class NotANumberError(TypeError):
    """The function returned or reported what is no number, which does not depend on the hyperparameters."""


class FunctionTrial:
    """Runs a trial of a function that was imported by its path."""

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt; see `metta.sweep.trial.RunTrial`."""
        return call(load_function(spec.tool["function"]), spec, report)


def call(function: Function, spec: TrialSpec, report: Report) -> TrialResult:
    """Call a swept function for one attempt, and return the result.

    Raises:
        NotANumberError: it returned something other than metrics.
        TypeError: a metric is too large.
    """
    run_dir = Path(spec.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    trial = RunningTrial(spec.number, spec.attempt, spec.tool["seed"], run_dir, _report=report)
    try:
        returned = function(copied(spec.tool["params"]), trial)
    except Exception:
        if trial.stopped and not trial._ignored:  # how Optuna's users end a trial that is stopped
            return TrialResult(trial._last, trial.seconds, stopped=True)
        raise
    metric = spec.tool["metric"]
    if returned is None and trial._last:
        metrics = trial._last
    elif returned is None:
        raise NotANumberError("the function returned None; return a number, or nan where the training has failed")
    else:
        metrics = numbers(returned if isinstance(returned, Mapping) else {metric: returned})
    stopped = trial.stopped and not trial._ignored  # a function that ignored the stop has completed
    missing = None if metric in metrics or stopped else f"{MISHAP}it returned no {metric!r}; {nearest(metric, metrics)}"
    artefacts = {str(name): str(uri) for name, uri in dict(trial.artefacts or {}).items()}
    return TrialResult(metrics, trial.seconds, artefacts, error=missing, stopped=stopped)


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as plain numbers, from any library.

    A boolean counts as 1 or 0.

    Raises:
        NotANumberError: one is not a number.
        TypeError: one is too large.
    """
    return {str(name): _metric(name, value) for name, value in metrics.items()}


def _metric(name: str, value: Any) -> float:
    try:
        truth = plain(value) if hasattr(value, "tolist") or isinstance(value, bool) else None
        number = float(truth) if isinstance(truth, bool) else plain_number(value)
    except TypeError as error:
        raise NotANumberError(f"the metric {name!r}: {error}") from None
    try:
        return plain_float(number)
    except TypeError as error:
        raise TypeError(f"the metric {name!r}: {error}") from None


def optimize(
    function: Function | str,
    parameters: Mapping[str, Any],
    metric: str,
    num_trials: int | None = None,
    *,
    goal: Literal["maximize", "minimize"] | None = None,
    name: str | None = None,
    settings: ProteinSettings | Mapping[str, Any] | None = None,
    **fields: Any,
) -> SweepResult:
    """Search the hyperparameters of a function, and keep every trial.

    Args:
        function: called with hyperparameters, nested as `parameters` are, and a `RunningTrial`; returns metrics by
            name, or one number, which is then the score. If its first argument has a mapping as default value, trial 0
            has those hyperparameters. With workers it is imported there by its module and name,
            so it may also be given as text: ``my_package.training:train``.
        parameters: the hyperparameters to search: a `ParameterConfig`, or its fields as a dict, by (dotted or nested)
            name.
        metric: the name of the score among the metrics.
        num_trials: how many trials should end; a grid (``method="grid"``) needs no number.
        goal: whether a larger or a smaller score is better; by default a larger one.
        name: the sweep's name in the store. A call with the same name resumes the sweep; without a name, each call
            is a new sweep.
        settings: how Protein searches.
        fields: of `SweepConfig` (`max_cost`, ...), of `ProteinConfig` (`constraints`, `method`) and of `AbstractSweep`
            (`num_workers`, `store`, `seed`, `cost_metric`, `wandb`, `on_change`, ...).

    Raises:
        UserError: the sweep cannot run with these settings; nothing has run.
        TooManyFailuresError: five trials failed in a row.

    Example:
        >>> from metta.sweep import optimize
        >>> def train(config, trial):
        ...     return {"accuracy": 1 - (config["x"] - 0.3) ** 2}
        >>> result = optimize(
        ...     train,
        ...     parameters={"x": {"min": 0, "max": 1, "distribution": "uniform"}},
        ...     metric="accuracy",
        ...     num_trials=20,
        ... )  # doctest: +SKIP
        >>> result.best_params, result.best_score  # doctest: +SKIP
        ({'x': 0.3}, 1.0)
    """
    given = fields if goal is None else {**fields, "goal": goal}
    return function_sweep(
        function, parameters, metric, num_trials, name, settings=settings or ProteinSettings(), **given
    ).run()


def function_sweep(
    function: Function | str,
    parameters: Mapping[str, Any],
    metric: str,
    num_trials: int | None = None,
    name: str | None = None,
    **fields: Any,
) -> FunctionSweep:
    """The sweep that `optimize` runs, as a Tool, for an experiment that `tools/run.py` starts."""
    loaded: Function = _loaded(function)
    refuse_foreign(parameters, "parameters")
    given = {"metric": metric, "parameters": parameters, "num_trials": num_trials, "function": loaded}
    return assemble(FunctionSweep, {**given, **fields, "sweep_name": name or _new_name(loaded)}, "optimize")


def _new_name(function: Function) -> str:
    base = re.sub(r"\W+", "", getattr(function, "__name__", "")) or "sweep"
    return f"{base}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _require_two_arguments(function: Function) -> None:
    try:
        inspect.signature(function).bind({}, None)
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise UserError(
            f"{name}{inspect.signature(function)} must accept two arguments, {name}(config, trial): {error}"
        ) from None
    except ValueError:  # a function in C without a signature
        return


def _defaults(function: Function) -> dict[str, Any]:
    """The hyperparameters that a function has by default: the default of its first argument, if that is a mapping."""
    try:
        first = next(iter(inspect.signature(function).parameters.values()), None)
    except ValueError:  # a function in C without a signature
        return {}
    if first is None or not isinstance(first.default, Mapping):
        return {}
    try:
        return dict(plain(first.default))
    except TypeError as error:
        name = getattr(function, "__name__", repr(function))
        raise UserError(f"{name}: the default of {first.name!r} is not data: {error}") from None


def _why_not_importable(function: Function) -> str:
    name = getattr(function, "__qualname__", repr(function))
    if getattr(function, "__module__", None) == "__main__":
        why = f"{name} is defined in the notebook or script itself"
    elif "<lambda>" in name:
        why = "a lambda has no name"
    elif "<locals>" in name:
        why = f"{name} is defined within another function"
    else:
        why = f"its module has another object under the name {name}"
    return (
        f"with workers the function is imported by its module and name, but {why}; "
        "put it at the top level of a module (a .py file) and import it, or omit num_workers and executor"
    )
