"""``python -m metta.sweep.cli`` is `metta-sweep`."""

import sys

from metta.sweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
