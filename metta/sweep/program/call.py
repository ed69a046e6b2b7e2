"""How a program is called, and where its metrics come from."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from metta.common.config import Config, flatten, unflatten
from metta.common.distribution import install_command
from metta.common.errors import UserError, nearest

_MACRO = re.compile(r"\$\{([^{}]+)\}")
_ALL_ARGUMENTS = (
    "args",
    "args_no_equals",
    "args_no_hyphens",
    "args_no_boolean_flags",
    "args_append_hydra",
    "args_override_hydra",
    "args_json",
    "args_json_file",
    "args_yaml_file",
)
_SPREAD = frozenset(_ALL_ARGUMENTS[:6])
"""Macros that expand to any number of arguments, so each must be a word of its own."""
_OTHERS = ("env", "interpreter", "program", "run_dir", "seed", "trial")


class Program(Config):
    """How to call a program with hyperparameters, and where its metrics come from.

    Attributes:
        command: the program and its arguments, as text or as a list. It may contain the macros below.
        program: the file that ``${program}`` stands for.
        environment: variables besides those that it inherits. The values may contain macros.
        metrics: where to find the metrics: "stdout" (the last line that is JSON and holds the metric), "wandb" (the
            run's W&B summary), or the path of a JSON file that the program writes: ``${run_dir}/metrics.json``.
        style: how hyperparameters are written: "plain" (``--optimizer.lr=0.1 --nesterov=true``), or "wandb", as
            W&B's agent does (``--optimizer={'lr': 0.1} --nesterov=True``).
        names: for "wandb", the parameters at the top level of W&B's file. A dot in such a name is part of the name, as
            in ``model.lr=0.1`` for Hydra; it does not lead to a nested parameter.

    Macros: ``${args}`` (``--a=1 --b=2``), ``${args_no_equals}`` (``--a 1 --b 2``), ``${args_no_hyphens}``
    (``a=1 b=2``), ``${args_no_boolean_flags}`` (``--a=1 --flag``), ``${args_append_hydra}`` (``+a=1``),
    ``${args_override_hydra}`` (``++a=1``), ``${args_json}`` (one argument of JSON), ``${args_json_file}`` and
    ``${args_yaml_file}`` (path of a file), ``${PATH}`` (the value of the hyperparameter at that dotted path),
    ``${seed}``, ``${trial}`` (its number), ``${run_dir}`` (a folder of its own), ``${env}``, ``${interpreter}``,
    ``${program}``, ``${envvar:NAME}``.
    """

    command: list[str] = Field(min_length=1)
    program: str | None = None
    environment: dict[str, str] = {}
    metrics: str = "stdout"
    style: Literal["plain", "wandb"] = "plain"
    names: list[str] = []

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return shlex.split(value)
        if not isinstance(value, list):
            return value
        return [str(word) if isinstance(word, int | float) else word for word in value]

    def check(self, paths: Sequence[str], searched: Sequence[str]) -> None:
        """Check that every macro is known and that every hyperparameter reaches the program.

        Args:
            paths: of all hyperparameters, the fixed ones among them.
            searched: of those that are searched.

        Raises:
            UserError: a macro is unknown, or a hyperparameter does not reach the program.
        """
        if self.metrics == "wandb" and importlib.util.find_spec("wandb") is None:
            raise UserError(f"metrics: wandb needs the package wandb: {install_command('wandb')}")
        used: set[str] = set()
        for word in self.command:
            found = _MACRO.findall(word)
            used.update(found)
            for name in found:
                if name in _SPREAD and word != f"${{{name}}}":
                    raise UserError(f"command: ${{{name}}} stands for several arguments, so not within {word!r}")
        for text in [*self.environment.values(), self.metrics]:
            used.update(_MACRO.findall(text))
        known = [*_ALL_ARGUMENTS, *_OTHERS, *paths]
        for name in used:
            if name not in known and not name.startswith("envvar:"):
                raise UserError(f"command: ${{{name}}} means nothing; {nearest(name, known)}")
        if "program" in used and self.program is None:
            raise UserError("command: ${program} needs the key 'program'")
        missing = [path for path in searched if path not in used]
        if missing and self.style == "plain" and not used & set(_ALL_ARGUMENTS):
            raise UserError(
                f"nothing gives {', '.join(missing)} to the program; add ${{args}} or ${{{missing[0]}}} to the command"
            )


@dataclass(frozen=True)
class Call:
    """One call of a program.

    Attributes:
        params: hyperparameters, flat with dotted keys.
        seed, trial: of the trial.
        run_dir: its folder.
    """

    program: Program
    params: Mapping[str, Any]
    seed: int
    trial: int
    run_dir: Path

    def command(self) -> list[str]:
        """The words of the command. Writes the files that it names."""
        words: list[str] = []
        for word in self.program.command:
            whole = _MACRO.fullmatch(word)
            words += self._spread(whole[1]) if whole and whole[1] in _SPREAD else [self.fill(word)]
        return words

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """All variables of the program: those inherited, its own, and METTA_TRIAL, METTA_SEED and METTA_RUN_DIR."""
        variables = dict(inherited)
        if "METTA_PYTHONPATH" in variables:  # a worker's PYTHONPATH is our own; the program gets the user's
            variables["PYTHONPATH"] = variables.pop("METTA_PYTHONPATH")
            if not variables["PYTHONPATH"]:
                del variables["PYTHONPATH"]
        variables |= {"METTA_TRIAL": str(self.trial), "METTA_SEED": str(self.seed), "METTA_RUN_DIR": str(self.run_dir)}
        if self.program.metrics == "wandb":
            variables |= {"WANDB_DIR": str(self.run_dir), "WANDB_SWEEP_PARAM_PATH": str(self._wandb_config())}
        return variables | {name: self.fill(text) for name, text in self.program.environment.items()}

    def fill(self, text: str) -> str:
        """Replace the macros in a text by their values."""
        return _MACRO.sub(lambda match: self._value(match[1]), text)

    def _value(self, name: str) -> str:
        if name in self.params:
            return self._written(self.params[name])
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

    def _spread(self, name: str) -> list[str]:
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
            case _:
                return [f"--{pair}" for pair in pairs]

    def _arguments(self) -> dict[str, Any]:
        """Hyperparameters by the name they have on the command line."""
        return dict(self.params) if self.program.style == "plain" else self._arguments_nested()

    def _arguments_nested(self) -> dict[str, Any]:
        return {name: self._below(name) for name in self.program.names} or unflatten(self.params)

    def _below(self, name: str) -> Any:
        """The value of one hyperparameter, or those nested in it."""
        if name in self.params:
            return self.params[name]
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
        """The file from which `wandb.init` takes the configuration of a sweep's run."""
        values = {name: {"value": value} for name, value in self._arguments_nested().items()}
        return self._file("wandb-config.yaml", f"wandb_version: 1\n\n{yaml.safe_dump(values, sort_keys=False)}")


def read_metrics(value: Any) -> dict[str, float]:
    """The numbers in JSON data, by dotted name. Everything else is skipped."""
    if not isinstance(value, Mapping):
        return {}
    flat = flatten({str(name): each for name, each in value.items()})
    return {name: float(each) for name, each in flat.items() if isinstance(each, int | float)}
