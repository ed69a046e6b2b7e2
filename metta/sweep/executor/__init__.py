"""Where trials run: in this process, in worker processes, or on Ray. `open_executor` makes an `Executor`."""

from __future__ import annotations

from typing import Literal

from metta.common.errors import UserError
from metta.sweep.executor.protocol import Executor

__all__ = ["ExecutorName", "open_executor"]

ExecutorName = Literal["inline", "local", "ray"]


def open_executor(
    name: ExecutorName | None = None,
    num_workers: int | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    ray_address: str | None = None,
    ranks_per_trial: int = 1,
) -> Executor:
    """Choose where trials run. Nothing is started before the first trial is.

    Args:
        name: left out, "ray" with an address, else "local" for more than one worker, else "inline".
        num_workers: trials at once; left out, one inline, and elsewhere as many as the resources allow.
        cpus_per_trial: CPU threads of each trial; left out, the machine's cores divided by the workers, or one on a
            Ray cluster.
        gpus_per_trial: GPUs of each trial, a fraction or a whole number; left out, one where there are GPUs.
        ray_address: of a Ray cluster; left out, Ray is started on this machine.
        ranks_per_trial: processes that train each trial together on Ray, on one node or several.

    Raises:
        UserError: settings that contradict each other, or that this machine cannot meet.
    """
    if name is None:
        name = "ray" if ray_address is not None else "local" if (num_workers or 1) > 1 else "inline"
    if ray_address is not None and name != "ray":
        raise UserError(f"ray_address={ray_address}: executor={name} does not use Ray; give executor=ray")
    if ranks_per_trial > 1 and name != "ray":
        raise UserError(
            f"ranks_per_trial={ranks_per_trial}: executor={name} leaves ranks to the trial; "
            f"give train_overrides.trainer.num_ranks={ranks_per_trial}"
        )
    if name == "inline":
        from metta.sweep.executor.inline import InlineExecutor

        if (num_workers or 1) > 1:
            raise UserError(f"num_workers={num_workers}: executor=inline runs one trial at a time; give executor=local")
        for setting, value in {"cpus_per_trial": cpus_per_trial, "gpus_per_trial": gpus_per_trial}.items():
            if value is not None:
                raise UserError(f"{setting}={value:g}: executor=inline divides nothing; give executor=local")
        return InlineExecutor()
    if name == "local":
        from metta.sweep.executor.local import LocalExecutor
        from metta.sweep.executor.resources import divide, this_machine

        return LocalExecutor(divide(this_machine(), num_workers, cpus_per_trial, gpus_per_trial))
    from metta.sweep.executor.ray import RayExecutor

    return RayExecutor(num_workers, cpus_per_trial, gpus_per_trial, ray_address, ranks_per_trial)
