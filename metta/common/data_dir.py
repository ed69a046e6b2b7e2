"""The folder of runs, policies and the default store."""

from __future__ import annotations

import os
from pathlib import Path

from metta.common.urls import has_hidden, public_url

STORE_VARIABLE = "METTA_STORE"
"""The environment variable with the URL of the default store, which may contain a password."""


def data_dir() -> Path:
    """The data directory: ``$METTA_DATA_DIR`` or ``./train_dir``, made absolute, because code may change folders."""
    return Path(os.environ.get("METTA_DATA_DIR", "train_dir")).absolute()


def default_store_url() -> str:
    """The store that ``$METTA_STORE`` names if it is set, else the embedded one in the data directory."""
    return os.environ.get(STORE_VARIABLE) or f"sqlite:///{data_dir() / 'sweeps.db'}"


def store_in_command(url: str) -> str | None:
    """The name of a store in a command: None for the default store, and ``$METTA_STORE`` for a URL with a secret.

    Commands are printed, and every user of a machine can read the arguments of its processes.
    """
    public = public_url(url)
    if has_hidden(public):
        return f"${STORE_VARIABLE}"
    return None if public == public_url(default_store_url()) else public


def resolved_store_url(url: str) -> str:
    """The URL of a store, with the path of an SQLite file made absolute."""
    scheme, separator, path = url.partition(":///")
    if not separator or scheme not in ("sqlite", "sqlite+pysqlite") or path in ("", ":memory:"):
        return url
    return f"{scheme}:///{Path(path).expanduser().absolute()}"
