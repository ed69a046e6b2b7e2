#!/usr/bin/env -S uv run
"""Run a Tool from the command line; ``--help`` says how."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: modules of the user come before ours, and both before what is installed.
    sys.path[:1] = [str(Path.cwd()), str(Path(__file__).resolve().parents[1])]
    try:
        from metta.common.runner import main

        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
