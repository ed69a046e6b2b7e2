"""A trial's ranks on Ray, without starting Ray; `ranks_on_nodes`, run by hand, uses two nodes."""

from __future__ import annotations

import pytest

from metta.common.errors import UserError
from metta.sweep.executor import RayOptions, open_executor
from metta.sweep.executor.ray_ranks import first_failure
from metta.sweep.trial import TrialResult


def failed(error: str | None) -> TrialResult:
    return TrialResult(metrics={}, cost=1.5, error=error)


def test_the_failure_of_a_trial_is_that_of_the_rank_that_failed_first() -> None:
    lost = failed("Traceback ...\nmetta.sweep.trial.PeerLostError: another rank was lost")
    failure = first_failure({0: lost, 1: failed("ValueError: no more ore"), 2: lost})
    assert failure is not None
    assert failure.error == "rank 1 failed:\nValueError: no more ore"
    assert failure.cost == 1.5


def test_ranks_that_only_lost_others_did_not_fail() -> None:
    lost = failed("metta.sweep.trial.PeerLostError: another rank was lost")
    assert first_failure({0: lost, 1: lost}) is None
    assert first_failure({0: failed(None), 1: failed(None)}) is None


def test_ranks_divide_what_a_trial_takes() -> None:
    ray = RayOptions(address="auto", ranks_per_trial=4)
    executor = open_executor(num_workers=3, ray=ray, cpus_per_trial=8, gpus_per_trial=4)
    assert executor.resources == "Ray at auto, 3 trials at once, 8 CPU and 4 GPUs each, on 4 ranks"
    with pytest.raises(UserError, match=r"cpus_per_trial=6: give a multiple of ray\.ranks_per_trial=4"):
        open_executor(ray=ray, cpus_per_trial=6)
    with pytest.raises(UserError, match="gpus_per_trial=2: each rank has one GPU or none; give 4"):
        open_executor(ray=ray, gpus_per_trial=2)


@pytest.mark.parametrize("name", [None, "local"])
def test_other_executors_leave_ranks_to_the_trial(name: str | None) -> None:
    with pytest.raises(UserError, match=r"does not start ranks"):
        open_executor(name, num_workers=1, ray=RayOptions(ranks_per_trial=2))  # type: ignore[arg-type]
