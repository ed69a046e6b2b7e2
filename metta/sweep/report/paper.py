"""A sweep on paper: one HTML file that holds all it needs, and the plots as PNG files."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from metta.common.errors import UserError
from metta.sweep.report import page, plots
from metta.sweep.state import SweepState

LARGEST_GIF = 1_500_000
"""Bytes of the best trial's animation, for a report to hold it."""

PNG_WIDTH = 1000


def write_report(sweep: SweepState, path: Path) -> None:
    """Write a sweep's report as one HTML file, which opens offline. It appears whole or not at all.

    Raises:
        UserError: plotly is not installed, or the file cannot be written.
    """
    text = report_html(sweep)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(f"the report cannot be written to {path}: {error.strerror}") from None


def report_html(sweep: SweepState) -> str:
    """The report as HTML.

    Raises:
        UserError: plotly is not installed.
    """
    script = f"{page.asset('page.js')}\n{page.asset('report.js')}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    foot = (
        f"Read from {escape(sweep.store_url)} on {sweep.taken_at:%Y-%m-%d at %H:%M} UTC, by Metta Sweep. Run the "
        "commands in the folder in which the sweep was started; paths are relative to it."
    )
    answers = page.answers_html(sweep) + _gif(sweep)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(sweep.record.name)}</title>
<style>{page.asset("style.css")}</style>
</head>
<body>{page.body(sweep.record.name, "", page.facts_html(sweep), answers, foot)}
<script type="application/octet-stream" id="plotly">{_packed(page.plotly_js())}</script>
<script type="application/octet-stream" id="data">{_packed(gzip.compress(_data(sweep), compresslevel=6))}</script>
<script>{script}</script>
</body>
</html>
"""


def _packed(compressed: bytes) -> str:
    return base64.b64encode(compressed).decode()


def _data(sweep: SweepState) -> bytes:
    """What the page's script shows. Every metric and the learning curve are kept of the trials whose curves are."""
    paths = list(sweep.searched)
    data: dict[str, Any] = {
        "progress": page.progress(sweep),
        "first": -sweep.sign,
        "columns": page.columns(sweep),
        "rows": [page.row(trial, paths) for trial in sweep.trials],
        "standing": page.standing(sweep),
        "details": page.details(sweep),
        "failures": page.failures(sweep),
        "plots": page.plot_list(sweep),
        "figures": {name: plot.build(sweep) for name, plot in plots.all_plots(sweep).items()},
        "templates": page.TEMPLATES,
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def _gif(sweep: SweepState) -> str:
    """The best trial's animation, where it made one and the file is here."""
    for trial in [sweep.best] if sweep.best else []:
        for uri in trial.artefacts.values():
            path = Path(unquote(urlsplit(uri).path))
            if uri.startswith("file://") and path.suffix == ".gif" and path.is_file():
                if path.stat().st_size > LARGEST_GIF:
                    return ""
                image = base64.b64encode(path.read_bytes()).decode()
                return (
                    f'<section class="card finding"><h2 class="question">What does it do?</h2>'
                    f'<p class="answer">An episode of trial {trial.number}</p>'
                    f'<img class="gif" alt="an episode" src="data:image/gif;base64,{image}"></section>'
                )
    return ""


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
        raise UserError("PNG files need kaleido; install metta-sweep[dashboard]") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [
            {"fig": figure, "path": str(folder / name), "opts": {"format": "png", "width": PNG_WIDTH, "scale": 2}}
            for name, figure in figures.items()
        ]
        with ThreadPoolExecutor(max_workers=1) as thread:  # a notebook has an event loop of its own in this one
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
    # Without MathJax, which it would otherwise load from the network.
    async with kaleido.Kaleido(mathjax=False) as drawer:
        await drawer.write_fig_from_object(jobs)


def _file_name(plot: str) -> str:
    return re.sub(r"[^\w.-]+", "_", plot.replace(plots.PARAMETER, "parameter_")) + ".png"
