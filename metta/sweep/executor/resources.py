"""Divides this machine's resources among workers."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from metta.common.cores import available_cores
from metta.common.errors import UserError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Machine:
    """A machine to divide.

    Attributes:
        cores: CPU cores that this process may use.
        gpus: the GPUs, as in CUDA_VISIBLE_DEVICES.
    """

    cores: int
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """The resources of one worker.

    Attributes:
        threads: CPU threads.
        gpus: its GPUs, as in CUDA_VISIBLE_DEVICES. Several workers may share one.
    """

    threads: int
    gpus: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the worker, to be set before it imports torch."""
        return thread_variables(self.threads) | {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit numerical libraries to a number of threads."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def this_machine() -> Machine:
    """The cores that this process is bound to, and the GPUs that are visible to it."""
    cores = available_cores()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return Machine(cores, tuple(gpu.strip() for gpu in visible.split(",") if gpu.strip()))
    if shutil.which("nvidia-smi") is None:
        return Machine(cores)
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return Machine(cores, tuple(str(index) for index in range(listed.count("GPU "))))


def divide(
    machine: Machine, num_workers: int | None, cpus_per_trial: int | None, gpus_per_trial: float | None
) -> list[Share]:
    """Divide a machine among workers.

    Args:
        machine: the machine.
        num_workers: the number of workers; by default as many as fit.
        cpus_per_trial: threads of each worker; by default the cores divided by the workers.
        gpus_per_trial: GPUs of each worker, a fraction or a whole number; by default one, shared if there are fewer.

    Raises:
        UserError: the machine does not have enough resources.

    Example:
        >>> divide(Machine(cores=8, gpus=("0", "1")), None, None, 0.5)[2:]
        [Share(threads=2, gpus=('0',)), Share(threads=2, gpus=('1',))]
    """
    places = _gpu_places(machine.gpus, gpus_per_trial)
    if num_workers is None:
        by_cores = machine.cores // (cpus_per_trial or 1)
        num_workers = len(places) if places and cpus_per_trial is None else min(by_cores, len(places) or by_cores)
    if cpus_per_trial is not None and max(1, num_workers) * cpus_per_trial > machine.cores:
        raise UserError(
            f"{max(1, num_workers)} trials at once with cpus_per_trial={cpus_per_trial} need "
            f"{max(1, num_workers) * cpus_per_trial} cores; this machine has {machine.cores}"
        )
    if gpus_per_trial and num_workers > len(places):
        raise UserError(
            f"num_workers={num_workers} with gpus_per_trial={gpus_per_trial:g}: this machine's "
            f"{len(machine.gpus)} GPUs have room for {len(places)}"
        )
    threads = cpus_per_trial or max(1, machine.cores // num_workers)
    return [Share(threads, places[index % len(places)] if places else ()) for index in range(num_workers)]


def check_gpus_per_trial(gpus_per_trial: float | None) -> None:
    """Raise UserError unless it is None, a fraction, or a whole number."""
    if gpus_per_trial is not None and gpus_per_trial > 1 and gpus_per_trial != int(gpus_per_trial):
        raise UserError(f"gpus_per_trial={gpus_per_trial:g}: give a fraction up to 1, or a whole number of GPUs")


def _gpu_places(gpus: tuple[str, ...], gpus_per_trial: float | None) -> list[tuple[str, ...]]:
    """The GPUs of each worker that fits; empty if workers use no GPU. Consecutive workers get different GPUs."""
    check_gpus_per_trial(gpus_per_trial)
    if gpus_per_trial == 0:
        return []
    if gpus_per_trial is None or gpus_per_trial <= 1:
        trials_per_gpu = int(1 / (gpus_per_trial or 1) + 1e-9)
        places: list[tuple[str, ...]] = [(gpu,) for _ in range(trials_per_gpu) for gpu in gpus]
    else:
        size = int(gpus_per_trial)
        places = [gpus[start : start + size] for start in range(0, len(gpus) - size + 1, size)]
    if gpus_per_trial is not None and not places:
        raise UserError(f"gpus_per_trial={gpus_per_trial:g}: this machine has {len(gpus)} GPUs")
    return places
