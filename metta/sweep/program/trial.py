"""Run one trial of a program."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from metta.common.errors import nearest
from metta.sweep.program.call import Call, Program, read_metrics
from metta.sweep.program.process import Ending, run_process
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec
from metta.sweep.wandb.run_file import read_summary, run_files

TAIL_LINES = 20


class CommandTrial:
    """A trial that is a program's run."""

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        """Run one attempt; see `metta.sweep.trial.RunTrial`."""
        run_dir = Path(spec.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        program = Program.model_validate(spec.tool["program"])
        call = Call(program, spec.tool["params"], spec.tool["seed"], spec.number, run_dir)
        return _Run(call, spec.tool["metric"], spec.tool["timeout"], report).result()


class _Run:
    def __init__(self, call: Call, metric: str, timeout: float | None, report: Report) -> None:
        self._call = call
        self._metric = metric
        self._timeout = timeout
        self._report = report
        self._started = time.monotonic()
        self._lines = 0
        self._last: dict[str, float] = {}
        self._scored: dict[str, float] = {}
        self._old_runs = run_files(call.run_dir)

    def result(self) -> TrialResult:
        call = self._call
        file = self._metrics_file()
        if file is not None:
            file.unlink(missing_ok=True)
        errors = call.run_dir / "stderr.log"
        before = errors.stat().st_size if errors.exists() else 0
        command, environment = call.command(), call.environment(os.environ)
        end = run_process(command, environment, call.run_dir / "stdout.log", errors, self._read_line, self._timeout)
        if end.ending is Ending.TIMED_OUT:
            error = f"it ran longer than trial_timeout={self._timeout:g} seconds and was ended"
            return TrialResult(self._scored or self._last, end.seconds, error=error)
        if end.ending is Ending.STOPPED:
            return TrialResult(self._scored or self._last, end.seconds, stopped=True)
        if end.status != 0:
            error = f"{end.describe()}; its errors are in {errors}\n{_tail(errors, before)}".rstrip()
            return TrialResult(self._scored or self._last, end.seconds, error=error)
        metrics, where = self._final(file)
        if self._metric in metrics:
            return TrialResult(metrics, end.seconds)
        problem = f"{where} has no number {self._metric!r}; {nearest(self._metric, metrics)}" if metrics else where
        return TrialResult(metrics, end.seconds, error=problem)

    def _read_line(self, line: bytes) -> bool:
        """Read a line of output. A JSON object is progress."""
        metrics = _parse(line)
        if not metrics:
            return True
        self._last = metrics
        if self._metric in metrics:
            self._scored = metrics
        self._lines += 1
        step = metrics.get("step", float(self._lines))
        seconds = time.monotonic() - self._started
        return self._report(Progress(int(step) if abs(step) < 2**62 else self._lines, None, seconds, metrics))

    def _metrics_file(self) -> Path | None:
        where = self._call.program.metrics
        return None if where in ("stdout", "wandb") else Path(self._call.fill(where))

    def _final(self, file: Path | None) -> tuple[dict[str, float], str]:
        """The metrics at the end, and where they were found, or why there are none."""
        if file is not None:
            metrics = _file_metrics(file)
            return metrics, f"the file {file}" if metrics else f"the program wrote no JSON object to {file}"
        if self._call.program.metrics == "wandb":
            runs = run_files(self._call.run_dir) - self._old_runs
            if not runs:
                where = self._call.run_dir / "wandb"
                return {}, f"the program left no W&B run in {where}: did it call wandb.init, or is WANDB_MODE=disabled?"
            metrics = read_metrics(read_summary(max(runs, key=lambda path: path.stat().st_mtime)))
            return metrics, "its W&B summary" if metrics else "its W&B summary is empty"
        if self._last:
            return self._scored or self._last, "the last line of JSON in its output"
        return {}, f"no line of its output is a JSON object; one with {self._metric!r} is expected"


def _parse(line: bytes) -> dict[str, float]:
    """The numbers of a line that is a JSON object; nothing for any other line."""
    if not line.lstrip().startswith(b"{"):
        return {}
    try:
        return read_metrics(json.loads(line))
    except (ValueError, RecursionError):
        return {}


def _file_metrics(file: Path) -> dict[str, float]:
    """The metrics in a file of JSON, or in the last line of one of JSON lines."""
    if not file.exists():
        return {}
    data = file.read_bytes()
    whole = _parse(data.replace(b"\n", b" "))
    return whole or next((metrics for line in reversed(data.splitlines()) if (metrics := _parse(line))), {})


def _tail(path: Path, start: int) -> str:
    """The last lines that were written to a file from byte `start` on."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(start, size - 64_000))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-TAIL_LINES:])
