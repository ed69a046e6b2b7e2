"""Writing the metrics of a training run as JSON lines or for TensorBoard."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from metta.common.distribution import install_command
from metta.common.errors import UserError

LogFormat = Literal["none", "jsonl", "tensorboard", "wandb"]


class MetricsLog(Protocol):
    """Receives the metrics of a run."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics after `step` agent steps."""
        ...


@contextmanager
def metrics_log(format: LogFormat, folder: Path) -> Iterator[MetricsLog]:
    """Log metrics into a run's folder while the body runs. A resumed run appends to its log.

    Args:
        format: ``jsonl`` writes ``metrics.jsonl``, one object per line with the ``step`` and the metrics;
            ``tensorboard`` writes event files into ``tensorboard/``; others write nothing here.
        folder: the run's folder.

    Raises:
        UserError: the package that writes for TensorBoard is not installed.
    """
    if format == "jsonl":
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "metrics.jsonl").open("a", buffering=1) as file:
            yield _JsonLines(file)
    elif format == "tensorboard":
        require_installed(format)
        from tensorboardX import SummaryWriter

        with SummaryWriter(str(folder / "tensorboard")) as writer:
            yield _TensorBoard(writer)
    else:
        yield _Nowhere()


def require_installed(format: LogFormat) -> None:
    """Check that the packages that a format needs are installed.

    Raises:
        UserError: one is missing; the message says how to install it.
    """
    if format == "tensorboard" and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(f"log=tensorboard: tensorboardX is missing: {install_command('tensorboard')}")


class _Nowhere:
    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        pass


class _JsonLines:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
