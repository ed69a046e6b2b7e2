"""Explains why a program's metric was not found, which were, and which line of the sweep's file would fix it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from metta.sweep.program.metrics.patterns import names_before_numbers, suggest_pattern
from metta.sweep.program.metrics.reading import FileReader, LineReader

_SHOWN = 10  # names


def missing(metric: str, lines: LineReader | None, files: FileReader | None, where: str, text: str) -> str:
    """A sentence for each of these three points.

    Args:
        metric: its name.
        lines, files: the sources that were read.
        where: a description of the sources, used if they contained nothing.
        text: the end of the output.
    """
    found = _found(lines, files)
    names = [name for _, each in found for name in each]
    problem = lines.problem if lines is not None else None
    said = f": {problem}." if problem else f" in {where}." if not found else "."
    listed = "".join(f" Found in {source}: {_listed(each)}." for source, each in found)
    return f"the metric {metric!r} was not measured{said}{listed} {_advice(metric, names, text, bool(problem))}"


def _found(lines: LineReader | None, files: FileReader | None) -> list[tuple[str, list[str]]]:
    found = [("its output", list(lines.names))] if lines is not None and lines.names else []
    if files is not None:
        found += [(shown_path(path), list(names)) for path, names in files.names.items() if names]
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _advice(metric: str, names: Iterable[str], text: str, printed: bool) -> str:
    """The line to add: the most certain advice that applies."""
    if printed:
        return f"Print {metric} as one number: {json.dumps({metric: 0.5})}"
    ends = [name for name in names if name.rpartition("/")[2] == metric or name.rpartition(".")[2] == metric]
    close = ends or get_close_matches(metric, names, n=1, cutoff=0.6)
    pattern = suggest_pattern(metric, text)
    if close and pattern is None:
        return f"Write in the sweep's file: metric: {close[0]}"
    if pattern is not None:
        return f"Write in the sweep's file: metrics: {{{metric}: '{pattern}'}}"
    if names:
        return f"Write in the sweep's file: metric: NAME, one of these, such as {next(iter(names))}"
    printed_names = names_before_numbers(text)
    if printed_names:
        name = (get_close_matches(metric, printed_names, n=1) or printed_names)[0]
        return (
            f"Its output has numbers after {_listed(printed_names)}. "
            f"Write in the sweep's file: metrics: {{{metric}: '{suggest_pattern(name, text) or name}'}}"
        )
    return f"Let the program print a line such as {json.dumps({metric: 0.5})}, or name its metrics file: metrics: PATH"


def ambiguous(metric: str, folders: list[list[Path]]) -> str:
    """The message that several files contain the metric, and how to name the right ones."""
    places = [shown_path(files[0]) for files in folders]
    first = folders[0][0]
    name = "*tfevents*" if "tfevents" in first.name else first.name
    return (
        f"the metric {metric!r} is in files of {len(places)} folders: {', '.join(places[:4])}. "
        f"Name the file in the sweep's file, with * for what differs from run to run, such as: "
        f"metrics: '**/{first.parent.name}/{name}'"
    )


def shown_path(path: Path) -> str:
    """A path as the user would type it here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
