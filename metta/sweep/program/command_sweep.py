"""CommandSweep: search the hyperparameters of any program; `from_file` reads it from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr
from rich.console import Console

from metta.common.config import flatten
from metta.common.entry_point import EntryPoint, metta_sweep_command
from metta.common.errors import UserError, nearest
from metta.sweep.abstract_sweep import AbstractSweep, assemble
from metta.sweep.definition import SweepDefinition
from metta.sweep.ending import may_be_extended
from metta.sweep.foreign_ranges import refuse_foreign
from metta.sweep.program.call import Program
from metta.sweep.program.existence import check_exists
from metta.sweep.program.metric_option import parse_metric
from metta.sweep.program.trial import CommandTrial
from metta.sweep.program.yaml_file import read_yaml, with_line
from metta.sweep.protein_config import ParameterConfig
from metta.sweep.result import SweepResult
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt
from metta.sweep.sweep_name import shortened, slug
from metta.sweep.trial import TrialSpec
from metta.sweep.wandb.parameters import apart
from metta.sweep.wandb.sweep_file import is_wandb_sweep, read_wandb_sweep

_METRIC_KEYS = ("name", "goal", "target", "take", "window")


class CommandSweep(AbstractSweep):
    """Searches the hyperparameters of a program in any language.

    Attributes:
        program: how to call the program, and where its metrics are.
    """

    program: Program
    _remarks: list[str] = PrivateAttr(default_factory=list)

    def note(self, remarks: list[str]) -> None:
        """Store remarks for the user about how the sweep file was read."""
        self._remarks = remarks

    def remarks(self) -> list[str]:
        return [*super().remarks(), *self._remarks]

    def definition(self) -> SweepDefinition:
        leaves = flatten(self.sweep.protein.parameters)
        searched = [path for path, leaf in leaves.items() if isinstance(leaf, ParameterConfig)]
        self.program.check(list(leaves), searched, self.sweep.protein.metric)
        tool_class = f"{CommandTrial.__module__}:{CommandTrial.__name__}"
        return self.define(tool_class, {"program": self.program.model_dump(mode="json")})

    def prepare(self, definition: SweepDefinition, attempt: Attempt, seed: int, run_dir: Path) -> TrialSpec:
        tool = {
            **definition.tool,
            "params": attempt.params,
            "seed": seed,
            "metric": definition.protein.metric,
            "watched": definition.watched_metric,
            "timeout": definition.trial_timeout,
        }
        return TrialSpec(attempt.number, attempt.attempt, definition.tool_class, tool, [], str(run_dir))

    def run(self, console: Console | None = None, exclusive: bool = True, outcome: bool = True) -> SweepResult:
        file = None if self._entry_point is None else self._entry_point.args.get("file")
        path = None if file is None else Path(file)
        try:
            self.definition()
        except UserError as error:
            raise UserError(str(error) if path is None else with_line(str(error), path)) from None
        if self.executor != "ray":  # Ray's workers may have files that are missing here
            check_exists(self.program, path)
        self._check_separate_files()
        return super().run(console, exclusive, outcome)

    def _check_separate_files(self) -> None:
        """Refuse concurrent trials that would all write the same named metrics file."""
        at_once = self.executor in ("local", "ray") if self.num_workers is None else self.num_workers > 1
        path, cwd = self.program.metrics_path, self.program.cwd
        if at_once and path is not None and cwd is None and "${run_dir}" not in path and "${trial}" not in path:
            raise UserError(
                f"metrics: concurrent trials would all write {path}; give each trial its own folder with "
                "cwd: ${run_dir}, or use ${run_dir} in the path"
            )

    def rebuilt_by(self) -> EntryPoint:
        """The fields themselves, because on another machine the file may be missing or different."""
        return self.entry_point_from_fields()

    def command(self) -> str | None:
        if self._entry_point is None:
            return None
        if "file" not in self._entry_point.args:
            return metta_sweep_command(self.store, "work", self.sweep_name)
        return run_command(self._entry_point, self.store)

    def next_commands(self, state: SweepState) -> dict[str, str]:
        commands = super().next_commands(state)
        if self._entry_point is None or "file" not in self._entry_point.args or not may_be_extended(state):
            return commands
        args = {**self._entry_point.args, "num_trials": str(2 * state.definition.num_trials)}
        return {
            "extend the sweep": run_command(self._entry_point.model_copy(update={"args": args}), self.store),
            **commands,
        }


def run_command(entry_point: EntryPoint, store_url: str) -> str:
    """The command that runs what `from_file` reads."""
    words = ["run", entry_point.args["file"]]
    options = {name: text for name, text in entry_point.args.items() if name != "file"}
    words += [f"--{name.replace('_', '-')}={text}" for name, text in options.items()]
    overrides = [f"{path}={text}" for path, text in entry_point.overrides.items() if path != "store"]
    return metta_sweep_command(store_url, *words, *(["--overrides", *overrides] if overrides else []))


def from_file(
    file: str,
    name: str | None = None,
    num_trials: int | None = None,
    program: str | None = None,
    metric: str | None = None,
    early_stopping: str | None = None,
) -> CommandSweep:
    """Read a sweep of a program from YAML: our own form, or W&B's form unchanged.

    Args:
        file: its path. Without a `name` in it, the sweep is named after the file.
        name, num_trials, program, early_stopping: replace the file's.
        metric: replaces the file's: ``NAME``, ``NAME:minimize`` or ``NAME:maximize``.

    Raises:
        UserError: the file cannot be read, or has unknown keys.
    """
    data = read_yaml(Path(file))
    try:
        return from_fields(data, file, name, num_trials, program, metric, early_stopping)
    except UserError as error:
        raise UserError(with_line(str(error), Path(file))) from None


def from_fields(
    data: dict[str, Any],
    file: str,
    name: str | None = None,
    num_trials: int | None = None,
    program: str | None = None,
    metric: str | None = None,
    early_stopping: str | None = None,
) -> CommandSweep:
    """The sweep that the content of a file describes; see `from_file`."""
    remarks: list[str] = []
    if is_wandb_sweep(data):
        read = read_wandb_sweep({**data, "metric": _replaced_metric(data.get("metric"), metric)}, file, program)
        fields, remarks = read.fields, read.remarks
    else:
        fields = data | ({} if program is None else {"program": program})
        refuse_foreign(fields.get("parameters"), f"{file}: parameters")
        _split_metric(fields, file)
        fields |= {} if metric is None else _own_metric(parse_metric(metric))
        if isinstance(fields.get("parameters"), dict):
            fields["parameters"], fields["renamed"] = apart(fields["parameters"])
    if num_trials is not None:
        fields["num_trials"] = num_trials
    if early_stopping is not None:
        for key in ("rungs", "eta"):
            fields.pop(key, None)
        fields["early_stopping"] = early_stopping
    if "num_trials" not in fields and fields.get("method") != "grid":
        key = "run_cap" if fields.get("style") == "wandb" else "num_trials"
        raise UserError(f"{file}: how many trials? give {key}{_misspelt(key, fields)} in the file, or --num-trials N")
    own = {key: fields.pop(key) for key in list(fields) if key in Program.model_fields}
    if "command" not in own:
        raise UserError(
            f"{file}: how is the program called? give command{_misspelt('command', fields)} in the file, such as: "
            "python train.py ${args}"
        )
    named = fields.pop("name", None)
    if named is None or own.get("style") == "wandb":  # W&B's names are free text; a sweep's name is also a folder's
        named = _folder_name(str(named or Path(file).stem), file, remarks)
    sweep = assemble(CommandSweep, {**fields, "program": own, "sweep_name": name or named}, file)
    sweep.note(remarks)
    return sweep


def _misspelt(key: str, fields: Mapping[str, Any]) -> str:
    """The field that seems to be meant as the missing `key`."""
    return "".join(f", not {word}," for word in get_close_matches(key, fields, n=1))


def _replaced_metric(metric: Any, option: str | None) -> Any:
    """A file's metric, with the name and goal of the option if it is given."""
    if option is None:
        return metric
    before = metric if isinstance(metric, Mapping) else {}
    return {**before, **parse_metric(option)}


def _folder_name(name: str, where: str, remarks: list[str]) -> str:
    """A valid folder name made from a free-text name."""
    whole = slug(name)
    if (made := shortened(whole)) != whole:
        remarks.append(f"{where}: a name of {len(name)} characters is too long; the sweep is {made}, or give --name")
    return made


def _split_metric(fields: dict[str, Any], file: str) -> None:
    """Take ``metric: {name: loss, goal: minimize, take: mean, window: 50}`` apart into fields of their own."""
    metric = fields.get("metric")
    if not isinstance(metric, dict):
        return
    for key in metric:
        if key not in _METRIC_KEYS:
            raise UserError(f"{file}: there is no metric.{key}; {nearest(str(key), _METRIC_KEYS)}")
        if key != "name" and key in fields:
            raise UserError(f"{file}: {key} is given twice, the second time as metric.{key}")
    if "name" not in metric:
        raise UserError(f"{file}: metric.name is missing: the metric that is the score")
    fields.update(_own_metric(metric))


def _own_metric(metric: Mapping[str, Any]) -> dict[str, Any]:
    """A metric's name and its other keys, as fields of our own form."""
    return {"metric" if key == "name" else key: value for key, value in metric.items()}
