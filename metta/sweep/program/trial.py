"""Run one trial of a program."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which

from metta.common.data_dir import data_dir
from metta.sweep.analysis.failures import LONGEST_REASON
from metta.sweep.program.call import Call, Program
from metta.sweep.program.errors import ArgumentsRefusedError, MetricMissingError, ProgramNotFoundError
from metta.sweep.program.metrics.files import MetricFiles
from metta.sweep.program.metrics.folder_use import FolderUse
from metta.sweep.program.metrics.missing import ambiguous, missing, shown_path
from metta.sweep.program.metrics.patterns import Patterns
from metta.sweep.program.metrics.plain_text import PlainText
from metta.sweep.program.metrics.reading import FileReader, LineReader
from metta.sweep.program.metrics.row import Row
from metta.sweep.program.metrics.take import Take
from metta.sweep.program.process import Ending, Exit, run_process
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

TAIL_LINES = 20
_TAIL_BYTES = 64_000
_BOX = "│┃╭╮╰╯─━"
EAGER_REPORTS = 1000
"""This many first reports are sent at once, later ones at most once every `REPORT_SECONDS`."""
REPORT_SECONDS = 0.1
_NO_SUCH_COMMAND = 127
_REFUSED = re.compile(
    r"unrecogni[sz]ed (arguments|options)|no such option|unexpected argument|unknown (command line )?(flag|option)"
    r"|not used by the HfArgumentParser|arguments are required|missing option|could not override|could not consume arg"
    r"|error: argument [^:]+: (invalid \w+ value|expected|ignored explicit)|not a valid (integer|float|boolean)"
    r"|Input should be a valid|Expected a <class|Error parsing -|Flags parsing error: .*invalid literal",
    re.IGNORECASE,
)
"""How argparse, tyro, click, absl, Fire, Hydra and Hugging Face refuse a name, or values of another type."""


class CommandTrial:
    """A trial that runs a program."""

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt; see `metta.sweep.trial.RunTrial`.

        An error that does not depend on the hyperparameters begins with the name of its class:
        `ProgramNotFoundError`, `ArgumentsRefusedError` or `MetricMissingError`.
        """
        run_dir = Path(spec.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        program = Program.model_validate(spec.tool["program"])
        call = Call(program, spec.tool["params"], spec.tool["seed"], spec.number, run_dir)
        metric = spec.tool["metric"]
        run = _Run(call, metric, spec.tool.get("watched", metric), spec.tool["timeout"], report)
        try:
            return run.result()
        except (ProgramNotFoundError, ArgumentsRefusedError, MetricMissingError) as error:
            return TrialResult(run.so_far(), run.seconds, error=f"{type(error).__name__}: {error}")
        finally:
            run.end()


class _Run:
    def __init__(self, call: Call, metric: str, watched: str, timeout: float | None, report: Report) -> None:
        call.cwd.mkdir(parents=True, exist_ok=True)
        program = call.program
        self._call = call
        self._metric = metric
        self._timeout = timeout
        self._curve = _Curve(report, call.total)
        self._output = call.run_dir / "stdout.log"
        self._errors = _Log(call.run_dir / "stderr.log")
        self._printed = _Log(self._output)
        self._lines: LineReader | None = None
        self._files: FileReader | None = None
        self._use = FolderUse(call.cwd)
        self.seconds = 0.0

        def take() -> Take:
            return Take(program.take, program.window)

        patterns = Patterns(program.metrics) if isinstance(program.metrics, dict) else None
        if patterns is not None or program.metrics in ("auto", "stdout"):
            self._lines = LineReader(metric, take, patterns)
            if program.take != "last":
                self._lines.resume(self._printed.earlier_lines())
        self._text = PlainText(metric, take()) if program.metrics == "auto" else None
        if program.kinds or program.metrics_path is not None:
            self._files = FileReader(
                self._metric_files(), metric, take, {metric, watched}, counted=program.style == "wandb"
            )

    def _metric_files(self) -> MetricFiles:
        call = self._call
        if (pattern := call.metrics_glob()) is not None:
            return MetricFiles([], [], [pattern])
        run_dir, cwd = call.run_dir.resolve(), call.cwd.resolve()
        folders = [run_dir] if cwd == run_dir or run_dir in cwd.parents else [run_dir, cwd]
        own = [run_dir / name for name in ("hyperparameters.json", "stdout.log", "stderr.log")]
        return MetricFiles(folders, call.program.kinds, passed_over={*own, run_dir.parent, data_dir().resolve()})

    def end(self) -> None:
        self._use.end()

    def result(self) -> TrialResult:
        call = self._call
        command, environment = call.command(), call.environment(os.environ)
        if which(command[0], path=environment.get("PATH")) is None and not (call.cwd / command[0]).is_file():
            raise ProgramNotFoundError(f"there is no program {command[0]!r}")
        end = run_process(command, environment, self._output, self._errors.path, self._read, self._timeout, call.cwd)
        self.seconds = end.seconds
        self._read([], final=True)
        if end.ending is Ending.TIMED_OUT:
            error = f"it ran longer than trial_timeout={self._timeout:g} seconds and was stopped"
            return TrialResult(self.so_far(), end.seconds, error=error)
        if end.ending is Ending.STOPPED:
            return TrialResult(self.so_far(), end.seconds, stopped=True)
        if end.status != 0:
            return TrialResult(self.so_far(), end.seconds, error=self._failure(end))
        return TrialResult(self._measured(), end.seconds)

    def _failure(self, end: Exit) -> str:
        """An error message with the program's exit status and the end of its error output."""
        tail = self._errors.tail()
        error = f"{end.describe()}; its errors are in {self._errors.path}\n{tail}".rstrip()
        if end.status == _NO_SUCH_COMMAND or "can't open file" in tail.rpartition("\n")[2]:
            raise ProgramNotFoundError(error)
        if not self.so_far() and (refused := _refusal(tail)) is not None:
            raise ArgumentsRefusedError(
                f"{error}\n{refused}. Parameters need the names and types of the program's options; its command says "
                "how they are written: ${args} as --lr=0.1 and --flag=true, ${args_no_hyphens} as lr=0.1 (Hydra), "
                "${args_negated_flags} as --flag or --no-flag (tyro)"
            )
        return error

    def _read(self, lines: Sequence[bytes], final: bool = False) -> bool:
        """Read new output and files, and report their metrics. Returns whether to continue."""
        if self._lines is not None:
            self._offer(self._lines.rows(lines))
            if self._text is not None and not self._printed_metric():
                for line in lines:
                    self._text.add(line)
            if isinstance(self._call.program.metrics, dict):
                self._offer(self._lines.rows(self._errors.new_lines(final)))
        if self._files is not None and (final or self._files.files.due) and not self._printed_metric():
            rows = list(self._files.rows())
            if self._files.folder is not None and self._is_own(self._files.folder):
                self._offer(rows)
        if final or not lines:
            self._curve.flush()
        return self._curve.goes_on

    def _offer(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._curve.offer(row)

    def _printed_metric(self) -> bool:
        return self._lines is not None and self._metric in self._lines.scored

    def so_far(self) -> dict[str, float]:
        """The metrics of a run that did not finish."""
        if self._lines is not None and self._lines.last:
            return self._lines.scored or self._lines.last
        folders = self._files.sources() if self._files is not None else []
        if self._files is not None and len(folders) == 1:
            return self._files.result(folders[0])
        return self._text.values if self._text is not None and not folders else {}

    def _measured(self) -> dict[str, float]:
        """The metrics of a whole run."""
        if self._lines is not None and self._printed_metric():
            return self._lines.scored
        folders = self._files.sources() if self._files is not None else []
        if not folders and self._text is not None and self._text.values:
            return self._text.values
        if self._files is None or not folders:
            text = f"{self._printed.tail()}\n{self._errors.tail()}"
            raise MetricMissingError(missing(self._metric, self._lines, self._files, self._where(), text))
        if len(folders) > 1 and all(path.suffix == ".wandb" for files in folders for path in files):
            folders = [max(folders, key=lambda files: files[-1].stat().st_mtime)]  # of the run that ended last
        if len(folders) > 1:
            raise MetricMissingError(ambiguous(self._metric, folders))
        if not self._is_own(folders[0][0].parent):
            raise MetricMissingError(
                f"other programs ran in {self._call.cwd} at the same time, so {shown_path(folders[0][0])} may be "
                "theirs. Write in the sweep's file: cwd: ${run_dir}"
            )
        return self._files.result(folders[0])

    def _is_own(self, folder: Path) -> bool:
        """Whether a folder belongs to this trial alone."""
        run_dir, folder = self._call.run_dir.resolve(), folder.resolve()
        named = self._call.program.metrics_path or ""
        return folder == run_dir or run_dir in folder.parents or "${trial}" in named or self._use.alone

    def _where(self) -> str:
        """A description of the sources that were read."""
        program = self._call.program
        if program.metrics == "stdout":
            return "its output: no line of it is a JSON object"
        if isinstance(program.metrics, dict):
            return "its output: no line of it matches the pattern"
        if (path := program.metrics_path) is not None:
            return f"{self._call.fill(path)}: the program wrote no numbers there"
        if program.metrics == "wandb":
            left = "the program left no W&B run (did it call wandb.init, or is WANDB_MODE=disabled?)"
            return f"{self._call.run_dir}: {left}"
        files = f"no file of {' or '.join(program.kinds)} appeared in {self._call.cwd} or in the trial's folder"
        if program.metrics == "auto":
            return f"its output (no line of it is a JSON object), nor in files: {files}"
        return f"files: {files}"


class _Curve:
    """Reports rows as progress: all of the first ones, later ones at intervals."""

    def __init__(self, report: Report, total: float | None) -> None:
        self._report = report
        self._total = total
        self._started = time.monotonic()
        self._reported_at = -math.inf
        self._count = 0
        self._row: Row | None = None
        self.goes_on = True

    def offer(self, row: Row) -> None:
        self._row = row
        self._count += 1
        if self._count <= EAGER_REPORTS or time.monotonic() - self._reported_at >= REPORT_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Report the last row if it was not reported yet."""
        if self._row is None:
            return
        row, self._row = self._row, None
        self._reported_at = time.monotonic()
        total = self._total if self._total is not None else row.total
        step, seconds = _whole(row.step, self._count), self._reported_at - self._started
        progress = Progress(step, None if total is None else _whole(total, 0) or None, seconds, row.values)
        self.goes_on = self._report(progress) and self.goes_on


def _refusal(errors: str) -> str | None:
    """What a program says with which it refuses its arguments."""
    lines = [line.strip() for line in errors.splitlines()]
    first = next((i for i, line in enumerate(lines) if _REFUSED.search(line)), None)
    return None if first is None else " ".join(lines[first:])[:LONGEST_REASON]


def _whole(value: float | None, otherwise: int) -> int:
    """A step as a whole number if a store can hold it, else `otherwise`."""
    return int(value) if value is not None and abs(value) < 2**62 else otherwise


class _Log:
    """A file that output is appended to, read from its end at the time of creation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = path.stat().st_size if path.exists() else 0
        self._read = self._start

    def earlier_lines(self) -> list[bytes]:
        """What was in the file before."""
        if not self._start:
            return []
        with self.path.open("rb") as file:
            return file.read(self._start).replace(b"\r", b"\n").splitlines()

    def new_lines(self, final: bool = False) -> list[bytes]:
        """The complete lines since the last call; with `final` also a last line without an end."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data if final else data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.replace(b"\r", b"\n").splitlines()

    def tail(self) -> str:
        """The last lines; of drawn boxes only their content."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            file.seek(max(self._start, self.path.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace").replace("\0", "")  # which UTF-16 has between letters
        lines = (line.strip(_BOX).rstrip() for line in text.splitlines())
        return "\n".join([line for line in lines if any(map(str.isalnum, line))][-TAIL_LINES:])
