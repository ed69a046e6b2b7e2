"""What cannot be a store is refused before any work, in one line, and without a password."""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib.util
import mmap
import multiprocessing
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import create_engine, text

from metta.sweep.store import database, open_store
from metta.sweep.store.protocol import Store, StoreError, SweepRecord, TrialHistory
from metta.sweep.trial import Trial, TrialState
from tests.support.postgresql import PostgresServer


def refused(url: str, create: bool = True) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(url, create)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert "sesame" not in message
    return message


def filled(store: Store) -> Store:
    record = SweepRecord("arena", {}, None, datetime.now(UTC))
    trials = [Trial(number, TrialState.COMPLETED, {"lr": 0.1}, metrics={"m": 1.0}) for number in range(500)]
    store.import_sweep(record, [TrialHistory(trial) for trial in trials])
    return store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def powerless() -> Iterator[None]:
    """Root may write everywhere, so give up its powers over files for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


# ---- URLs


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("store.sqlite", "not of the form"),
        ("", "is empty; set METTA_STORE"),
        ("sqlite://", "needs the path of a file"),
        ("sqlite:///:memory:", "needs the path of a file"),
        ("sqlite://host/store.sqlite", "needs the path of a file"),
        ("sqlite:///store.sqlite?mode=ro", "needs the path of a file"),
        ("mysql://metta:sesame@localhost/sweeps", "'mysql' is not supported"),
        ("postgresql+asyncpg://metta:sesame@localhost/sweeps", "is not supported; use sqlite:///"),
        ("postgresql+psycopg://metta:sesame@localhost:port/sweeps", "not of the form"),
        ("postgresql+psycopg://metta:open@sesame@localhost/sweeps", "password as %40"),
        ("postgresql+psycopg://metta:sesame@localhost:99999/sweeps", "host or port is wrong"),
        ("postgresql+psycopg://metta@localhost:1/sweeps?password=sesame", "Connection refused"),
        ("postgresql+psycopg://metta:sesame@localhost:1/sweeps?no_such=1", "no_such"),
    ],
)
def test_a_wrong_url(url: str, reason: str) -> None:
    assert reason in refused(url)


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "psycopg" else found(name, package)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setenv("UV", "/bin/uv")
    assert "uv sync --extra postgres" in refused("postgresql+psycopg://metta:sesame@localhost/sweeps")


def test_importing_the_store_does_not_import_sqlalchemy() -> None:
    code = "import sys, metta.sweep.store; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- SQLite


def test_missing_folders_are_made(path: Path) -> None:
    open_store(f"sqlite:///{path.parent / 'a' / 'b' / path.name}").close()
    assert (path.parent / "a" / "b" / path.name).exists()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("sqlite:///~/store.sqlite").close()
    assert (tmp_path / "store.sqlite").exists()


def test_without_create_a_missing_file_stays_missing(path: Path) -> None:
    assert "no such file" in refused(f"sqlite:///{path}", create=False)
    assert list(path.parent.iterdir()) == []


def test_creation_leaves_nothing_but_the_file(path: Path) -> None:
    open_store(f"sqlite:///{path}").close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder(tmp_path: Path) -> None:
    assert "this is a folder" in refused(f"sqlite:///{tmp_path}")
    os.mkfifo(tmp_path / "pipe")
    assert "this is a device or a pipe" in refused(f"sqlite:///{tmp_path / 'pipe'}")
    (tmp_path / "loop").symlink_to("loop")
    assert "its path cannot be used: " in refused(f"sqlite:///{tmp_path / 'loop'}")
    assert "its path cannot be used: File name too long" in refused(f"sqlite:///{tmp_path / ('a' * 300)}")


def test_a_file_in_place_of_its_folder(path: Path) -> None:
    path.write_text("x")
    assert "folder cannot be created" in refused(f"sqlite:///{path}/store.sqlite")


@pytest.mark.usefixtures("powerless")
def test_an_unwritable_folder() -> None:
    assert "folder cannot be" in refused("sqlite:////proc/store.sqlite")
    assert "folder cannot be" in refused("sqlite:////etc/metta/store.sqlite")


def test_a_read_only_file(path: Path, request: pytest.FixtureRequest) -> None:
    open_store(f"sqlite:///{path}").close()
    path.chmod(0o444)
    path.parent.chmod(0o777)
    for folder in list(path.parents)[1:4]:
        if folder.stat().st_uid == os.geteuid() and "pytest" in str(folder):
            folder.chmod(0o755)
    request.getfixturevalue("powerless")
    assert "read-only" in refused(f"sqlite:///{path}")


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_text("trials: none\n" * 1000)
    assert "not an SQLite database" in refused(f"sqlite:///{path}")


def test_a_database_of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    assert "belongs to another program" in refused(f"sqlite:///{path}")


@pytest.mark.parametrize("kept", [0, 50, 4096, 30_000, 0.5])
def test_a_truncated_file(path: Path, kept: float) -> None:
    filled(open_store(f"sqlite:///{path}")).close()
    size = path.stat().st_size
    os.truncate(path, int(kept * size) if kept == 0.5 else int(kept))
    message = refused(f"sqlite:///{path}")
    assert "truncated" in message or "not an SQLite database" in message


def test_a_file_damaged_under_an_open_store(path: Path) -> None:
    store = filled(open_store(f"sqlite:///{path}"))
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match="damaged or truncated"):
        store.trials("arena")


# ---- PostgreSQL


def test_a_limit_of_the_size_of_files_is_waited_for_and_named(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(filled(open_store(f"sqlite:///{path}"))) as store:
        store.hurry(0.1)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
            with pytest.raises(StoreError, match="a file is at this process's limit of 4,096 bytes; gave up after"):
                store.enqueue("arena", {"lr": 0.1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        store.enqueue("arena", {"lr": 0.1})


def test_a_refused_login(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    message = refused(url.replace("sesame%401", "sesame2"))
    assert "password authentication failed" in message
    assert 'database "no_such" does not exist' in refused(url.rpartition("/")[0] + "/no_such")


def test_a_server_that_is_not_there() -> None:
    assert "Connection refused" in refused("postgresql+psycopg://metta:sesame@127.0.0.1:1/sweeps")


def test_a_role_without_rights(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    database = url.rpartition("/")[2]
    with postgres_server.connect(database) as connection:
        connection.execute("DROP ROLE IF EXISTS visitor")
        connection.execute("CREATE ROLE visitor LOGIN PASSWORD 'sesame'")
    assert "permission denied" in refused(f"postgresql://visitor:sesame@127.0.0.1:{postgres_server.port}/{database}")


def test_a_database_that_cannot_hold_every_letter(postgres_server: PostgresServer) -> None:
    with postgres_server.connect("postgres") as connection:
        for encoding in ("LATIN1", "SQL_ASCII"):
            connection.execute(
                f"CREATE DATABASE encoded_{encoding} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
                "TEMPLATE template0".encode()
            )
    assert "the database has the encoding LATIN1; create one with UTF8" in refused(
        postgres_server.url("encoded_latin1")
    )
    with closing(open_store(postgres_server.url("encoded_sql_ascii"))) as store:
        filled(store)
        store.enqueue("arena", {"größe": "中"})
        assert [trial.params for trial in store.trials("arena")][-1] == {"größe": "中"}


def test_tables_of_others_do_not_matter(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    with postgres_server.connect(url.rpartition("/")[2]) as connection:
        connection.execute("CREATE TABLE trials (a int)")
        connection.execute("CREATE TABLE alembic_version (version_num text)")
    store = filled(open_store(url))
    assert len(store.trials("arena")) == 500
    store.close()


# ---- both


def test_the_url_that_is_shown_holds_no_password(store: Store, store_url: str) -> None:
    assert "sesame" not in store.url
    assert store.url.startswith(store_url.partition(":")[0])


def test_an_empty_database_without_create(postgres_server: PostgresServer, path: Path) -> None:
    assert "no sweeps in this database" in refused(postgres_server.new_database(), create=False)
    sqlite3.connect(path).execute("PRAGMA user_version = 1").connection.close()
    assert "no sweeps in this database" in refused(f"sqlite:///{path}", create=False)


def test_a_store_of_a_newer_version(store: Store, store_url: str) -> None:
    engine = create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE metta_schema_version SET version_num = '9999'"))
    message = refused(store_url)
    assert "newer metta-sweep" in message
    assert "upgrade" in message
    engine.dispose()


def test_many_processes_create_one_store_at_once(store_url: str) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_count_sweeps, [store_url] * 4, chunksize=1) == [0] * 4
    assert filled(open_store(store_url)).revision("arena") == 1


def _count_sweeps(url: str) -> int:
    return len(open_store(url).sweeps())


def test_opening_a_current_store_does_not_import_alembic(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = builtins.__import__

    def refuse(name: str, *arguments: object) -> object:
        assert not name.startswith("alembic")
        return importing(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    open_store(store_url).close()


def test_a_log_of_another_file_is_refused_and_nothing_is_changed(path: Path) -> None:
    store = filled(open_store(f"sqlite:///{path}"))
    backup = path.with_name("backup.sqlite")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
        trials = [TrialHistory(Trial(number, TrialState.COMPLETED, {"lr": 0.1})) for number in range(500)]
        for name in ("second", "third"):
            source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            store.import_sweep(SweepRecord(name, {}, None, datetime.now(UTC)), trials)
        shutil.copy(f"{path}-wal", f"{backup}-wal")
    store.close()
    before = backup.read_bytes()
    assert "do not belong together" in refused(f"sqlite:///{backup}")
    assert backup.read_bytes() == before


def test_a_log_that_a_killed_driver_left_is_read(path: Path) -> None:
    store = filled(open_store(f"sqlite:///{path}"))
    copy = path.with_name("copy.sqlite")
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    store.close()
    with closing(open_store(f"sqlite:///{copy}")) as opened:
        assert len(opened.trials("arena")) == 500


@pytest.mark.parametrize(
    ("module", "name", "reason"),
    [(fcntl, "lockf", "its files cannot be locked"), (mmap, "mmap", "its files cannot be shared in memory")],
)
def test_a_folder_that_refuses_what_sqlite_needs_is_named(
    module: ModuleType, name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on some network file systems. The benchmarks of faults make SQLite's own calls fail."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    path = tmp_path / "store.sqlite"
    open_store(f"sqlite:///{path}").close()
    monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.01)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("DELETE FROM metta_trials")
        with pytest.raises(StoreError, match=f"{reason} .No locks available., as on some network file systems; put"):
            open_store(f"sqlite:///{path}")
