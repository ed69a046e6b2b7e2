"""The tables. A change here needs a migration in `migrations/versions` and a new `SCHEMA_VERSION`.

A row may have been edited by hand, so no type here fails when it reads a value: it returns `Unreadable`. JSON is read
as text, and numbers and texts unchanged; `rows` parses them.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeEngine, UserDefinedType

from metta.sweep.store.encoding import Unreadable

SCHEMA_VERSION = "0004"
VERSION_TABLE = "metta_schema_version"


def not_a(kind: str, value: Any) -> Unreadable:
    return Unreadable(f"{reprlib.repr(value)} is not a {kind}")


class now(FunctionElement[float]):
    """The time on the database's clock, in seconds since 1970."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


class up_since(FunctionElement[float]):
    """When the database server started, in seconds since 1970. SQLite has no server."""

    type = Double()
    inherit_cache = True


@compiles(up_since, "sqlite")
def _up_since_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "0.0"


@compiles(up_since, "postgresql")
def _up_since_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) AS DOUBLE PRECISION)"


class _SqliteDouble(UserDefinedType[float]):
    """SQLite turns NaN into NULL and -0.0 into 0.0, so both are stored as text, which its columns allow."""

    cache_ok = True

    def get_col_spec(self, **options: Any) -> str:
        return "DOUBLE"

    def bind_processor(self, dialect: Dialect) -> Callable[[float | None], float | str | None]:
        return _sqlite_number

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _number_of_sqlite


_NEGATIVE_ZERO = "minus zero"  # SQLite would convert "-0.0" to a number


def _sqlite_number(value: float | None) -> float | str | None:
    if value is None or (value and not math.isnan(value)):
        return value
    return "nan" if value else _NEGATIVE_ZERO if math.copysign(1.0, value) < 0 else value


def _number_of_sqlite(value: Any) -> float | Unreadable | None:
    if value is None or isinstance(value, float):
        return value
    if value == _NEGATIVE_ZERO:
        return -0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        return not_a("number", value)


def exact_float() -> TypeEngine[float]:
    """Any float, including NaN and the infinities."""
    return Double().with_variant(_SqliteDouble(), "sqlite")


class Timestamp(TypeDecorator[datetime]):
    """A point in time, stored as seconds since 1970, so that both databases and all clients read the same value."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | float | None, dialect: Dialect) -> float | None:
        return value.timestamp() if isinstance(value, datetime) else value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _moment


def _moment(value: Any) -> datetime | Unreadable | None:
    try:
        return None if value is None else datetime.fromtimestamp(value, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return not_a("point in time", value)


class AnyText(TypeDecorator[str]):
    """Any text. NUL (which PostgreSQL refuses) and lone surrogates (which both databases refuse) are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


metadata = MetaData()

sweeps = Table(
    "metta_sweeps",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("config", JSON, nullable=False),
    Column("entry_point", JSON(none_as_null=True)),
    Column("revision", BigInteger, nullable=False),
    Column("origin", String(32), nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("paused", Boolean, nullable=False, server_default=false()),
)

drivers = Table(
    "metta_drivers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("sweep_id", ForeignKey("metta_sweeps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host", AnyText, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("boot", String(100), nullable=False),
    Column("process_started", String(40), nullable=False),
    Column("lease_seconds", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("seen_monotonic", Double, nullable=False),
    Column("left_at", Timestamp),
    Column("stopping", Boolean, nullable=False, server_default=false()),
)

trials = Table(
    "metta_trials",
    metadata,
    Column("sweep_id", ForeignKey("metta_sweeps.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("params", JSON, nullable=False),
    Column("suggestion", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("score", exact_float()),
    Column("cost", exact_float()),
    Column("metrics", JSON, nullable=False),
    Column("artefacts", JSON, nullable=False),
    Column("error", AnyText),
    Column("created_at", Timestamp),
    Column("started_at", Timestamp),
    Column("ended_at", Timestamp),
    Column("dropped", AnyText),
    Column("cost_metric", AnyText),
    Column("stopped", AnyText),
    Column("share", exact_float()),
    Column("revision", BigInteger, nullable=False),
    Column("origin", String(32), nullable=False),
    Index("metta_trials_revision", "sweep_id", "revision"),
    Index("metta_trials_state", "sweep_id", "state", "number"),
)

attempts = Table(
    "metta_attempts",
    metadata,
    Column("token", String(32), primary_key=True),
    Column("sweep_id", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("driver_id", ForeignKey("metta_drivers.id", ondelete="CASCADE"), index=True),
    Column("state", String(20), nullable=False),
    Column("seconds", exact_float(), nullable=False),
    Column("reason", AnyText),
    Column("started_at", Timestamp),
    Column("ended_at", Timestamp),
    Column("total", BigInteger),
    ForeignKeyConstraint(["sweep_id", "number"], ["metta_trials.sweep_id", "metta_trials.number"], ondelete="CASCADE"),
    UniqueConstraint("sweep_id", "number", "attempt"),
    Index("metta_attempts_state", "sweep_id", "state"),
)

curve_points = Table(
    "metta_curve_points",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("token", ForeignKey("metta_attempts.token", ondelete="CASCADE"), nullable=False, index=True),
    Column("origin", String(32), nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("seconds", exact_float(), nullable=False),
    Column("metrics", JSON, nullable=False),
)

decisions = Table(
    "metta_decisions",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("sweep_id", ForeignKey("metta_sweeps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("details", JSON, nullable=False),
    Column("at", Double, nullable=False),
)

mirrored = Table(
    "metta_mirrored",
    metadata,
    Column("sweep_id", ForeignKey("metta_sweeps.id", ondelete="CASCADE"), primary_key=True),
    Column("mirror", String(400), primary_key=True),
    Column("item", String(40), primary_key=True),
    Column("digest", String(64), nullable=False),
)
