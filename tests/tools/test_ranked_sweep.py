import os
import subprocess
import sys
from pathlib import Path

from metta.sweep.store import open_store
from metta.sweep.trial import TrialState

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "./tools/run.py"]


def test_a_whole_sweep_under_torchrun(tmp_path: Path) -> None:
    sweep = ["tests.support.failing_rank.failing_sweep", "--args", "sweep_name=ranked", "--overrides", "seed=1"]
    environment = {**os.environ, "METTA_DATA_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*TORCHRUN, *sweep], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "on 2 ranks together" in done.stdout
    store = open_store(f"sqlite:///{tmp_path}/sweeps.db")
    try:
        first, second, third = store.trials("ranked")
    finally:
        store.close()
    for trial in (first, third):
        assert trial.state is TrialState.COMPLETED, trial.error
        assert trial.metrics["num_ranks"] == 2
        assert trial.metrics["agent_steps"] == 3 * 1_024
        assert trial.score == trial.metrics["small"]
    assert second.state is TrialState.FAILED
    assert second.attempts == 1
    assert "rank 1 failed" in (second.error or "")
    assert "ValueError: no more ore" in (second.error or "")
