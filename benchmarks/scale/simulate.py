"""10,000 trials over 1,000 slots on a virtual clock.

    uv run python -m benchmarks.scale.simulate
    uv run python -m benchmarks.scale.simulate --by-model --real-seconds 300

The loop, the store (SQLite, each transaction synced) and the optimiser are the real ones, and their time also passes on
the virtual clock; only the trials' sleep is skipped. Prints how long slots were idle, and how the driver's time was
spent.
"""

from __future__ import annotations

import argparse
import heapq
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.scale.sleeper import Sleeper
from benchmarks.scale.sweeps import Clock, sweep_sleepers
from metta.sweep.executor.protocol import Finished
from metta.sweep.trial import Report, TrialResult, TrialSpec


class EnoughError(Exception):
    """The simulation has reached its time limit."""


class VirtualExecutor:
    """Trials that take no real time: waiting for one moves the clock to its end.

    Args:
        slots: trials at once.
        real_seconds: how long the whole simulation may take.
    """

    resources = "on a virtual clock"

    def __init__(self, slots: int, real_seconds: float) -> None:
        self.slots = slots
        self._give_up_at = time.monotonic() + real_seconds
        self._skipped = 0.0
        self._ends: list[tuple[float, int, TrialSpec]] = []
        self.started: list[float] = []
        self.ended: list[float] = []

    def now(self) -> float:
        return time.monotonic() + self._skipped

    def submit(self, spec: TrialSpec, report: Report) -> None:
        if time.monotonic() > self._give_up_at:
            raise EnoughError
        seconds = Sleeper.model_validate(spec.tool).seconds(spec.number)
        self.started.append(self.now())
        heapq.heappush(self._ends, (self.started[-1] + seconds, spec.number, spec))

    def wait(self, timeout: float | None = None) -> Finished | None:
        end, _, spec = self._ends[0]
        until = end if timeout is None else min(end, self.now() + timeout)
        self._skipped += max(0.0, until - self.now())
        if self.now() < end:
            return None
        heapq.heappop(self._ends)
        self.ended.append(end)
        tool = Sleeper.model_validate(spec.tool)
        return Finished(spec, TrialResult({"score": tool.score()}, cost=tool.seconds(spec.number)))

    def cancel(self, number: int) -> None:
        self._ends = [item for item in self._ends if item[1] != number]
        heapq.heapify(self._ends)

    def close(self) -> None:
        self._ends.clear()


def idle_share(started: list[float], ended: list[float], slots: int) -> float:
    """Share of slot time without a trial, from the first moment with all slots busy to the start of the last trial."""
    if len(started) <= slots:
        return float("nan")
    first, last = started[slots - 1], started[-1]
    changes = [(at, 1) for at in started] + [(at, -1) for at in ended]
    busy, running, before = 0.0, 0, first
    for at, change in sorted(changes):
        now = min(max(at, first), last)
        busy += running * (now - before)
        running, before = running + change, now
    return 1 - busy / (slots * (last - first))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--mean-seconds", type=float, default=60.0, help="of a trial")
    parser.add_argument("--by-model", action="store_true", help="Protein's model suggests; else its random suggestions")
    parser.add_argument("--real-seconds", type=float, default=1e9, help="stop the simulation after this long")
    arguments = parser.parse_args()

    clock, executor = Clock(), VirtualExecutor(arguments.slots, arguments.real_seconds)
    wall, cpu, start = time.perf_counter(), time.process_time(), executor.now()
    with tempfile.TemporaryDirectory() as folder:
        try:
            sweep_sleepers(Path(folder), executor, arguments.trials, arguments.mean_seconds, arguments.by_model, clock)
        except EnoughError:
            print(f"stopped after {arguments.real_seconds:g} s")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = len(executor.ended)
    span = executor.ended[-1] - start if done else float("nan")
    print(f"{done} trials ended, {len(executor.started)} started, {arguments.slots} slots, in {span:,.0f} virtual s")
    print(f"slots idle {idle_share(executor.started, executor.ended, arguments.slots):.2%} of the time")
    print(f"driver {wall:.1f} s, {1e3 * wall / max(1, done):.1f} ms per trial; of its core {cpu:.1f} s")
    for part, seconds in sorted(clock.wall.items(), key=lambda item: -item[1]):
        calls = clock.calls[part]
        print(
            f"  {part:<20}{seconds:8.1f} s, {seconds / wall:4.0%}, of its core {clock.cpu[part]:.1f} s; "
            f"{len(calls)} calls, median {1e3 * statistics.median(calls):.2f} ms, of the last hundred "
            f"{1e3 * statistics.median(calls[-100:]):.2f} ms"
        )
    rest, rest_cpu = wall - sum(clock.wall.values()), cpu - sum(clock.cpu.values())
    print(f"  {'the rest':<20}{rest:8.1f} s, {rest / wall:4.0%}, of its core {rest_cpu:.1f} s")


if __name__ == "__main__":
    main()
