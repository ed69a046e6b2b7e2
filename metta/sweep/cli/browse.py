"""Commands that show sweeps in the browser, and write them as files."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from metta.common.distribution import install_command
from metta.common.errors import UserError
from metta.common.terminal import safe
from metta.sweep.cli.command import Commands, opened, port, say

TITLE = "show sweeps in the browser"
PORT = 8765


def register(commands: Commands) -> None:
    served = commands.add(dashboard, "dashboard", "name", latest=True)
    served.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    served.add_argument("--port", type=port, default=PORT, help="port to listen on, 0 for any (default: %(default)s)")
    served.add_argument("--no-browser", action="store_true", help="only print the address")
    written = commands.add(report, "report", "name", latest=True)
    written.add_argument("--to", type=Path, metavar="FILE", help="default: NAME.html")
    written.add_argument("--png", type=Path, metavar="FOLDER", help="also write the plots as PNG files to this folder")


def dashboard(options: argparse.Namespace) -> None:
    """Open a page in the browser that shows sweeps, live while they run.

    It is read-only. On any address except loopback it needs a token, which is part of the printed address.
    """
    import webbrowser
    from urllib.parse import urlencode

    try:
        from metta.sweep.report.dashboard import server
        from metta.sweep.report.html.page import plotly_js
    except ImportError as error:
        raise UserError(f"the dashboard needs {error.name}: {install_command('dashboard')}") from None
    plotly_js()
    with opened(options) as store:
        token = None if server.is_loopback(options.host) else server.new_token()
        listening = server.bind(options.host, options.port)
        app = server.make_app(store, token, options.name)
        words = urlencode({"sweep": options.name} | ({} if token is None else {"token": token}))
        host = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{host}:{listening.getsockname()[1]}/?{words}"
        message = f"the dashboard is at {address}  (Ctrl-C to end it)"
        print(
            json.dumps({"address": address}) if options.json else safe(message)
        )  # with its token, which is for the reader
        sys.stdout.flush()
        if not options.no_browser and _has_screen():
            webbrowser.open(address)
        server.serve(app, listening)


def report(options: argparse.Namespace) -> None:
    """Write a sweep as one HTML file that opens offline, with its plots as PNG files on request."""
    from metta.sweep.report.curves import with_curves
    from metta.sweep.report.html.html_export import write_report
    from metta.sweep.report.plots.images import write_images
    from metta.sweep.state import read_state

    with opened(options) as store:
        snapshot = with_curves(store, read_state(store, options.name).analysed())
    path = options.to or Path(f"{options.name}.html")
    write_report(snapshot, path)
    images = [] if options.png is None else write_images(snapshot, options.png)
    message = f"wrote {path}" + (f", and {len(images)} plots in {options.png}" if images else "")
    say(options, message, report=str(path), images=[str(image) for image in images])


def _has_screen() -> bool:
    """Whether there is a screen. Without one, only a text browser could open, and it would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
