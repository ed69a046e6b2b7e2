"""Commands that steer a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from metta.common.command_line import read_value, split_pairs
from metta.common.errors import UserError, nearest
from metta.sweep.cli.command import Commands, opened, say

if TYPE_CHECKING:
    from metta.sweep.definition import SweepDefinition

TITLE = "steer a sweep"


class SweepDriver(Protocol):
    """What an entry point of a sweep builds: a Tool of a room that this one does not know."""

    def work(self) -> int: ...


def register(commands: Commands) -> None:
    commands.add(work, "work", "name")
    queued, added = commands.add(enqueue, "enqueue", "name"), commands.add(add, "add", "name")
    for parser in (queued, added):
        parser.add_argument("params", nargs="+", metavar="PATH=VALUE", help="hyperparameters")
    added.add_argument("--score", type=float, required=True, help="the metric as measured")
    added.add_argument("--cost", type=float, required=True, help="in the unit of the sweep's cost metric")


def work(options: argparse.Namespace) -> int:
    """Work on a sweep beside its other drivers, here or on another machine.

    Rebuilds the sweep from the entry point that is kept with it, in the present folder.
    """
    from metta.common.entry_point import EntryPoint

    with opened(options) as store:
        record = store.sweep(options.name)
    if record.entry_point is None:
        raise UserError(
            f"sweep {options.name!r} was not started by tools/run.py, so nothing says how to rebuild it; "
            "run the Python code that started it"
        )
    sys.path.insert(0, str(Path.cwd()))
    tool = EntryPoint.model_validate(record.entry_point).build().override("store", options.store)
    return cast(SweepDriver, tool).work()


def enqueue(options: argparse.Namespace) -> None:
    """Queue a point to be tried next.

    Hyperparameters that are left out have the Tool's own values.
    """
    from metta.sweep.definition import SweepDefinition

    with opened(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        number = store.enqueue(options.name, _hyperparameters(definition, options.params))
    say(options, f"trial {number} is queued", number=number)


def add(options: argparse.Namespace) -> None:
    """Add an observation made elsewhere, for the optimiser to learn from.

    Hyperparameters that are left out had the Tool's own values.
    """
    from metta.sweep.definition import SweepDefinition
    from metta.sweep.store.protocol import Outcome
    from metta.sweep.trial import TrialState

    with opened(options) as store:
        definition = SweepDefinition.model_validate(store.sweep(options.name).config)
        outcome = Outcome(TrialState.COMPLETED, score=options.score, cost=options.cost)
        number = store.add(options.name, _hyperparameters(definition, options.params), outcome)
    say(options, f"trial {number} is added", number=number)


def _hyperparameters(definition: SweepDefinition, pairs: Sequence[str]) -> dict[str, Any]:
    """Hyperparameters as typed, by their full paths or any unique ending of these; the rest from the Tool."""
    from metta.common.config import flatten
    from metta.sweep.observations import hyperparameter_paths

    paths = hyperparameter_paths(definition.protein)
    own = flatten(definition.tool)
    params = {path: own[path] for path in paths if path in own}
    for name, text in split_pairs(pairs, "hyperparameters").items():
        meant = [path for path in paths if path == name or path.endswith(f".{name}")]
        if len(meant) != 1:
            raise UserError(f"the sweep does not search {name!r}; {nearest(name, paths)}")
        params[meant[0]] = read_value(text)
    return params
