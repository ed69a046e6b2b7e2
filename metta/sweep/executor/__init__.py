"""Where trials run: in this process, in worker processes, or on Ray. `open_executor` makes an `Executor`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metta.common.config import Config
from metta.common.errors import UserError
from metta.sweep.executor.protocol import Executor

__all__ = ["ExecutorName", "RayOptions", "open_executor"]


class RayOptions(Config):
    """The options of Ray.

    Attributes:
        address: address of a cluster; by default Ray is started on this machine.
        ranks_per_trial: processes that train each trial together, on one node or several; CPUs and GPUs of the trial
            are divided among them.
    """

    address: str | None = None
    ranks_per_trial: int = Field(default=1, ge=1)


ExecutorName = Literal["inline", "local", "ray"]


def open_executor(
    name: ExecutorName | None = None,
    num_workers: int | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    ray: RayOptions | None = None,
) -> Executor:
    """Choose where trials run. Nothing starts before the first trial.

    Args:
        name: "ray", "local" or "inline"; by default "ray" with an address, "local" for several workers, else "inline".
        num_workers: trials at once; by default one inline, and elsewhere as many as the resources allow.
        cpus_per_trial: CPU threads of each trial; by default the machine's cores divided by the workers, or one on a
            Ray cluster.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; by default one if there are GPUs.
        ray: the options of Ray.

    Raises:
        UserError: the settings contradict each other, or this machine cannot meet them.
    """
    ray = ray or RayOptions()
    if name is None:
        name = "ray" if ray.address is not None else "local" if (num_workers or 1) > 1 else "inline"
    if ray.address is not None and name != "ray":
        raise UserError(f"ray.address={ray.address}: executor={name} does not use Ray; give executor=ray")
    if ray.ranks_per_trial > 1 and name != "ray":
        raise UserError(
            f"ray.ranks_per_trial={ray.ranks_per_trial}: executor={name} does not start ranks; "
            "set their number in the Tool, or give executor=ray"
        )
    if name == "inline":
        from metta.sweep.executor.inline import InlineExecutor

        if (num_workers or 1) > 1:
            raise UserError(f"num_workers={num_workers}: executor=inline runs one trial at a time; give executor=local")
        for setting, value in {"cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}.items():
            if value is not None:
                raise UserError(f"{setting}={value:g}: executor=inline does not divide resources; give executor=local")
        return InlineExecutor()
    if name == "local":
        from metta.sweep.executor.local import LocalExecutor
        from metta.sweep.executor.resources import divide, this_machine

        return LocalExecutor(divide(this_machine(), num_workers, cpus_per_trial, gpus_per_trial))
    from metta.sweep.executor.ray import RayExecutor

    return RayExecutor(num_workers, cpus_per_trial, gpus_per_trial, ray.address, ray.ranks_per_trial)
