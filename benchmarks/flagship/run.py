"""Compares the recommendations of the arena's sweep with the trainer's defaults and with random search.

    uv run python -m benchmarks.flagship.run sweeps            # hours: 2 games, 5 seeds, 2 methods, 8 minutes each
    uv run python -m benchmarks.flagship.run train             # hours: their recommendations, and the defaults
    uv run python -m benchmarks.flagship.run report

Each part can be stopped and started again: results are lines of a file, and existing ones are not measured again.
Sweeps resume automatically. Give the same ``--results`` to all three; ``--games``, ``--sweeps``, ``--methods`` and
``--seeds`` select a part.

`sweeps` runs the sweep of README and random search over the same space with the same budget of training seconds.
`train` takes each sweep's recommendation within each of ``--costs``, seconds of training, and trains it on fresh seeds;
for each of these trainings, the defaults of commit 7005977 train for as many seconds with the same seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.flagship.measure import DEFAULTS, Training, recommended, spent, sweep, train, with_params
from benchmarks.flagship.report import table

COSTS = (20.0, 45.0, 100.0)
FRESH = 10_000
"""Seeds of trainings begin here; no sweep trains with them."""


class Results:
    """Measurements by key, in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._rows = {self._key(row): row for row in map(json.loads, lines)}

    def get(self, **key: Any) -> dict[str, Any] | None:
        """The row of a measurement, or None if it was not made."""
        return self._rows.get(self._key({"key": key}))

    def measured(self, measure: Callable[[], Training], of_trial: dict[str, Any], **key: Any) -> dict[str, Any]:
        """The row of a training; made now if there is none. What is recommended for two costs is trained once.

        Args:
            measure: trains.
            of_trial: the recommended trial, its hyperparameters, and whether it was tried; kept in the row.
        """
        if (row := self.get(**key)) is not None:
            return row
        same = {**key, "cost": None, "params": of_trial["params"]}
        twin = next(
            (row for row in self.rows if {**row["key"], "cost": None, "params": row.get("params")} == same), None
        )
        if twin is None:
            row = self.add(of_trial | asdict(measure()), **key)
        else:
            row = self.add({name: value for name, value in twin.items() if name != "key"}, **key)
        print(row, flush=True)
        return row

    def add(self, values: dict[str, Any], **key: Any) -> dict[str, Any]:
        """Record a measurement, and return its row."""
        row = {"key": key, **values}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._rows[self._key(row)] = row
        return row

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self._rows.values())

    @staticmethod
    def _key(row: dict[str, Any]) -> str:
        return json.dumps(row["key"], sort_keys=True)


def run_sweeps(results: Results, options: argparse.Namespace) -> None:
    for game, number, method in _sweeps(options):
        key = {"kind": "sweep", "game": game, "sweep": number, "method": method}
        if results.get(**key) is None:
            name = _name(game, number, method)
            seconds = sweep(name, game, method, number, options.results, options.trials, options.budget)
            print(results.add({"wall": seconds, "spent": spent(name, options.results)}, **key), flush=True)


def run_trainings(results: Results, options: argparse.Namespace) -> None:
    for index, (game, number, method), cost in itertools.product(range(options.seeds), _sweeps(options), options.costs):
        if results.get(kind="sweep", game=game, sweep=number, method=method) is None:
            continue
        chosen = recommended(_name(game, number, method), options.results, cost)
        if chosen is None:
            print(f"{_name(game, number, method)}: no trial cost {cost:g} s or less")
            continue
        seed = FRESH + 100 * number + index
        key = {"game": game, "sweep": number, "cost": cost, "seed": seed}
        of_trial = {"trial": chosen.trial, "params": chosen.params, "tried": chosen.tried}
        row = results.measured(partial(train, game, with_params(chosen.params), seed), of_trial, kind=method, **key)
        if method == "protein":
            results.measured(partial(train, game, DEFAULTS, seed, row["seconds"]), of_trial, kind="defaults", **key)


def _sweeps(options: argparse.Namespace) -> Iterator[tuple[Any, int, Any]]:
    """Game, number and method of each sweep; the methods of a number one after the other."""
    return itertools.product(options.games, options.sweeps, options.methods)


def _name(game: str, number: int, method: str) -> str:
    return f"{game}_{method}_{number}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["sweeps", "train", "report"])
    parser.add_argument("--results", type=Path, default=Path("train_dir/flagship"), help="folder of sweeps and results")
    parser.add_argument("--games", nargs="+", choices=["basic", "combat"], default=["basic", "combat"])
    parser.add_argument("--sweeps", nargs="+", type=int, default=range(5), help="seeds of the sweeps")
    parser.add_argument("--methods", nargs="+", choices=["protein", "random"], default=["protein", "random"])
    parser.add_argument("--costs", nargs="+", type=float, default=COSTS, help="seconds that a recommendation may take")
    parser.add_argument("--seeds", type=int, default=5, help="fresh seeds for each recommended setting")
    parser.add_argument("--trials", type=int, default=20, help="trials of each sweep")
    parser.add_argument("--budget", type=float, default=480.0, help="training seconds of each sweep")
    options = parser.parse_args()
    results = Results(options.results / "results.jsonl")
    if options.part == "sweeps":
        run_sweeps(results, options)
    elif options.part == "train":
        run_trainings(results, options)
    print("\n".join(table(results.rows)))


if __name__ == "__main__":
    main()
