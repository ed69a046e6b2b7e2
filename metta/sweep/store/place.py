"""The identity of the database that a URL names now: a file's device and inode, or the identifiers of a server."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

File = tuple[int, int]
"""Device and inode."""

Place = tuple[int, int] | tuple[str, int]
"""A file, or the identifier of a PostgreSQL cluster and the oid of a database in it."""


class Moved(Exception):
    """The URL no longer names the database of an open connection."""


def of_file(path: Path) -> File | None:
    """The file at a path; None if it does not exist or its folder is unreachable."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def of_server(connection: Any) -> Place:
    """The database of a psycopg connection.

    The identifier of the cluster is omitted if the user may not read it.
    """
    (oid,) = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    (readable,) = connection.execute("SELECT has_function_privilege('pg_control_system()', 'execute')").fetchone()
    cluster = ""
    if readable:
        (identifier,) = connection.execute("SELECT system_identifier FROM pg_control_system()").fetchone()
        cluster = str(identifier)
    return cluster, int(oid)


def log_of(path: Path | None) -> File | None:
    """The write-ahead log beside an SQLite file."""
    return None if path is None else of_file(Path(f"{path}-wal"))


def remove_stale_log(path: Path, log: File | None) -> None:
    """Remove the write-ahead log of a former file at this path, because SQLite would replay it into the current one."""
    if log is not None and log_of(path) == log:
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").unlink()
