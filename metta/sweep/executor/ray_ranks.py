"""One trial in several ranks on Ray, on one node or several: the configuration of Ray Train, and how ranks fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metta.sweep.trial import TrialResult, TrialSpec, lost_a_peer

COLLECTIVE_SECONDS = 300
"""How long a rank waits for the others before the attempt fails."""


@dataclass(frozen=True)
class RankResources:
    """The ranks of each trial.

    Attributes:
        number: the number of ranks.
        cpus: CPUs of each rank.
        gpus: GPUs of each rank, 0 or 1.
    """

    number: int
    cpus: int
    gpus: int


def trainer(
    work: Callable[[dict[str, Any]], None], config: dict[str, Any], ranks: RankResources, spec: TrialSpec
) -> Any:
    """Ray's trainer. Its `fit` runs `work(config)` on every rank within one torch process group that Ray creates."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig("cpu:gloo,cuda:nccl" if ranks.gpus else "gloo", timeout_s=COLLECTIVE_SECONDS),
        scaling_config=ScalingConfig(
            num_workers=ranks.number,
            use_gpu=ranks.gpus > 0,
            resources_per_worker={"CPU": ranks.cpus, "GPU": ranks.gpus},
        ),
        run_config=RunConfig(
            storage_path=str(Path(spec.run_dir) / "ray"), failure_config=FailureConfig(max_failures=0)
        ),
    )


def first_failure(results: Mapping[int, TrialResult]) -> TrialResult | None:
    """The result of a rank that failed on its own, not because another one was lost; None if none did."""
    for rank, result in sorted(results.items()):
        if result.error and not lost_a_peer(result.error):
            return TrialResult(metrics={}, cost=result.cost, error=f"rank {rank} failed:\n{result.error}")
    return None
