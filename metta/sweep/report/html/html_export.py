"""A sweep as one HTML file that opens offline."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from metta.common.errors import UserError
from metta.common.files import write_whole
from metta.sweep.report import plots
from metta.sweep.report.html import page
from metta.sweep.retention import artefact_path, require_written_by
from metta.sweep.state import SweepState
from metta.sweep.trial import Trial

LARGEST_GIF = 1_500_000
"""The largest animation of the best trial, in bytes, that a report contains."""


def write_report(sweep: SweepState, path: Path) -> None:
    """Write a sweep's report as one HTML file that opens offline. It is written completely or not at all.

    Raises:
        UserError: plotly is not installed, or the file cannot be written.
    """
    text = report_html(sweep)
    try:
        write_whole(path, text)
    except OSError as error:
        raise UserError(f"the report cannot be written to {path}: {error.strerror}") from None


def report_html(sweep: SweepState) -> str:
    """The report as HTML.

    Raises:
        UserError: plotly is not installed.
    """
    plotly = _packed(page.plotly_js())  # first, because everything else needs it
    script = f"{page.asset('page.js')}\n{page.asset('report.js')}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    footer = (
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
<body>{page.body(sweep.record.name, "", page.facts_html(sweep), answers, footer)}
<script type="application/octet-stream" id="plotly">{plotly}</script>
<script type="application/octet-stream" id="data">{_packed(gzip.compress(_data(sweep), compresslevel=6))}</script>
<script>{script}</script>
</body>
</html>
"""


def _packed(compressed: bytes) -> str:
    return base64.b64encode(compressed).decode()


def _data(sweep: SweepState) -> bytes:
    """The data of the page's script. It has all metrics only of trials whose learning curves were read."""
    paths = list(sweep.searched)
    data: dict[str, Any] = {
        "progress": page.progress(sweep),
        "first": -sweep.sign,
        "columns": page.columns(sweep),
        "rows": [page.row(trial, paths) for trial in sweep.trials],
        "ranking": page.ranking(sweep),
        "details": page.details(sweep),
        "failures": page.failures(sweep),
        "retry": page.retry(sweep),
        "plots": page.plot_list(sweep),
        "figures": {name: plot.build(sweep) for name, plot in plots.all_plots(sweep).items()},
        "templates": page.TEMPLATES,
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def _gif(sweep: SweepState) -> str:
    """The best trial's animation, where it made one and the file is on this machine."""
    for trial in [sweep.conclusions.best] if sweep.conclusions.best else []:
        for uri in trial.artefacts.values():
            path = artefact_path(uri)
            if path is not None and path.suffix == ".gif" and _is_own(sweep, trial, uri) and path.is_file():
                if path.stat().st_size > LARGEST_GIF:
                    return ""
                image = base64.b64encode(path.read_bytes()).decode()
                return (
                    f'<section class="card finding"><h2 class="question">What does it do?</h2>'
                    f'<p class="answer">An episode of trial {trial.number}</p>'
                    f'<img class="gif" alt="an episode" src="data:image/gif;base64,{image}"></section>'
                )
    return ""


def _is_own(sweep: SweepState, trial: Trial, uri: str) -> bool:
    """Whether the trial wrote the file; somebody may have put any name into the store."""
    try:
        require_written_by(sweep, trial, uri)
    except UserError:
        return False
    return True
