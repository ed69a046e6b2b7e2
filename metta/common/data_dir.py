"""Where runs, policies and the default store are kept."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The data directory: ``$METTA_DATA_DIR`` if set, else ``./train_dir``."""
    return Path(os.environ.get("METTA_DATA_DIR", "train_dir"))


def default_store_url() -> str:
    """The embedded store in the data directory."""
    return f"sqlite:///{data_dir() / 'sweeps.db'}"
