"""Where runs, policies and the default store are kept."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The data directory: ``$METTA_DATA_DIR`` if set, else ``./train_dir``; absolute, because code may move."""
    return Path(os.environ.get("METTA_DATA_DIR", "train_dir")).absolute()


def default_store_url() -> str:
    """The embedded store in the data directory."""
    return f"sqlite:///{data_dir() / 'sweeps.db'}"


def resolved_store_url(url: str) -> str:
    """The URL of a store, with the path of an SQLite file made absolute."""
    scheme, separator, path = url.partition(":///")
    if not separator or scheme not in ("sqlite", "sqlite+pysqlite") or path in ("", ":memory:"):
        return url
    return f"{scheme}:///{Path(path).expanduser().absolute()}"
