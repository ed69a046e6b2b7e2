"""One SQL database: opened with clear refusals, and its transactions retried while a fault may pass.

SQLite runs in WAL mode with synchronous=FULL: a transaction that has returned survives `kill -9` and a power cut.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError

from metta.common.distribution import install_command
from metta.sweep.store import encoding
from metta.sweep.store.protocol import StoreError
from metta.sweep.store.schema import SCHEMA_VERSION, VERSION_TABLE, metadata

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""How long a transaction is retried while the database is locked, full or away."""

_BUSY_SECONDS = 5.0
_LONGEST_WAIT = 5.0
_CREATION_LOCK = 7_310_558_221_914_007_541  # any number that others do not use
_EXAMPLES = "sqlite:///path/to/file.sqlite or postgresql+psycopg://user@host/database"
_POSTGRESQL_ARGUMENTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
    "application_name": "metta-sweep",
}

_log = logging.getLogger(__name__)


class Database:
    """Runs functions of a connection as transactions.

    Args:
        url: an SQLAlchemy URL of SQLite or PostgreSQL.
        create: make the database's tables (and SQLite's file and folder) where they are missing.

    Raises:
        StoreError: it cannot be used; the message is one line, without any password.
    """

    def __init__(self, url: str, create: bool = True) -> None:
        self.troubled_at = -math.inf
        """When a transaction last had to wait for the database, by the monotonic clock."""
        self._url = _parse(url)
        self.url = _without_secrets(self._url)
        if self._url.get_backend_name() == "sqlite":
            path = _sqlite_path(self._url)
            _check_sqlite_file(path, self.url, create)
            if not path.exists():
                self._create_sqlite_file(path)
            self._url = self._url.set(database=str(path))
        self._engine = self._new_engine(self._url)
        try:
            self._open(create)
        except BaseException:
            self.close()
            raise

    def read(self, operation: Callable[[Connection], T]) -> T:
        """Run `operation` in a transaction that changes nothing and sees the store as of one moment."""
        return self._run(lambda again: self._transact(operation, write=False))

    def write(self, operation: Callable[[Connection, bool], T]) -> T:
        """Run `operation(connection, again)` in one transaction.

        A commit may have taken place although its answer was lost: where `again` is true, the operation looks first
        whether its work is done.
        """
        return self._run(lambda again: self._transact(lambda connection: operation(connection, again), write=True))

    def close(self) -> None:
        self._engine.dispose()

    def _transact(self, operation: Callable[[Connection], T], write: bool) -> T:
        with self._engine.connect() as connection:
            connection.execution_options(metta_write=write)
            if not write and self._engine.dialect.name == "postgresql":  # SQLite shows one moment to every transaction
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                return operation(connection)

    def _run(self, transaction: Callable[[bool], T]) -> T:
        start = time.monotonic()
        wait, again, warned = 0.05, False, False
        while True:
            try:
                result = transaction(again)
                if warned:
                    _log.warning("store %s: it answers again, after %.0f s", self.url, time.monotonic() - start)
                return result
            except DBAPIError as error:
                self.troubled_at = time.monotonic()
                waited = self.troubled_at - start
                reason = self._explain(error)
                if not _may_pass(error):
                    raise StoreError(f"store {self.url}: {reason}") from None
                if waited >= PATIENCE_SECONDS:
                    raise StoreError(f"store {self.url}: {reason}; gave up after {waited:.0f} s") from None
                if waited >= 1.0 and not warned:
                    warned = True
                    _log.warning("store %s: %s; trying again for %.0f s", self.url, reason, PATIENCE_SECONDS)
            except StatementError as error:  # the values do not fit
                raise (error.orig or error) from None
            except (OverflowError, UnicodeEncodeError) as error:
                raise StoreError(f"store {self.url}: a value does not fit: {error}") from None
            time.sleep(wait)
            wait, again = min(2 * wait, _LONGEST_WAIT), True

    def _explain(self, error: DBAPIError) -> str:
        message = " ".join(str(error.orig).split())
        if self._url.password:
            message = message.replace(str(self._url.password), "***")
        return _SQLITE_REASONS.get(_sqlite_error(error), message)

    # ---- opening

    def _new_engine(self, url: URL) -> Engine:
        arguments: dict[str, Any] = {"timeout": _BUSY_SECONDS}
        isolation = None
        if url.get_backend_name() == "postgresql":
            arguments = {key: value for key, value in _POSTGRESQL_ARGUMENTS.items() if key not in url.query}
            isolation = "READ COMMITTED"
        try:
            engine = create_engine(
                url,
                connect_args=arguments,
                json_serializer=encoding.dumps,
                json_deserializer=_as_text,  # `rows` reads it, and forgives what stands there
                **({"isolation_level": isolation} if isolation else {}),
            )
        except (ArgumentError, ImportError, TypeError, ValueError) as error:
            raise StoreError(f"store {self.url}: {error}") from None
        if url.get_backend_name() == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", _set_up_postgresql)
        return engine

    def _open(self, create: bool) -> None:
        """Check that the schema is ours and as new as this code, or make it so."""
        if self._engine.dialect.name == "postgresql":
            self._check_login()
        version = self.read(self._version)
        if version != SCHEMA_VERSION:
            self.write(lambda connection, again: self._bring_up_to_date(connection, create))

    def _check_login(self) -> None:
        """A server that cannot be reached is worth waiting for in the middle of a sweep, but not at its start."""
        try:
            self._engine.connect().close()
        except DBAPIError as error:
            raise StoreError(f"store {self.url}: {self._explain(error)}") from None
        except SQLAlchemyError as error:
            raise StoreError(f"store {self.url}: {error}") from None

    def _version(self, connection: Connection) -> str | None:
        """The version of the schema that the database holds, or None where it holds none."""
        tables = inspect(connection).get_table_names()
        if VERSION_TABLE in tables:
            return str(connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}")))
        if tables and self._engine.dialect.name == "sqlite":
            raise StoreError(
                f"store {self.url}: this SQLite file belongs to another program (tables: {tables[0]}, ...)"
            )
        return None

    def _bring_up_to_date(self, connection: Connection, create: bool) -> None:
        if connection.dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE locks already
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
        version = self._version(connection)
        if version is None:
            if not create:
                raise StoreError(f"store {self.url}: there are no sweeps in this database yet")
            _create_schema(connection)
        elif version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self.url}: it was written by a newer metta-sweep (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); upgrade metta-sweep to open it"
            )
        elif version < SCHEMA_VERSION:
            from metta.sweep.store.migrations import upgrade

            upgrade(connection)

    def _create_sqlite_file(self, path: Path) -> None:
        """Make the file beside its place and link it there whole: a file that is there is never half made."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        engine = self._new_engine(self._url.set(database=str(temporary)))
        try:
            with engine.connect() as connection:
                connection.execution_options(metta_write=True)
                with connection.begin():
                    _create_schema(connection)
            engine.dispose()
            with suppress(FileExistsError):  # another process was faster
                os.link(temporary, path)
                _sync_folder(path.parent)
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
    try:
        parsed = make_url(url)
        port = parsed.port
    except (ArgumentError, ValueError):
        raise StoreError(f"store: the URL is not of the form {_EXAMPLES}") from None
    if "@" in (parsed.host or "") or (port is not None and not 0 < port < 65536):
        raise StoreError("store: the URL's host or port is wrong; write @ : / in a password as %40 %3A %2F")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if parsed.host or parsed.query or not parsed.database or parsed.database == ":memory:":
            raise StoreError(f"store: {parsed.drivername} needs the path of a file and nothing else: {_EXAMPLES}")
        return parsed
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError(
                f"store {_without_secrets(parsed)}: the driver psycopg is missing: {install_command('postgres')}"
            )
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"store: {parsed.drivername!r} is not supported; use {_EXAMPLES}")


def _without_secrets(url: URL) -> str:
    shown = url.difference_update_query([key for key in url.query if re.search("pass|key|secret|token", key)])
    return shown.render_as_string(hide_password=True)


def _sqlite_path(url: URL) -> Path:
    return Path(str(url.database)).expanduser().resolve()


def _check_sqlite_file(path: Path, shown: str, create: bool) -> None:
    """Refuse what SQLite would refuse late, or take without a word."""
    if path.is_dir():
        raise StoreError(f"store {shown}: this is a folder; name a file in it")
    if not path.exists():
        if not create:
            raise StoreError(f"store {shown}: there is no such file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"store {shown}: its folder cannot be made: {error.strerror}") from None
    elif not _may_write(path):
        raise StoreError(f"store {shown}: the file is read-only")
    elif path.stat().st_size == 0:
        raise StoreError(
            f"store {shown}: the file is empty, so it was truncated; restore it, or remove it to start again"
        )
    if not _may_write(path.parent):
        raise StoreError(f"store {shown}: its folder cannot be written to")


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _sync_folder(folder: Path) -> None:
    """Have a new name in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_up_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    connection.text_factory = methodcaller("decode", "utf-8", "replace")  # whatever somebody cut by hand
    for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=250"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("metta_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _set_up_postgresql(connection: Any, _record: Any) -> None:
    """A driver that hangs in the middle of a transaction must not stop the others for long."""
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
    "SQLITE_READONLY": "the file is read-only",
}
_SQLITE_MAY_PASS = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR"}
_POSTGRESQL_MAY_PASS = re.compile("08...|57P..|53...|40001|40P01|55P03|25P03")
"""Connections, shutdown and start, resources, serialization, deadlock, locks: see PostgreSQL's appendix A."""


def _sqlite_error(error: DBAPIError) -> str:
    """SQLite's primary error code by name: SQLITE_IOERR for SQLITE_IOERR_WRITE."""
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a little later."""
    if _sqlite_error(error):
        return _sqlite_error(error) in _SQLITE_MAY_PASS
    code = getattr(error.orig, "sqlstate", None)
    if code is None:  # no answer from a server: the connection was refused or cut
        return error.connection_invalidated or type(error.orig).__name__ == "OperationalError"
    return _POSTGRESQL_MAY_PASS.fullmatch(code) is not None
