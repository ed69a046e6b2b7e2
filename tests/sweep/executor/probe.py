"""A trial for the tests of executors: quick, and able to wait, to die, and to tell where it ran."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from metta.common.config import Config
from metta.sweep.trial import Progress, Report, TrialResult, TrialSpec

TOOL_CLASS = "tests.sweep.executor.probe:Probe"


class Probe(Config):
    """Scores x, and does what it is asked to.

    Attributes:
        x: the score; a negative one raises.
        wait_for: a path, below the run's folder if it is relative; progress is reported until it exists, or until the
            answer is to stop.
        kill_by: a signal to end the process by, in each of the first `kills` attempts.
        children: processes to start, which sleep; every other one in a session of its own, as torchrun's are.
    """

    x: float = 0.5
    wait_for: str = ""
    kill_by: int = 0
    kills: int = 1
    children: int = 0

    @classmethod
    def run_trial(cls, spec: TrialSpec, report: Report) -> TrialResult:
        return cls.model_validate(spec.tool).run(Path(spec.run_dir), spec.attempt, report)

    def run(self, folder: Path, attempt: int, report: Report) -> TrialResult:
        print(f"x is {self.x}")
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        children = [subprocess.Popen(sleep, start_new_session=index % 2 == 0) for index in range(self.children)]
        write(folder / f"pids.{attempt}", " ".join(str(pid) for pid in [os.getpid(), *(c.pid for c in children)]))
        step, go_on = 0, True
        while step < 3 or (go_on and self.wait_for and not (folder / self.wait_for).exists()):
            step += 1
            go_on = report(Progress(step, None, step * 0.01, {"score": self.x}))
            time.sleep(0.01)
        if self.kill_by and attempt <= self.kills:
            os.kill(os.getpid(), self.kill_by)
            time.sleep(60)
        if self.x < 0:
            raise RuntimeError(f"x is {self.x}")
        metrics = {
            "score": self.x,
            "infinite": math.inf,
            "pid": os.getpid(),
            "threads": int(os.environ["OMP_NUM_THREADS"]),
            "ignores_interrupts": _ignores_interrupts(),
        }
        return TrialResult(
            metrics, cost=1.0, artefacts={"gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}, stopped=not go_on
        )


def _ignores_interrupts() -> bool:
    held = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    return held or signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def write(path: Path, text: str = "") -> None:
    """Write a file that is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(f"{path.suffix}.new").write_text(text)
    path.with_suffix(f"{path.suffix}.new").rename(path)
