"""One SQL database: opening it with clear error messages, and retrying its transactions after temporary faults.

SQLite runs in WAL mode with synchronous=FULL: a transaction that has returned survives `kill -9` and a power cut.

A transaction counts only if it reached the database that the URL names now; `place` identifies that database. A file
that was removed, moved or replaced still accepts writes through open connections, but these writes would be lost.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import resource
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, MultipleResultsFound, SQLAlchemyError, StatementError

from metta.common.data_dir import STORE_VARIABLE
from metta.common.distribution import install_command
from metta.common.files import flush_to_disk
from metta.common.urls import public_text, public_url
from metta.sweep.store import encoding, place
from metta.sweep.store.place import Moved, Place
from metta.sweep.store.protocol import StoreError, StoreMissingError, StoreReplacedError, StoreWithoutKeysError
from metta.sweep.store.schema import SCHEMA_VERSION, VERSION_TABLE, metadata

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a transaction is retried while the database is locked, full or unreachable."""

_BUSY_SECONDS = 1.0
"""How long SQLite itself waits for a lock. Python handles no signal during that wait, so longer waits are done here."""

_LONGEST_WAIT = 5.0
_CREATION_LOCK = 7_310_558_221_914_007_541  # an arbitrary number that no other program uses
_LOST_ITS_LOG: Place = ("", 0)  # no database: one without its log is not the one that was written to
_EXAMPLES = "sqlite:///path/to/file.sqlite or postgresql+psycopg://user@host/database"
_POSTGRESQL_ARGUMENTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "application_name": "metta-sweep",
    "client_encoding": "utf8",
}

_log = logging.getLogger(__name__)


class Database:
    """Runs functions of a connection as transactions.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL.
        create: create the database's tables (and SQLite's file and folder) if they are missing.

    Attributes:
        troubled_at: the monotonic time at which a transaction last had to wait for the database.
        patience: seconds for which a transaction is retried, if less than PATIENCE_SECONDS.
        salvage: called with an open connection to a database that the URL no longer names, before the connection is
            closed. If it is set, another database at the same URL raises StoreReplacedError until `reopen`.

    Raises:
        StoreError: the database cannot be used; the message is one line and contains no password.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        self.troubled_at = -math.inf
        self.patience = math.inf
        self.salvage: Callable[[Connection], object] | None = None
        self._place: Place | None = None
        self._path: Path | None = None
        self._write_ahead: place.File | None = None
        self._opened = self._warned = False
        self._url = _parse(url)
        self.url = public_url(url)
        self._given = url  # includes secrets, which no message may show
        if self._url.get_backend_name() == "sqlite":
            try:
                self._path = _sqlite_path(self._url)
                _check_sqlite_file(self._path, self.url, create)
            except (OSError, RuntimeError) as error:  # such as a loop of links, or a name that is too long
                reason = getattr(error, "strerror", None) or error
                raise StoreError(f"store {self.url}: its path cannot be used: {reason}") from None
            if not self._path.exists():
                self._create_sqlite_file(self._path)
            self._url = self._url.set(database=str(self._path))
        self._engine = self._new_engine(self._url)
        try:
            self._open(create)
        except BaseException:
            self.close()
            raise
        self._opened = True

    def read(self, operation: Callable[[Connection], T]) -> T:
        """Run `operation` in a read-only transaction that sees one snapshot of the store."""
        return self._run(lambda again: self._transact(operation, write=False))

    def write(self, operation: Callable[[Connection, bool], T], patience: float = math.inf) -> T:
        """Run `operation(connection, again)` in one transaction.

        A commit may have succeeded although its confirmation was lost: if `again` is true, the operation first checks
        whether its work is already done.

        Args:
            patience: seconds for which it is retried, if less than usual.
        """
        return self._run(
            lambda again: self._transact(lambda connection: operation(connection, again), write=True), patience
        )

    def reopen(self) -> None:
        """Use the database that replaced the previous one, and create its tables if they are missing.

        Raises:
            StoreError: the database cannot be used.
        """
        self._opened = False
        self._engine.dispose()
        if self._path is not None:
            _check_sqlite_file(self._path, self.url, create=False)
        self._place = None
        self._open(create=True)
        self._opened = True

    def close(self) -> None:
        self._engine.dispose()

    def _transact(self, operation: Callable[[Connection], T], write: bool) -> T:
        with self._engine.connect() as connection:
            self._check_place(connection)
            connection.execution_options(metta_write=write)
            if not write and self._engine.dialect.name == "postgresql":  # in SQLite every transaction sees one snapshot
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                result = operation(connection)
            if write:
                self._check_place(connection)
                self._write_ahead = place.log_of(self._path)
            return result

    def _check_place(self, connection: Connection) -> None:
        """
        Raises:
            Moved: the URL no longer names a database, or names a different one from that of the connection.
            StoreReplacedError: the URL names a different database from before, and `salvage` is set.
        """
        held: Place = connection.info["place"]
        named = held if self._path is None else place.of_file(self._path)
        has_log = self._path is None or place.companions(self._path) == connection.info["companions"]
        if named is None:  # the connection stays open, so that nobody takes the log for one that is left over
            self._salvage(connection)
            raise Moved("the file was removed or moved")
        if held != named or not has_log:
            self._salvage(connection)
            connection.invalidate()
            self._engine.dispose()
            if held == named:
                self._place = _LOST_ITS_LOG
                raise Moved("the log beside the file was removed or replaced")
            raise Moved("the file was replaced")
        if self._path is not None and not place.is_open(held):  # nothing written now would reach the file
            connection.invalidate()
            self._engine.dispose()
            raise Moved("this process has closed the file, for example by os.closerange in a trial")
        connection.info.pop("is_saved", None)
        if self._place is not None and held != self._place and self.salvage is not None:
            is_older = self._place is _LOST_ITS_LOG
            what = "it has lost what its log held" if is_older else "another database has taken its place"
            raise StoreReplacedError(f"store {self.url}: {what}")
        self._place = held

    def _salvage(self, connection: Connection) -> None:
        """Call `salvage` once, with a connection that is still open, so that a removed file can be read."""
        if self.salvage is None or connection.info["place"] != self._place or connection.info.get("is_saved"):
            return
        connection.info["is_saved"] = True
        try:
            self.salvage(connection)
        except (SQLAlchemyError, StoreError, OSError) as error:
            _log.warning("store %s: its former content could not be saved: %s", self.url, error)
        connection.rollback()

    def _run(self, transaction: Callable[[bool], T], patience: float = math.inf) -> T:
        start = time.monotonic()
        wait, again = 0.05, False
        while True:
            try:
                result = transaction(again)
                if self._warned:
                    self._warned = False
                    _log.warning("store %s: it answers again, after %.0f s", self.url, time.monotonic() - start)
                return result
            except Moved as error:
                self._wait(str(error), StoreMissingError, start, patience)
            except DBAPIError as error:
                kind = self._kind(error)
                if kind is None and "foreign key mismatch" in str(error.orig):
                    raise self._without_keys("its tables do not refer to each other") from None
                if kind is None:
                    raise StoreError(f"store {self.url}: {self._explain(error)}") from None
                if _sqlite_error(error) in _SQLITE_BROKEN:  # what is open may be what is broken
                    self._engine.dispose()
                self._wait(self._explain(error), kind, start, patience)
            except MultipleResultsFound:
                raise self._without_keys("it has two rows where one is possible") from None
            except StatementError as error:  # the values do not fit
                raise (error.orig or error) from None
            except (OverflowError, UnicodeEncodeError) as error:
                raise StoreError(f"store {self.url}: a value does not fit: {error}") from None
            time.sleep(wait)
            wait, again = min(2 * wait, _LONGEST_WAIT, max(0.05, self.patience)), True

    def _kind(self, error: DBAPIError) -> type[StoreError] | None:
        """The error to raise if the fault persists; None if waiting does not help."""
        if not self._opened and self._refusal(error):
            return None
        gone = self._path is not None and not self._path.exists()
        if self._opened and (gone or getattr(error.orig, "sqlstate", None) == _NO_SUCH_DATABASE):
            return StoreMissingError
        opening = self._opened and _sqlite_error(error) == "SQLITE_CANTOPEN"  # too many open files, or no folder access
        return StoreError if opening or _is_transient(error) else None

    def _wait(self, reason: str, kind: type[StoreError], start: float, patience: float) -> None:
        """Log the fault once, wait before the next try, and raise when the time limit is reached."""
        self.troubled_at = time.monotonic()
        waited, longest = self.troubled_at - start, min(PATIENCE_SECONDS, self.patience)
        if 1.0 <= waited < longest and not self._warned:
            self._warned = True
            _log.warning("store %s: %s; trying again for %.0f s", self.url, reason, longest)
        if waited >= min(longest, patience):
            raise kind(f"store {self.url}: {reason}; gave up after {waited:.0f} s") from None

    def _without_keys(self, what: str) -> StoreWithoutKeysError:
        return StoreWithoutKeysError(
            f"store {self.url}: {what}, so its tables were made again without their keys; restore it from a copy"
        )

    def _explain(self, error: DBAPIError) -> str:
        message = public_text(" ".join(str(error.orig).split()), self._given)
        code = _sqlite_error(error)
        if refusal := self._refusal(error):
            return refusal
        return _SQLITE_REASONS.get(code, message) + (_limit_text() if code == "SQLITE_IOERR" else "")

    def _refusal(self, error: DBAPIError) -> str | None:
        """What the file system refuses, if SQLite failed because of it."""
        if self._path is None or _sqlite_error(error) not in _SQLITE_LOCKS:
            return None
        reason = place.unusable(self._path.parent)
        if reason is None:
            return None
        return (
            f"SQLite cannot be used in this folder, because {reason}, as on some network file systems; put the store "
            "into a folder on a local disk, or use PostgreSQL (postgresql+psycopg://user@host/database)"
        )

    # ---- opening

    def _new_engine(self, url: URL) -> Engine:
        options: dict[str, Any] = {"creator": lambda: self._connect_sqlite(Path(str(url.database)))}
        if url.get_backend_name() == "postgresql":
            arguments = {key: value for key, value in _POSTGRESQL_ARGUMENTS.items() if key not in url.query}
            options = {"connect_args": arguments, "isolation_level": "READ COMMITTED"}
        try:
            engine = create_engine(
                url,
                json_serializer=encoding.dumps,
                json_deserializer=_as_text,  # `rows` parses it and tolerates invalid content
                **options,
            )
        except (ArgumentError, ImportError, TypeError, ValueError) as error:
            raise StoreError(f"store {self.url}: {public_text(str(error), self._given)}") from None
        if url.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", _set_up_postgresql)
        return engine

    def _connect_sqlite(self, path: Path) -> sqlite3.Connection:
        """Open an existing file and never create one, because a removed file must not come back empty."""
        before = place.of_file(path)
        if before is None:
            raise Moved("the file was removed or moved")
        if self._place not in (None, _LOST_ITS_LOG, before):
            place.remove_stale_log(path, self._write_ahead)
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, timeout=_BUSY_SECONDS, check_same_thread=False
        )
        if place.of_file(path) != before:
            connection.close()
            raise Moved("the file was replaced")
        return connection

    def _open(self, create: bool) -> None:
        """Check that the schema is ours, and migrate it to this version."""
        if self._engine.dialect.name == "postgresql":
            self._check_login()
        version = self.read(self._version)
        if version != SCHEMA_VERSION:
            self.write(lambda connection, again: self._migrate(connection, create))

    def _check_login(self) -> None:
        """Connect once without waiting: a server that is unreachable at the start of a sweep is an error at once."""
        try:
            self._engine.connect().close()
        except DBAPIError as error:
            raise StoreError(f"store {self.url}: {self._explain(error)}") from None
        except SQLAlchemyError as error:
            raise StoreError(f"store {self.url}: {public_text(str(error), self._given)}") from None

    def _version(self, connection: Connection) -> str | None:
        """The version of the schema in the database, or None if it has no schema."""
        tables = inspect(connection).get_table_names()
        if VERSION_TABLE in tables:
            return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))
        if tables and self._engine.dialect.name == "sqlite":
            raise StoreError(
                f"store {self.url}: this SQLite file belongs to another program (tables: {tables[0]}, ...)"
            )
        return None

    def _migrate(self, connection: Connection, create: bool) -> None:
        if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE has taken the lock
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
        version = self._version(connection)
        if version is None:
            if not create:
                raise StoreError(f"store {self.url}: there are no sweeps in this database yet")
            self._check_encoding(connection)
            _create_schema(connection)
        elif version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.url}: it was written by a newer metta-sweep (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); upgrade metta-sweep to open it"
            )
        elif version < SCHEMA_VERSION:
            from metta.sweep.store.migrations import upgrade

            upgrade(connection)

    def _check_encoding(self, connection: Connection) -> None:
        """Refuse a database that cannot hold every text: a trial's error may have any letter in it."""
        if connection.dialect.name != "postgresql":
            return
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise StoreError(f"store {self.url}: the database has the encoding {encoding}; create one with UTF8")

    def _create_sqlite_file(self, path: Path) -> None:
        """Create a complete file under a temporary name and link it to `path`, so that `path` is never half written."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        engine = self._new_engine(self._url.set(database=str(temporary)))
        try:
            temporary.touch()
            with engine.connect() as connection:
                connection.execution_options(metta_write=True)
                with connection.begin():
                    _create_schema(connection)
            engine.dispose()
            with suppress(FileExistsError):  # another process was faster
                os.link(temporary, path)
                flush_to_disk(path.parent)
        except DBAPIError as error:
            raise StoreError(f"store {self.url}: it cannot be created: {self._explain(error)}") from None
        except OSError as error:
            raise StoreError(f"store {self.url}: it cannot be created: {error.strerror}") from None
        finally:
            engine.dispose()
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{temporary}{suffix}").unlink(missing_ok=True)


def _as_text(written: Any) -> Any:
    return written.decode("utf-8", "replace") if isinstance(written, bytes) else written


def _create_schema(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"), {"version": SCHEMA_VERSION})


def _parse(url: str) -> URL:
    scheme, separator, path = url.partition(":///")
    if separator and scheme in ("sqlite", "sqlite+pysqlite") and path and "?" not in Path(path).name:
        parsed = URL.create(scheme, database=path)  # not decoded: a folder's name may contain %, ? and #
        if path != ":memory:":
            return parsed
    try:
        parsed = make_url(url)
        port = parsed.port
    except (ArgumentError, ValueError):
        wrong = "is not of the form" if url else f"is empty; set {STORE_VARIABLE} to it, or write it as"
        raise StoreError(f"store: the URL {wrong} {_EXAMPLES}") from None
    if "@" in (parsed.host or "") or (port is not None and not 0 < port < 65536):
        raise StoreError("store: the URL's host or port is wrong; write @ : / in a password as %40 %3A %2F")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if parsed.host or parsed.query or not parsed.database or parsed.database == ":memory:":
            raise StoreError(f"store: {parsed.drivername} needs the path of a file and nothing else: {_EXAMPLES}")
        return parsed
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError(f"store {public_url(url)}: the driver psycopg is missing: {install_command('postgres')}")
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"store: {parsed.drivername!r} is not supported; use {_EXAMPLES}")


def _sqlite_path(url: URL) -> Path:
    return Path(str(url.database)).expanduser().resolve()


def _check_sqlite_file(path: Path, shown: str, create: bool) -> None:
    """Refuse files that SQLite would refuse late or accept silently."""
    if path.is_dir():
        raise StoreError(f"store {shown}: this is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise StoreError(f"store {shown}: this is a device or a pipe, not a file")
    if not path.exists():
        if not create:
            raise StoreError(
                f"store {shown}: there is no such file. Run a sweep first, or name your store with --store URL or with "
                "METTA_DATA_DIR, the folder that contains sweeps.db"
            )
        if (aside := place.put_orphan_aside(path)) is not None:
            _log.warning(
                "store %s: its file is missing, so it is created again; the old file's log is %s", shown, aside
            )
        elif place.log_of(path) is not None:
            raise StoreError(
                f"store {shown}: the file is missing, and a running driver waits for it; restore it, or stop the driver"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {shown}: its folder cannot be created: {error.strerror}") from None
    elif not _may_write(path):
        raise StoreError(f"store {shown}: the file is read-only")
    elif path.stat().st_size == 0:
        raise StoreError(
            f"store {shown}: the file is empty, so it was truncated; restore it, or remove it to start again"
        )
    if not _may_write(path.parent):
        raise StoreError(f"store {shown}: its folder cannot be written to")
    _check_log(path, shown)


def _check_log(path: Path, shown: str) -> None:
    """Refuse a write-ahead log that belongs to another file, because SQLite would replay it and damage this file.

    The check uses a read-only connection, which reads both and changes neither.
    """
    if place.log_of(path) is None:
        return
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
        ) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError:  # opening it for writing gives the error message
        return
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise StoreError(
            f"store {shown}: the file and the log beside it ({path.name}-wal) do not belong together, for example "
            "after a backup was restored; restore the file that the log belongs to, or move the log away (data that is "
            "only in the log is lost)"
        )


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _set_up_sqlite(connection: Any, record: Any) -> None:
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    record.info["place"] = place.of_file(Path(path))
    connection.isolation_level = None  # `_begin_sqlite` begins transactions
    connection.text_factory = methodcaller("decode", "utf-8", "replace")  # tolerates text truncated by hand
    for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=250"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the log
    record.info["companions"] = place.companions(Path(path))


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("metta_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _set_up_postgresql(connection: Any, record: Any) -> None:
    """Limit how long a driver that hangs in a transaction can block the others."""
    record.info["place"] = place.of_server(connection)
    connection.execute("SET idle_in_transaction_session_timeout = '30s'")
    connection.commit()


_SQLITE_REASONS = {
    "SQLITE_BUSY": "the file is locked by another process",
    "SQLITE_LOCKED": "the file is locked by another process",
    "SQLITE_CANTOPEN": "the file cannot be opened",
    "SQLITE_CORRUPT": "the file is damaged or truncated; restore it from a copy",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_IOERR": "the disk cannot be read or written",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_PERM": "access is denied",
    "SQLITE_PROTOCOL": "the file cannot be locked",
    "SQLITE_READONLY": "the file is read-only",
}
_SQLITE_BROKEN = {"SQLITE_IOERR", "SQLITE_PROTOCOL"}
_SQLITE_LOCKS = {"SQLITE_BUSY", "SQLITE_LOCKED", *_SQLITE_BROKEN}
"""The errors of a file system that cannot lock or share files."""
_SQLITE_MAY_PASS = {"SQLITE_FULL", *_SQLITE_LOCKS}
_NO_SUCH_DATABASE = "3D000"
_POSTGRESQL_MAY_PASS = re.compile("08...|57P..|53...|40001|40P01|55P03|25P03")
"""Connections, shutdown and start, resources, serialization, deadlocks, locks: see PostgreSQL's appendix A."""


def _sqlite_error(error: DBAPIError) -> str:
    """SQLite's primary error code by name: SQLITE_IOERR for SQLITE_IOERR_WRITE."""
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def _limit_text() -> str:
    """The limit of the size of files, if there is one, because SQLite reports it as any other failed write."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return "" if limit == resource.RLIM_INFINITY else f", or a file is at this process's limit of {limit:,} bytes"


def _is_transient(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a little later."""
    if _sqlite_error(error):
        return _sqlite_error(error) in _SQLITE_MAY_PASS
    code = getattr(error.orig, "sqlstate", None)
    if code is None:  # no error code from a server: the connection was refused or lost
        return error.connection_invalidated or type(error.orig).__name__ == "OperationalError"
    return _POSTGRESQL_MAY_PASS.fullmatch(code) is not None
