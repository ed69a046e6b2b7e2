import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import active_children

import numpy as np
import pytest

from metta.rl.environment import Buffers, Environment, EnvironmentSpec
from metta.rl.vector_environment import VectorEnvironment
from metta.rl.worker_pool import WorkerError
from tests.rl.small import small_env


def play(num_workers: int, steps: int = 25) -> list[np.ndarray]:
    """All outputs of three environments under the same actions, and how many episodes ended."""
    generator = np.random.default_rng(0)
    seen: list[np.ndarray] = []
    with VectorEnvironment(small_env(), num_environments=3, num_workers=num_workers, seed=[1]) as environments:
        arrays = environments.arrays
        for _ in range(steps):
            ended = sum(len(environments.receive(group)) for group in environments.groups)
            seen += [arrays.observations.copy(), arrays.rewards.copy(), np.array(ended)]
            seen += [arrays.truncations.copy(), arrays.terminals.copy()]
            arrays.actions[:] = generator.integers(0, 5, size=arrays.actions.shape)
            for group in environments.groups:
                environments.send(group)
    return seen


def test_the_number_of_workers_changes_nothing() -> None:
    alone, together = play(num_workers=0), play(num_workers=2)
    assert all(np.array_equal(left, right) for left, right in zip(alone, together, strict=True))


def test_an_episode_is_followed_by_another_and_its_last_observations_are_kept() -> None:
    config = small_env(num_agents=1, max_steps=4)
    config.desync_episodes = False
    replay = Environment(config, Buffers.allocate(EnvironmentSpec.of(config)))
    replay.reset(int(np.random.SeedSequence([7, 0, 0, 0]).generate_state(1)[0]) >> 1)
    for _ in range(4):
        replay.step()

    with VectorEnvironment(config, num_environments=1, num_workers=0, seed=[7]) as environments:
        (group,) = environments.groups
        for step in range(5):
            stats = environments.receive(group)
            assert environments.arrays.truncations.all() == (step == 4)
            if step == 4:
                assert np.array_equal(environments.arrays.final_observations[0], replay.buffers.observations)
                assert not np.array_equal(environments.arrays.observations[0], replay.buffers.observations)
                assert [episode["episode_length"] for episode in stats] == [4]
            environments.send(group)


def test_first_episodes_are_cut_to_different_lengths_and_not_counted() -> None:
    with VectorEnvironment(small_env(max_steps=20), num_environments=4, num_workers=0, seed=[0]) as environments:
        ends: list[list[int]] = [[] for _ in range(4)]
        lengths: list[float] = []
        for step in range(41):
            for group in environments.groups:
                lengths += [episode["episode_length"] for episode in environments.receive(group)]
                for index in range(group.start, group.stop):
                    if step and environments.arrays.truncations[index].all():
                        ends[index].append(step)
                environments.send(group)
    assert ends == [[5, 25], [10, 30], [15, 35], [20, 40]]
    assert set(lengths) == {20.0}


def test_an_error_in_a_worker_is_raised_here() -> None:
    config = small_env(num_agents=2)
    config.game.map_builder.agents = 1  # type: ignore[attr-defined]
    with (
        VectorEnvironment(config, num_environments=2, num_workers=1, seed=[0]) as environments,
        pytest.raises(WorkerError, match="exceeds available spawn points"),
    ):
        environments.receive(environments.groups[0])


def test_a_killed_worker_is_noticed() -> None:
    with VectorEnvironment(small_env(), num_environments=2, num_workers=1, seed=[0]) as environments:
        for group in environments.groups:
            environments.receive(group)
        (worker,) = (child for child in active_children() if child.name.startswith("environments-"))
        worker.kill()
        with pytest.raises(WorkerError, match="SIGKILL"):
            _step(environments)


SCRIPT = """
    from multiprocessing import active_children

    from metta.rl.vector_environment import VectorEnvironment
    from tests.rl.small import small_env

    if __name__ == "__main__":
        with VectorEnvironment(small_env(), num_environments=2, num_workers=2, seed=[0]) as environments:
            try:
                for group in environments.groups:
                    environments.receive(group)
                print(*[worker.pid for worker in active_children()], flush=True)
                while True:
                    for group in environments.groups:
                        environments.send(group)
                        environments.receive(group)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(how: signal.Signals, tmp_path: os.PathLike[str]) -> None:
    script = os.path.join(tmp_path, "script.py")
    with open(script, "w") as file:
        file.write(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # what a terminal does on Ctrl-C
    else:
        os.kill(process.pid, how)
    output, errors = process.communicate(timeout=120)
    assert ("interrupted" in output) == (how is signal.SIGINT)
    assert "Traceback" not in errors
    deadline = time.monotonic() + 120
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.05)


def _step(environments: VectorEnvironment) -> None:
    for group in environments.groups:
        environments.send(group)
        environments.receive(group)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
