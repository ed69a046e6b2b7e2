"""Logs: the files of the runs contain everything; the terminal shows only messages that a user can act on."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metta.common.terminal import say
from metta.common.urls import public_text


class _TerminalHandler(logging.Handler):
    """Shows warnings of this package and of user code, and errors of any code."""

    def emit(self, record: logging.LogRecord) -> None:
        library = record.name == "py.warnings" or "site-packages" in record.pathname
        if record.levelno >= (logging.ERROR if library else logging.WARNING):
            # `sys.stderr` is looked up each time, because a live display replaces it temporarily.
            say(f"{record.levelname.lower()}: {record.getMessage()}", sys.stderr)


class _PublicFormatter(logging.Formatter):
    """Removes the secrets of URLs, including those in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return public_text(super().format(record))


def quiet_terminal() -> None:
    """Keep warnings of libraries off the terminal; `log_to_file` still writes them."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    if not any(isinstance(handler, _TerminalHandler) for handler in root.handlers):
        root.addHandler(_TerminalHandler())


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append log records of level INFO and above, and every Python warning, to the file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    formatter = _PublicFormatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
