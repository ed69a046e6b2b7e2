"""The cost of a sweep's live view: the share of one core for redraws while trials report continuously.

uv run python benchmarks/scale/live_view.py
"""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime

from rich.console import Console

from metta.sweep.definition import SweepDefinition
from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.report.terminal.console import ConsoleView
from metta.sweep.state import SweepState
from metta.sweep.store.protocol import Attempt, SweepRecord
from metta.sweep.trial import Progress, Trial, TrialState

TRIALS, RUNNING, SECONDS, REPORTS_PER_SECOND = 5_000, 8, 20.0, 20


def main() -> None:
    paths = [f"trainer.parameter_{index}" for index in range(6)]
    ranges = {path: ParameterConfig(min=0.0, max=1.0, distribution="uniform") for path in paths}
    definition = SweepDefinition(
        protein=ProteinConfig(metric="score", parameters=ranges), num_trials=TRIALS + RUNNING, tool_class="", tool={}
    )
    now = datetime.now(UTC)
    trials = [
        Trial(n, TrialState.COMPLETED, dict.fromkeys(paths, 0.5), score=n % 97 / 97, cost=1.0 + n % 89, ended_at=now)
        for n in range(TRIALS)
    ]
    state = SweepState.of(SweepRecord("s", definition.model_dump(mode="json"), None, now), definition, trials)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    with ConsoleView(console, lambda metrics: "", state) as view:
        for number in range(TRIALS, TRIALS + RUNNING):
            view.started(Attempt("s", number, 1, "", {}, {"source": "random"}))
        start, busy = time.monotonic(), time.process_time()
        step = 0
        while time.monotonic() - start < SECONDS:
            step += 1
            for number in range(TRIALS, TRIALS + RUNNING):
                view.progressed(number, Progress(step, 10_000, 1.0 + step, {"score": 0.5, "steps_per_second": 1e4}))
            time.sleep(1 / REPORTS_PER_SECOND)
        used = (time.process_time() - busy) / (time.monotonic() - start)
    print(f"{used:.2%} of a core, with {RUNNING} trials that report {REPORTS_PER_SECOND} times a second each")


if __name__ == "__main__":
    main()
