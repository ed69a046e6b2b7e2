"""Stores of trials. `open_store` opens a `Store`, see `protocol`."""

from metta.sweep.store.protocol import Store

__all__ = ["SCHEMES", "open_store"]

SCHEMES = ("sqlite", "postgresql")
"""The schemes of stores' URLs, without a driver such as ``+psycopg``."""


def open_store(url: str, create: bool = True) -> Store:
    """Open the store at `url`.

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql+psycopg://user@host/database``.
        create: create the store if it does not exist.

    Raises:
        StoreError: the store cannot be used; the message is one line and contains no password.
    """
    from metta.sweep.store.sql import SqlStore  # SQLAlchemy takes a moment to import

    return SqlStore(url, create)
