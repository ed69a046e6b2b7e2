"""Many workers whose trials sleep: measures the idle time of slots, and the cost of the driver.

uv run python -m benchmarks.scale.sleep --workers 64 --trials 512 --mean-seconds 60
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

from benchmarks.scale.simulate import idle_share
from benchmarks.scale.sweeps import Clock, sweep_sleepers
from metta.sweep.executor import ExecutorName, open_executor
from metta.sweep.executor.protocol import Executor, Finished
from metta.sweep.trial import Report, TrialSpec


class _Watched:
    """An executor, with the times at which trials were submitted and ended.

    A trial's slot is busy while it sleeps, for the time in its result; the time before and after is idle time.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        self.slots, self.resources = inner.slots, inner.resources
        self.started: list[float] = []
        self.ended: list[float] = []

    def submit(self, spec: TrialSpec, report: Report) -> None:
        self._inner.submit(spec, report)

    def wait(self, timeout: float | None = None) -> Finished | None:
        finished = self._inner.wait(timeout)
        if finished is not None and finished.result is not None:
            self.ended.append(time.monotonic())
            self.started.append(self.ended[-1] - finished.result.cost)
        return finished

    def cancel(self, number: int) -> None:
        self._inner.cancel(number)

    def close(self) -> None:
        self._inner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--mean-seconds", type=float, default=60.0, help="of a trial")
    parser.add_argument("--random", action="store_true", help="no model: Protein's random suggestions only")
    arguments = parser.parse_args()

    executor = _Watched(open_executor(cast(ExecutorName, arguments.executor), arguments.workers))
    clock, wall, cpu = Clock(), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        sweep_sleepers(Path(folder), executor, arguments.trials, arguments.mean_seconds, not arguments.random, clock)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    idle = idle_share(sorted(executor.started), executor.ended, arguments.workers)
    suggest = clock.calls["suggest"]
    print(
        f"{arguments.executor}: {arguments.workers} workers, {arguments.trials} trials of {arguments.mean_seconds:g} s"
    )
    print(f"  {wall:.0f} s in total; slots idle {idle:.2%} between the first time all were taken and the last start")
    print(f"  driver without suggest: {(cpu - clock.cpu['suggest']) / wall:.2%} of a core")
    print(
        f"  suggest: {clock.cpu['suggest'] / wall:.2%} of a core; "
        f"median {1e3 * statistics.median(suggest):.0f} ms, longest {1e3 * max(suggest):.0f} ms"
    )


if __name__ == "__main__":
    main()
