"""Metrics of a program, from its output or from files of a logger.

Each module that reads a kind of file has ``parse(data) -> list[Row]``; `KINDS` names them. `files` finds the files of a
run, and `reading` combines all sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch

from metta.sweep.program.metrics import csv_file, json_file, npz_file, tensorboard, wandb_run
from metta.sweep.program.metrics.row import Row


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        patterns: names by which files of this kind are found automatically.
        suffixes: suffixes of files of this kind that the user names.
        parse: reads the whole content of such a file.
    """

    patterns: tuple[str, ...]
    suffixes: tuple[str, ...]
    parse: Callable[[bytes], list[Row]]


KINDS = {
    "tensorboard": Kind(("*tfevents*",), ("tfevents",), tensorboard.parse),
    "csv": Kind(("*.csv", "*.tsv", "progress.txt"), (".csv", ".tsv", ".txt"), csv_file.parse),
    "npz": Kind(("evaluations.npz",), (".npz",), npz_file.parse),
    "wandb": Kind(("run-*.wandb",), (".wandb",), wandb_run.parse),
    "json": Kind(("*.json", "*.jsonl", "*.ndjson"), (".json", ".jsonl", ".ndjson"), json_file.parse),
}
"""Kinds of files that metrics are read from, by name. If two contain the same metric, the first is used."""


def kind_found(name: str) -> str | None:
    """The kind of a file that was found, by its name; None for a file without metrics."""
    return next(
        (kind for kind, each in KINDS.items() if any(fnmatch(name, pattern) for pattern in each.patterns)), None
    )


def kind_named(path: str) -> str:
    """The kind of a file that the user named; JSON if its suffix is unknown."""
    name = path.rpartition("/")[2]
    found = (kind for kind, each in KINDS.items() if any(suffix in name for suffix in each.suffixes))
    return kind_found(name) or next(found, "json")
