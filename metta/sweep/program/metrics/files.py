"""The metrics files that a program wrote: found in its folders, and read again as they grow."""

from __future__ import annotations

import glob
import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from metta.sweep.program.metrics import KINDS, kind_found, kind_named
from metta.sweep.program.metrics.row import Row

LOOK_SECONDS = 1.0
_SHARE = 20  # looking takes at most 1/20 of the time
MOST_ENTRIES = 20_000
"""The most files and folders that are looked at; larger folders hold data sets, not logs."""
LARGEST_FOUND = 100_000_000  # bytes; a larger file is read only if it is named
LARGEST = 2_000_000_000
_PROGRAMS = ("__pycache__", "node_modules", "site-packages")
_CHECKED_BYTES = 256

_Signature = tuple[int, int, int]


@dataclass(frozen=True)
class _Before:
    """The state of a file before the program started."""

    signature: _Signature
    size: int
    end: str


class MetricFile:
    """A file of metrics.

    Attributes:
        path: its path.
        kind: its kind, from `KINDS`.
    """

    def __init__(self, path: Path, kind: str, before: _Before | None) -> None:
        self.path = path
        self.kind = kind
        self._before = before
        self._signature = before.signature if before else None
        self._given = -1

    def new_rows(self) -> list[Row]:
        """The rows since the last call, without those from before the program started."""
        signature = _signature(self.path)
        if signature is None or signature == self._signature or signature[1] > LARGEST:
            return []
        self._signature = signature
        try:
            data = self.path.read_bytes()
        except OSError:
            return []
        parse = KINDS[self.kind].parse
        if self._given < 0:
            appended = (
                self._before is not None
                and len(data) > self._before.size
                and _end(data, self._before.size) == self._before.end
            )
            self._given = len(parse(data[: self._before.size])) if appended and self._before else 0
        rows = parse(data)
        given = self._given if self._given <= len(rows) else 0  # a shorter file was started again
        self._given = len(rows)
        return rows[given:]


class MetricFiles:
    """The files of metrics of one run.

    Args:
        folders: where to look for files that appear or change.
        kinds: the kinds to look for there.
        named: paths that the user named instead, with ``*`` and ``**`` as in a shell; no other files are looked at.
        passed_over: files and folders that are ignored.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        kinds: Iterable[str],
        named: Sequence[str] = (),
        passed_over: Collection[Path] = (),
    ) -> None:
        self._folders = list(folders)
        self._kinds = {kind for kind in kinds if kind != "wandb" or find_spec("wandb") is not None}
        self._named = named
        self._passed_over = passed_over
        self.too_large: list[Path] = []
        """Files that were found but not read."""
        self._before = {path: before for path, _ in self._present() if (before := _before(path)) is not None}
        self._files: dict[Path, MetricFile] = {}
        self._next_look = time.monotonic() + LOOK_SECONDS

    @property
    def due(self) -> bool:
        """Whether it is time to look again; looking more often would cost too much."""
        return time.monotonic() >= self._next_look

    def look(self) -> list[tuple[MetricFile, list[Row]]]:
        """The files that have new rows, with these rows."""
        began = time.monotonic()
        for path, kind in self._present():
            if path not in self._files:
                self._files[path] = MetricFile(path, kind, self._before.get(path))
        found = [(file, rows) for file in self._files.values() if (rows := file.new_rows())]
        self._next_look = time.monotonic() + max(LOOK_SECONDS, _SHARE * (time.monotonic() - began))
        return found

    def _present(self) -> Iterator[tuple[Path, str]]:
        """The existing files, with their kinds."""
        if self._named:
            for pattern in self._named:
                for name in sorted(glob.glob(pattern, recursive=True)):
                    yield Path(name), kind_named(name)
            return
        self.too_large = []
        for path in _walk(self._folders, self._passed_over):
            kind = kind_found(path.name)
            if kind not in self._kinds or path in self._passed_over:
                continue
            signature = _signature(path)
            if signature is not None and signature[1] > LARGEST_FOUND:
                self.too_large.append(path)
            elif signature is not None:
                yield path, kind


def _walk(folders: Iterable[Path], passed_over: Collection[Path]) -> Iterator[Path]:
    """The files in folders, except in hidden ones and those of programs and their environments."""
    left = MOST_ENTRIES
    for folder in folders:
        for place, below, names in os.walk(folder):
            left -= len(below) + len(names)
            if left < 0:
                return
            logs = [name for name in sorted(below) if not name.startswith(".") and name not in _PROGRAMS]
            here = "pyvenv.cfg" not in names
            below[:] = [name for name in logs if here and Path(place, name) not in passed_over]
            yield from (Path(place, name) for name in sorted(names))


def _signature(path: Path) -> _Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _before(path: Path) -> _Before | None:
    signature = _signature(path)
    if signature is None:
        return None
    try:
        with path.open("rb") as file:
            file.seek(max(0, signature[1] - _CHECKED_BYTES))
            return _Before(signature, signature[1], _digest(file.read()))
    except OSError:
        return None


def _end(data: bytes, size: int) -> str:
    return _digest(data[max(0, size - _CHECKED_BYTES) : size])


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
