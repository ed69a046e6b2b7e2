"""The plots of a sweep as PNG files."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.sweep.report import plots
from metta.sweep.state import SweepState

PNG_WIDTH = 1000


def write_images(sweep: SweepState, folder: Path) -> list[Path]:
    """Write every plot as a PNG file, and return their paths.

    Raises:
        UserError: plotly or kaleido is not installed, there is no Chromium or Chrome to draw with, or the folder
            cannot be written.
    """
    figures = {_file_name(name): plot(sweep) for name, plot in plots.all_plots(sweep).items()}
    try:
        import kaleido
        from choreographer.errors import ChromeNotFoundError
    except ImportError:
        raise UserError(f"PNG files need kaleido: {install_command('dashboard')}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            {"fig": figure, "path": str(folder / name), "opts": {"format": "png", "width": PNG_WIDTH, "scale": 2}}
            for name, figure in figures.items()
        ]
        with ThreadPoolExecutor(max_workers=1) as thread:  # in a notebook this thread already runs an event loop
            thread.submit(lambda: asyncio.run(_draw(kaleido, jobs))).result()
    except ChromeNotFoundError:
        raise UserError(
            "PNG files are drawn by Chromium or Chrome, and none was found; install one (such as with "
            "`apt-get install chromium`), or set BROWSER_PATH to where it is"
        ) from None
    except OSError as error:
        raise UserError(f"PNG files cannot be written to {folder}: {error.strerror or error}") from None
    return [folder / name for name in figures]


async def _draw(kaleido: Any, jobs: list[dict[str, Any]]) -> None:
    # Otherwise it would load MathJax from the network.
    async with kaleido.Kaleido(mathjax=False) as drawer:
        await drawer.write_fig_from_object(jobs)


def _file_name(plot: str) -> str:
    return re.sub(r"[^\w.-]+", "_", plot.replace(plots.PARAMETER, "parameter_")) + ".png"
