"""The identity of the database that a URL names now: a file's device and inode, or the identifiers of a server."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

File = tuple[int, int]
"""Device and inode."""

Place = tuple[int, int] | tuple[str, int]
"""A file, or the identifier of a PostgreSQL cluster with its timeline and the oid of a database in it."""

_OPEN_LOCK_BYTE = 128  # WAL_DMS of SQLite's os_unix.c


class Moved(Exception):
    """The URL no longer names the database of an open connection."""


def of_file(path: Path) -> File | None:
    """The file at a path; None if it does not exist or its folder is unreachable."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_open(file: Place) -> bool:
    """Whether this process has a file open. Swept code may have closed it, and opened others under the same numbers."""
    for descriptor in os.listdir("/dev/fd"):
        with suppress(OSError):  # the descriptor of the listing itself is closed again
            status = os.fstat(int(descriptor))
            if (status.st_dev, status.st_ino) == file:
                return True
    return False


def of_server(connection: Any) -> Place:
    """The database of a psycopg connection.

    A promoted replica is another place, because the last transactions may not have reached it. Parts that the user may
    not read are omitted.
    """
    (oid,) = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    cluster = _asked(connection, "SELECT system_identifier FROM pg_control_system()")
    timeline = _asked(connection, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    return f"{cluster} {timeline}", int(oid)


def _asked(connection: Any, query: str) -> str:
    """A value, or "" where the server or its administrator refuses it, as some services do."""
    try:
        with connection.transaction():
            return str(connection.execute(query).fetchone()[0])
    except Exception:  # of a driver that is imported only where it is used
        return ""


def log_of(path: Path | None) -> File | None:
    """The write-ahead log beside an SQLite file."""
    return None if path is None else of_file(Path(f"{path}-wal"))


def companions(path: Path) -> tuple[File | None, File | None]:
    """The write-ahead log and its index. They stay the same files as long as a connection is open."""
    return log_of(path), of_file(Path(f"{path}-shm"))


def put_orphan_aside(path: Path) -> Path | None:
    """Rename the log of a file that is gone and that no process holds open, so that a new file does not replay it.

    Returns:
        Its new name; None where there is no log, or a process still holds it.
    """
    log = Path(f"{path}-wal")
    if not log.exists() or _is_held(path):
        return None
    aside = log.with_name(f"{log.name}.{uuid.uuid4().hex[:8]}")
    log.rename(aside)
    Path(f"{path}-shm").unlink(missing_ok=True)
    return aside


def unusable(folder: Path) -> str | None:
    """What SQLite needs and the file system of a folder refuses, as some network file systems do; None if nothing.

    Example:
        >>> unusable(Path.cwd()) is None
        True
    """
    with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:  # if none can be made, that is another fault
        file.truncate(mmap.PAGESIZE)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"its files cannot be locked ({error.strerror})"
        try:
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
        except OSError as error:
            return f"its files cannot be shared in memory ({error.strerror})"
    return None


def _is_held(path: Path) -> bool:
    """Whether a process has the log open: each connection holds a lock on one byte of its index."""
    try:
        with open(f"{path}-shm", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _OPEN_LOCK_BYTE)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def remove_stale_log(path: Path, log: File | None) -> None:
    """Remove the write-ahead log of a former file at this path, because SQLite would replay it into the current one."""
    if log is not None and log_of(path) == log:
        for suffix in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").unlink()
