"""Detects whether a run was alone in its working folder, so that files that appeared there are its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path


class FolderUse:
    """Marks, for other runs on this machine, that a run works in a folder.

    Each run holds a lock on its own file; the system releases the lock when the process ends, even if it is killed.

    Args:
        folder: the working folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
        self._notes = Path(tempfile.gettempdir()) / f"metta-{os.getuid()}" / digest
        self._notes.mkdir(parents=True, exist_ok=True)
        self._own = self._notes / uuid.uuid4().hex
        self._lock = self._own.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        others = [path for path in self._notes.iterdir() if path != self._own]
        self._alone = not any(_locked(path) for path in others)
        if self._alone:
            for path in others:
                path.unlink(missing_ok=True)
        self._known = set(self._notes.iterdir())

    @property
    def alone(self) -> bool:
        """Whether no other run has worked in the folder since this one started."""
        return self._alone and set(self._notes.iterdir()) <= self._known

    def end(self) -> None:
        """Record that this run has stopped working there."""
        self._lock.close()


def _locked(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
