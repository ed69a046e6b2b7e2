"""Combines the metrics from a program's output and its files, and finds the source that contains the score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from metta.sweep.program.metrics import KINDS
from metta.sweep.program.metrics.files import MetricFile, MetricFiles
from metta.sweep.program.metrics.json_text import parse_line, refusal, row_of, written_out
from metta.sweep.program.metrics.patterns import Patterns
from metta.sweep.program.metrics.row import Row
from metta.sweep.program.metrics.take import Take
from metta.sweep.program.metrics.wandb_run import STEP
from metta.sweep.program.process import LONGEST_LINE, TOO_LONG

MakeTake = Callable[[], Take]


class LineReader:
    """The metrics on lines of output: JSON objects, or numbers found by patterns.

    Args:
        metric: the name of the score.
        take: creates the object that computes the score from the metric's values.
        patterns: None to read JSON.

    Attributes:
        scored: the numbers on the last line with the metric, with the score; with patterns, the last value of each.
        last: the numbers on the last line that has any.
        names: every name that had a number.
        problem: why the last line that names the metric does not contain its value.
    """

    def __init__(self, metric: str, take: MakeTake, patterns: Patterns | None = None) -> None:
        self._metric = metric
        self._take = take()
        self._patterns = patterns
        leaf = metric.rpartition(".")[2]
        self._leaf = leaf.encode()
        self._quoted = {json.dumps(name).encode() for name in (metric, leaf)}
        self._lines = 0
        self._step: float | None = None
        self._earlier: list[tuple[float, float]] = []
        self.scored: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.names: dict[str, None] = {}
        self.problem: str | None = None

    def resume(self, lines: Sequence[bytes]) -> None:
        """Take in the output of earlier attempts: its values before the first step of this one belong to the run."""
        for line in lines:
            row = self._row(line)
            if row is None or row.step is None or self._metric not in row.values:
                continue
            while self._earlier and self._earlier[-1][0] >= row.step:
                self._earlier.pop()  # of an attempt before, which was lost after its checkpoint
            self._earlier.append((row.step, row.values[self._metric]))
        self.problem = None

    def _row(self, line: bytes) -> Row | None:
        return self._json_row(line) if self._patterns is None else self._patterns.row(line)

    def rows(self, lines: Sequence[bytes]) -> Iterator[Row]:
        """The row of each line that has numbers, with the metric replaced by the score so far."""
        for line in lines:
            row = self._row(line)
            if row is None or not row.values:
                continue
            self._lines += 1
            values = row.values
            if self._patterns is not None:
                values = {**self.last, **values}
            self.last = values
            if not self.names.keys() >= values.keys():
                self.names.update(dict.fromkeys(values))
            if self._metric in row.values:
                for step, value in self._earlier:
                    if row.step is not None and step < row.step:
                        self._take.add(value)
                self._earlier.clear()
                self._take.add(row.values[self._metric])
                self.scored = values = {**values, self._metric: self._take.value}
            row.values = values
            if row.step is not None:
                self._step = row.step
            elif self._step is not None and self._metric in values:  # validation between lines of training
                row.step = self._step
            else:
                row.step = float(self._lines)
            yield row

    def _json_row(self, line: bytes) -> Row | None:
        if line is TOO_LONG:
            self.problem = self.problem or f"a line is longer than {LONGEST_LINE:,} bytes, so it is not read"
            return None
        data = parse_line(line)
        if data is None:
            if self._leaf in line:
                self.problem = refusal(line, None, self._metric) or self.problem
            return None
        row = row_of(data)
        if (value := written_out(data, self._metric)) is not None:
            row.values[self._metric] = value
            return row
        if self._metric not in row.values or sum(map(line.count, self._quoted)) > 1:
            problem = refusal(line, data, self._metric) if self._leaf in line else None
            if problem is not None:
                self.problem = problem
                row.values.pop(self._metric, None)
        return row


class FileReader:
    """The metrics in files.

    Args:
        files: the files to read.
        metric, take: as for `LineReader`.
        watched: the metrics whose rows are reported while the program runs.
        counted: whether the step is the count of these metrics' values in a W&B run, as in W&B's own iterations,
            regardless of the steps that the program logs.

    Attributes:
        names: every name that had a number, by file.
    """

    def __init__(
        self, files: MetricFiles, metric: str, take: MakeTake, watched: set[str], counted: bool = False
    ) -> None:
        self.files = files
        self.names: dict[Path, dict[str, None]] = {}
        self._metric = metric
        self._watched = watched
        self._counted = counted
        self._make_take = take
        self._take = take()
        self._source: tuple[str, Path] | None = None
        self._step = 0.0
        self._last: dict[Path, dict[str, float]] = {}
        self._series: dict[Path, list[tuple[float, float]]] = {}
        self._kinds: dict[Path, str] = {}

    @property
    def folder(self) -> Path | None:
        """The folder of the file that rows come from."""
        return None if self._source is None else self._source[1]

    def rows(self) -> Iterator[Row]:
        """New rows with a watched metric, from the first source in which it appeared, in the order of their steps.

        A row whose step is earlier than one already returned counts for the score, but is not returned.
        """
        found = [(file, row) for file, rows in self.files.look() for row in self._kept(file, rows)]
        if self._source is None:
            having = [file for file, row in found if self._watched & row.values.keys()]
            if not having:
                return
            first = min(having, key=lambda file: list(KINDS).index(file.kind))
            self._source = first.kind, first.path.parent
        chosen = [(file, row) for file, row in found if (file.kind, file.path.parent) == self._source]
        values: dict[str, float] = {}
        for _, row in sorted(chosen, key=self._order):
            values.update(row.values)
            if self._metric in row.values:
                self._take.add(row.values[self._metric])
                values[self._metric] = self._take.value
            if not self._watched & row.values.keys():
                continue
            step = self._step + (STEP in row.values) if self._counted else row.step or 0.0
            if step >= self._step:
                self._step = step
                yield Row(dict(values), step if self._counted else row.step, row.total)

    def _order(self, found: tuple[MetricFile, Row]) -> float:
        return 0.0 if self._counted else found[1].step or 0.0

    def _kept(self, file: MetricFile, rows: Sequence[Row]) -> Sequence[Row]:
        """Record the metrics of a file."""
        self._kinds[file.path] = file.kind
        names, last = self.names.setdefault(file.path, {}), self._last.setdefault(file.path, {})
        series = self._series.setdefault(file.path, [])
        for row in rows:
            names.update(dict.fromkeys(row.values))
            last.update(row.values)
            if self._metric in row.values:
                step = float(len(series)) if row.step is None else row.step
                step = max(step, series[-1][0]) if series else step  # steps may begin again in each epoch
                series.append((step, row.values[self._metric]))
        return rows

    def sources(self) -> list[list[Path]]:
        """The files with the metric, of the first kind that has it: a list for each folder."""
        having = [path for path, series in self._series.items() if series]
        kind = min((self._kinds[path] for path in having), key=list(KINDS).index, default=None)
        folders: dict[Path, list[Path]] = {}
        for path in having:
            if self._kinds[path] == kind:
                folders.setdefault(path.parent, []).append(path)
        return list(folders.values())

    def result(self, files: Sequence[Path]) -> dict[str, float]:
        """The last value of each metric in files of one folder, with the score, computed in the order of steps."""
        take = self._make_take()
        for _, value in sorted((each for path in files for each in self._series[path]), key=lambda each: each[0]):
            take.add(value)
        values = {name: value for path in files for name, value in self._last[path].items()}
        return {**values, self._metric: take.value}
