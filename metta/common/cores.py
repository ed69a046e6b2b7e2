"""How many processors there are to use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """The CPU cores that this process is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
