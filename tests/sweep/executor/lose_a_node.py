"""Run a sweep on a Ray cluster of two nodes and kill one of them in its middle; then kill the head. Print what happens.

python -m tests.sweep.executor.lose_a_node FOLDER
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback only
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "2"}  # else 15 s

from ray.cluster_utils import Cluster

from metta.sweep.executor.ray import ClusterLostError, RayExecutor
from metta.sweep.store import open_store
from tests.sweep.executor.probe import write
from tests.sweep.executor.trials import (
    PATIENCE_SECONDS,
    alive,
    drive,
    go_on,
    next_finished,
    pids,
    probe,
    probe_definition,
    until,
)


def main(folder: Path) -> None:
    small: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "wait": False, **small})
    node = cluster.add_node(num_cpus=1, wait=False, **small)
    cluster.wait_for_nodes(PATIENCE_SECONDS)

    def kill_a_node() -> None:
        until(lambda: len(pids(folder)) == 2)
        node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        until(lambda: sum(alive(pid) for pid in pids(folder)) == 1)
        write(folder / "end")

    threading.Thread(target=kill_a_node, daemon=True).start()
    definition = probe_definition(4, wait_for=str(folder / "end"))
    store = open_store(f"sqlite:///{folder / 'sweeps.db'}")
    with closing(store), closing(RayExecutor(address=cluster.address)) as executor:
        print(executor.slots, "at once")
        for trial in drive(store, definition, executor, folder):
            print(trial.state, trial.attempts)
        until(lambda: executor.slots == 1)
        print(executor.slots, "at once")
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        try:
            executor.submit(probe(4, folder), go_on)
            next_finished(executor)
        except ClusterLostError as error:
            print(error)
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
