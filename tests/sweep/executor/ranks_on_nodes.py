"""Run trials of two ranks on a Ray cluster whose two nodes have room for one rank each, and print how each ended.

python -m tests.sweep.executor.ranks_on_nodes FOLDER
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback only
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"

from ray.cluster_utils import Cluster

from metta.sweep.executor.ray import RayExecutor
from metta.sweep.trial import TrialSpec
from tests.support.small_sweep import small_train
from tests.sweep.executor.trials import PATIENCE_SECONDS


def main(folder: Path) -> None:
    small: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "wait": False, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=1, wait=False, **small)
    cluster.wait_for_nodes(PATIENCE_SECONDS)
    tool = small_train("ranked").model_dump(mode="json")
    with closing(RayExecutor(address=cluster.address, ranks_per_trial=2)) as executor:
        print(executor.slots, "at once,", executor.resources.partition(", ")[2])
        for number in (1, 0):  # the first fails on its second rank
            spec = TrialSpec(number, 1, "tests.support.failing_rank:FailingRank", tool, [], str(folder / str(number)))
            executor.submit(spec, lambda progress: True)
            finished = executor.wait()
            assert finished is not None
            assert finished.result is not None, finished.lost
            metrics, error = finished.result.metrics, finished.result.error
            if error:
                print(error.partition("\n")[0], error.strip().rpartition("\n")[2])
            else:
                print(f"{metrics['num_ranks']:g} ranks, {metrics['agent_steps']:g} steps, {'small' in metrics}")
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
