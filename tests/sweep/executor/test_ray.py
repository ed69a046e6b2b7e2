"""Ray: a cluster that loses a node in mid-sweep, and what is left when a driver is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from metta.common.errors import UserError
from metta.sweep.executor import RayOptions, open_executor
from metta.sweep.executor.ray import RayExecutor, _code_for_nodes
from tests.support.processes import command_line, descendants
from tests.sweep.executor.trials import alive, pids, until

ROOT = Path(__file__).parents[3]
LISTEN, LOOPBACK = "0A", "0100007F"
"""A TCP state, and 127.0.0.1, as /proc/net writes them."""


def test_a_node_that_dies_loses_its_trial_alone_and_a_head_that_dies_stops_the_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.sweep.executor.lose_a_node", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr

    before, *trials, after, lost = [line for line in done.stdout.splitlines() if line]
    assert (before, after) == ("2 at once", "1 at once")
    assert sorted(trials) == ["completed 1", "completed 1", "completed 1", "completed 2"]
    assert "no longer answers, so the sweep stops; once Ray runs again, the same command continues it" in lost


DRIVER = """
import subprocess, sys
from pathlib import Path
from metta.sweep.executor.ray import RayExecutor, _code_for_nodes
from tests.sweep.executor.trials import go_on, probe
executor = RayExecutor(num_workers=1)
executor.submit(probe(0, Path(sys.argv[1]), wait_for="never"), go_on)
executor.wait()
"""


def test_a_local_ray_listens_on_loopback_and_ends_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], cwd=ROOT)
    until(lambda: pids(tmp_path))
    ray = descendants(driver.pid)
    listening = [address for pid in ray for address in _listening(pid)]
    # Two of Ray's processes try for a minute to report to Ray that the others have ended.
    agents = [pid for pid in ray if "Agent" in command_line(pid)]
    driver.kill()
    driver.wait()

    assert len(ray) - len(agents) > 3
    assert listening
    assert all(address.endswith(LOOPBACK) for address in listening), listening
    until(lambda: not any(alive(pid) for pid in {*ray, *pids(tmp_path)} - {*agents}))
    for pid in agents:
        os.kill(pid, signal.SIGKILL)


def test_a_cluster_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"ray\.address=127\.0\.0\.1:1"):
        _ = RayExecutor(address="127.0.0.1:1").slots


def test_a_cluster_gets_the_whole_package_and_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    for name in ("wandb/run", "train.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    code = _code_for_nodes()
    assert _packed(code["working_dir"], code["excludes"], tmp_path / "work.zip") == {"train.py"}
    package = Path(code["py_modules"][0])
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert modules <= _packed(str(package), code["excludes"], tmp_path / "package.zip")


def _packed(folder: str, excludes: list[str], path: Path) -> set[str]:
    """What Ray sends of a folder."""
    create_package(folder, path, include_gitignore=True, excludes=excludes)
    with zipfile.ZipFile(path) as package:
        return {name for name in package.namelist() if not name.endswith("/")} - {path.name}


def test_ray_is_chosen_by_its_address() -> None:
    executor = open_executor(num_workers=3, ray=RayOptions(address="auto"), gpus_per_trial=0.5)
    assert isinstance(executor, RayExecutor)
    assert executor.slots == 3
    assert executor.resources == "Ray at auto, 3 trials at once, 1 CPU and 0.5 GPUs each"


def _listening(pid: int) -> list[str]:
    """The addresses that a process listens on, as /proc/net writes them."""
    sockets = {
        fields[9]: fields[1].partition(":")[0]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == LISTEN
    }
    try:
        open_files = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended, or closed one just now
        return []
    return [address for inode, address in sockets.items() if f"socket:[{inode}]" in open_files]
