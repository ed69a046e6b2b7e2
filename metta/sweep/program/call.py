"""How a program is called, and where its metrics come from."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from metta.common.config import Config, unflatten
from metta.common.distribution import install_command
from metta.common.errors import UserError, nearest
from metta.sweep.program.metrics import KINDS
from metta.sweep.program.metrics.patterns import check_patterns
from metta.sweep.program.metrics.row import number
from metta.sweep.program.metrics.take import TakeName

_MACRO = re.compile(r"\$\{([^{}]+)\}")
_VARIABLE = re.compile(r"\$\{(envvar:[^{}]+)\}")
_ALL_ARGUMENTS = (
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_negated_flags",
    "args_append_hydra",
    "args_override_hydra",
    "args_json",
    "args_json_file",
    "args_yaml_file",
)
_SPREAD = frozenset(_ALL_ARGUMENTS[:7])
"""Macros that expand to any number of arguments, so each must be a separate word."""
_OTHERS = ("env", "interpreter", "program", "run_dir", "seed", "trial")
_OUTPUT = ("auto", "stdout")
_WANDB_FLUSH = "WANDB__TRANSACTION_LOG_FLUSH_INTERVAL"
"""How often W&B's client writes into a run's file; W&B's setting `x_transaction_log_flush_interval`."""


class Program(Config):
    """How to call a program with hyperparameters, and where its metrics come from.

    Attributes:
        command: the program and its arguments, as text or as a list. It may contain the macros listed below.
        program: the file that ``${program}`` stands for.
        environment: variables in addition to those that it inherits. The values may contain macros.
        metrics: where to find the metrics. "auto": in the output, otherwise in files that appear in the run's folder
            or the working folder, otherwise in lines of text that are only names with numbers. "stdout": on lines of
            the output that are JSON. A kind of file ("tensorboard", "csv", "npz", "wandb", "json"): files of that kind
            in the same folders. The path of a file, with macros and wildcards: ``${run_dir}/metrics.json``. Or a
            pattern for each metric in the output: ``{acc: 'acc ([0-9.]+)'}``.
        take: which of the metric's values is the score: the last, the largest, the smallest or their mean.
        window: `take` uses only this many last values; by default all.
        total: the step at which a whole run ends: a number, or the path of the hyperparameter that holds it. By
            default the total that the program reports, or otherwise the last step of the longest trial.
        cwd: the folder in which the program runs, by default this process's. It may contain macros: ``${run_dir}``
            gives each trial its own folder. Words of the command that name files here then become absolute paths.
        style: how hyperparameters are written: "plain" (``--optimizer.lr=0.1 --nesterov=true``), or "wandb", as
            W&B's agent does (``--optimizer={'lr': 0.1} --nesterov=True``).
        names: for "wandb", the parameters at the top level of W&B's file. A dot in such a name is part of the name, as
            in ``model.lr=0.1`` for Hydra; it does not mean a nested parameter.
        renamed: the paths of hyperparameters that have another name on the command line, by that name: a Hydra group
            ``optimizer`` in addition to ``optimizer.lr`` has the path ``optimizer.group``.

    Macros: ``${args}`` (``--a=1 --b=2``), ``${args_no_equals}`` (``--a 1 --b 2``), ``${args_no_hyphens}``
    (``a=1 b=2``), ``${args_no_boolean_flags}`` (``--a=1 --flag``), ``${args_negated_flags}`` (``--a=1 --flag
    --no-other``, as tyro and `argparse.BooleanOptionalAction` take them), ``${args_append_hydra}`` (``+a=1``),
    ``${args_override_hydra}`` (``++a=1``), ``${args_json}`` (one argument of JSON), ``${args_json_file}`` and
    ``${args_yaml_file}`` (path of a file), ``${PATH}`` (the value of the hyperparameter at that dotted path),
    ``${seed}``, ``${trial}`` (its number), ``${run_dir}`` (a folder of its own), ``${env}``, ``${interpreter}``,
    ``${program}``, ``${envvar:NAME}``. With the style "plain" any other macro is an error. With "wandb" they are filled
    as W&B's agent does: a macro that is a whole word is replaced, or removed if it is unknown; within a word only
    ``${envvar:NAME}`` is replaced, so that ``hydra.run.dir=${now:%H}`` reaches Hydra.
    """

    command: list[str] = Field(min_length=1)
    program: str | None = None
    environment: dict[str, str] = {}
    metrics: str | dict[str, str] = "auto"
    take: TakeName = "last"
    window: int | None = Field(default=None, ge=1)
    total: int | str | None = None
    cwd: str | None = None
    style: Literal["plain", "wandb"] = "plain"
    names: list[str] = []
    renamed: dict[str, str] = {}

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return shlex.split(value)
        if not isinstance(value, list):
            return value
        return [str(word) if isinstance(word, int | float) else word for word in value]

    @property
    def kinds(self) -> list[str]:
        """The kinds of files that are searched for metrics."""
        if isinstance(self.metrics, dict) or self.metrics == "stdout":
            return []
        return [self.metrics] if self.metrics in KINDS else list(KINDS) if self.metrics == "auto" else []

    @property
    def metrics_path(self) -> str | None:
        """The metrics file that the user named, before its macros are filled in."""
        named = isinstance(self.metrics, str) and self.metrics not in (*_OUTPUT, *KINDS)
        return str(self.metrics) if named else None

    def check(self, paths: Sequence[str], searched: Sequence[str], metric: str | None = None) -> None:
        """Check that the macros are known, that each hyperparameter reaches the program, and that metrics can be found.

        Args:
            paths: the paths of all hyperparameters, including fixed ones.
            searched: the paths of those that are searched.
            metric: the name of the score.

        Raises:
            UserError: a macro is unknown, a hyperparameter does not reach the program, or no metrics can be found.
        """
        self._check_metrics(metric)
        if isinstance(self.total, str) and self.total not in paths:
            raise UserError(f"total: there is no hyperparameter {self.total!r}; {nearest(self.total, paths)}")
        if self.metrics == "wandb" and importlib.util.find_spec("wandb") is None:
            raise UserError(f"metrics: wandb needs the package wandb: {install_command('wandb')}")
        used: set[str] = set()
        for word in self.command:
            found = _MACRO.findall(word)
            used.update(found)
            for name in found:
                if self.style == "plain" and name in _SPREAD and word != f"${{{name}}}":
                    raise UserError(f"command: ${{{name}}} expands to several arguments, so not within {word!r}")
        for text in [*self.environment.values(), self.metrics_path or "", self.cwd or ""]:
            used.update(_MACRO.findall(text))
        known = [*_ALL_ARGUMENTS, *_OTHERS, *paths, *self.renamed]
        for name in used if self.style == "plain" else ():
            if name not in known and not name.startswith("envvar:"):
                raise UserError(f"command: unknown macro ${{{name}}}; {nearest(name, known)}")
        if "program" in used and self.program is None:
            raise UserError("command: ${program} needs the key 'program'")
        used = {self.renamed.get(name, name) for name in used}
        missing = [path for path in searched if path not in used]
        if missing and self.style == "plain" and not used & set(_ALL_ARGUMENTS):
            raise UserError(
                f"nothing passes {', '.join(missing)} to the program; add ${{args}} or ${{{missing[0]}}} to the command"
            )

    def _check_metrics(self, metric: str | None) -> None:
        if self.window is not None and self.take == "last":
            raise UserError("metric: a window needs take: max, min or mean; take: last uses one value")
        if isinstance(self.metrics, dict):
            check_patterns(self.metrics)
            if metric is not None and metric not in self.metrics:
                raise UserError(
                    f"metrics: there is no pattern for the metric {metric!r}; {nearest(metric, self.metrics)}"
                )
        elif (path := self.metrics_path) is not None and re.fullmatch(r"[\w-]+", path):
            known = [*_OUTPUT, *KINDS]
            raise UserError(
                f"metrics: {path!r} is not a source; {nearest(path, known)}; or a file as ./{path}, or patterns"
            )


@dataclass(frozen=True)
class Call:
    """One call of a program.

    Attributes:
        params: hyperparameters, flat with dotted keys.
        seed, trial: the trial's seed and number.
        run_dir: the trial's folder.
    """

    program: Program
    params: Mapping[str, Any]
    seed: int
    trial: int
    run_dir: Path

    def command(self) -> list[str]:
        """The words of the command. Writes the files that its macros name."""
        words: list[str] = []
        for word in self.program.command:
            words += self._words(word)
        return words if self.program.cwd is None else [_absolute(word) for word in words]

    def _words(self, word: str) -> list[str]:
        """The arguments that a word of the command expands to."""
        whole = _MACRO.fullmatch(word)
        if whole and whole[1] in _SPREAD:
            return self._expand(whole[1])
        if self.program.style == "plain" or (whole and self._is_known(whole[1])):
            return [self.fill(word)]
        return [] if whole else [_VARIABLE.sub(lambda match: self._value(match[1]), word)]

    @property
    def cwd(self) -> Path:
        """The folder in which the program runs."""
        return Path.cwd() if self.program.cwd is None else Path.cwd() / self.fill(self.program.cwd)

    @property
    def total(self) -> float | None:
        """The step at which a whole run ends, if known."""
        total = self.params[self.program.total] if isinstance(self.program.total, str) else self.program.total
        return number(total)

    def _is_known(self, name: str) -> bool:
        """Whether a macro is known."""
        known = (*_ALL_ARGUMENTS, *_OTHERS, *self.params, *self.program.renamed)
        return name in known or name.startswith("envvar:")

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """All variables of the program: inherited ones, its own, and METTA_TRIAL, METTA_SEED and METTA_RUN_DIR."""
        variables = dict(inherited)
        if "METTA_PYTHONPATH" in variables:  # a worker's PYTHONPATH is internal; the program gets the user's
            variables["PYTHONPATH"] = variables.pop("METTA_PYTHONPATH")
            if not variables["PYTHONPATH"]:
                del variables["PYTHONPATH"]
        if self.program.cwd is not None:  # so that `python -m` finds the same modules as here
            variables["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [variables.get("PYTHONPATH")])])
        variables |= {"METTA_TRIAL": str(self.trial), "METTA_SEED": str(self.seed), "METTA_RUN_DIR": str(self.run_dir)}
        if self.program.metrics == "wandb":
            variables.setdefault(_WANDB_FLUSH, "1")  # second; the default is 15, and until then a run shows nothing
            variables |= {"WANDB_DIR": str(self.run_dir), "WANDB_SWEEP_PARAM_PATH": str(self._wandb_config())}
        return variables | {name: self.fill(text) for name, text in self.program.environment.items()}

    def fill(self, text: str, change: Callable[[str], str] = str) -> str:
        """Replace the macros in a text by their values, each converted by `change`."""
        return _MACRO.sub(lambda match: change(self._value(match[1])), text)

    def metrics_glob(self) -> str | None:
        """The metrics file that the user named, as a pattern for `glob`; None if none was named."""
        path = self.program.metrics_path
        return None if path is None else os.path.join(glob.escape(str(self.cwd)), self.fill(path, glob.escape))

    def _value(self, name: str) -> str:
        path = self.program.renamed.get(name, name)
        if path in self.params:
            return self._written(self.params[path])
        if name.startswith("envvar:"):
            variable = name.removeprefix("envvar:")
            return os.environ.get(variable, variable)
        match name:
            case "args_json":
                return json.dumps(self._arguments_nested())
            case "args_json_file":
                return self._file("hyperparameters.json", json.dumps(self._arguments_nested(), indent=2))
            case "args_yaml_file":
                return self._file("hyperparameters.yaml", yaml.safe_dump(self._arguments_nested(), sort_keys=False))
            case "env":
                return "/usr/bin/env"
            case "interpreter":
                return "python"
            case "program":
                return self.program.program or ""
            case "run_dir":
                return str(self.run_dir)
            case "seed":
                return str(self.seed)
            case _:
                return str(self.trial)

    def _expand(self, name: str) -> list[str]:
        written = {path: self._written(value) for path, value in self._arguments().items()}
        pairs = [f"{path}={text}" for path, text in written.items()]
        match name:
            case "args_no_equals":
                return [word for path, text in written.items() for word in (f"--{path}", text)]
            case "args_no_hyphens":
                return pairs
            case "args_append_hydra":
                return [f"+{pair}" for pair in pairs]
            case "args_override_hydra":
                return [f"++{pair}" for pair in pairs]
            case "args_no_boolean_flags":
                return [
                    f"--{path}" if value is True else f"--{path}={written[path]}"
                    for path, value in self._arguments().items()
                    if value is not False
                ]
            case "args_negated_flags":
                return [_flag(path, value, written[path]) for path, value in self._arguments().items()]
            case _:
                return [f"--{pair}" for pair in pairs]

    def _arguments(self) -> dict[str, Any]:
        """Hyperparameters by their names on the command line."""
        if self.program.style == "wandb":
            return self._arguments_nested()
        names = {path: name for name, path in self.program.renamed.items()}
        return {names.get(path, path): value for path, value in self.params.items()}

    def _arguments_nested(self) -> dict[str, Any]:
        return {name: self._below(name) for name in self.program.names} or unflatten(self.params)

    def _below(self, name: str) -> Any:
        """The value of one hyperparameter, or the values nested under its name."""
        path = self.program.renamed.get(name, name)
        if path in self.params:
            return self.params[path]
        start = f"{name}."
        return unflatten({path.removeprefix(start): v for path, v in self.params.items() if path.startswith(start)})

    def _written(self, value: Any) -> str:
        if self.program.style == "wandb" or isinstance(value, str):
            return str(value)
        return json.dumps(value)

    def _file(self, name: str, text: str) -> str:
        path = self.run_dir / name
        path.write_text(text)
        return str(path)

    def _wandb_config(self) -> str:
        """Write the file from which `wandb.init` takes the configuration of a sweep's run; return its path."""
        values = {name: {"value": value} for name, value in self._arguments_nested().items()}
        return self._file("wandb-config.yaml", f"wandb_version: 1\n\n{yaml.safe_dump(values, sort_keys=False)}")


def _absolute(word: str) -> str:
    """The absolute path of a word that names a file here; any other word unchanged."""
    return str(Path(word).absolute()) if word and not word.startswith("-") and Path(word).is_file() else word


def _flag(name: str, value: Any, text: str) -> str:
    """An argument; a boolean becomes a flag that may be negated."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={text}"
