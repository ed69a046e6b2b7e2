#!/usr/bin/env -S uv run
"""Run a Tool from the command line; ``--help`` says how."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Replaces this folder: the user's modules come before those of the clone, and both before installed packages.
    sys.path[:1] = [str(Path.cwd()), str(Path(__file__).resolve().parents[1])]
    try:
        from metta.common.runner import run_program
    except KeyboardInterrupt:
        sys.exit(130)
    run_program()
