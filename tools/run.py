#!/usr/bin/env -S uv run
"""Run a Tool from the command line; ``--help`` says how."""

import gc
import sys
from pathlib import Path

if __name__ == "__main__":
    # What is imported stays. Python would look for garbage in it again and again, and once more at the exit.
    gc.set_threshold(50_000)
    # In place of this folder: modules of the user come before ours, and both before what is installed.
    sys.path[:1] = [str(Path.cwd()), str(Path(__file__).resolve().parents[1])]
    try:
        from metta.common.runner import main

        status = main(sys.argv[1:])
        gc.freeze()
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(130)
