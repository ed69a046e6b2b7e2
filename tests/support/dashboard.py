"""A dashboard in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def dashboard(url: str, name: str) -> Iterator[str]:
    """The address of a dashboard of that sweep of the store."""
    program = str(Path(sys.executable).with_name("metta-sweep"))
    command = [program, "dashboard", name, "--store", url, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[4]
        finally:
            process.terminate()
