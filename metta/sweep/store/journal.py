"""Writes that the store did not accept, kept beside the runs until they can be added to the store.

A journal is a file of JSON lines: the sweep, then a line for each trial whose state the store may not hold. Every line
is on the disk before the driver continues.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from metta.common.counts import count_text
from metta.sweep.store import encoding
from metta.sweep.store.process import Process, this_process
from metta.sweep.store.protocol import Store, StoreError, SweepRecord, TrialHistory
from metta.sweep.store.transfer import with_text_dates

_PATTERN = "journal-*.jsonl"
_process = TypeAdapter(Process)
_record = TypeAdapter(SweepRecord)
_history = TypeAdapter(TrialHistory)
_in_use: set[Path] = set()  # journals of drivers that this process runs


class Journal:
    """Trials whose current state may be missing from the store.

    Args:
        folder: the folder of the file; if None, the trials are kept in memory only.
        store: URL of the store, without any password.
        record: the sweep.
    """

    def __init__(self, folder: Path | None, store: str, record: SweepRecord) -> None:
        process = this_process()
        self.path = None if folder is None else folder / f"journal-{process.host}-{process.pid}.jsonl"
        self._head = {
            "store": store,
            "process": _process.dump_python(process),
            "sweep": with_text_dates(_record.dump_python(record, exclude={"damage"})),
        }
        self._kept: dict[int, TrialHistory] = {}
        self._unwritten: list[TrialHistory] = []
        if self.path is not None:
            _in_use.add(self.path.resolve())

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def histories(self) -> list[TrialHistory]:
        """The trials in the journal, by number."""
        return [history for _, history in sorted(self._kept.items())]

    def keep(self, histories: Iterable[TrialHistory]) -> None:
        """Add trials, and write them to the disk before this returns.

        Raises:
            OSError: the disk refuses them; they are kept in memory, and written with the next ones.
        """
        new = list(histories)
        for history in new:
            _merge(self._kept, history)
        if self.path is None:
            return
        self._unwritten += new
        size = self.path.stat().st_size if self.path.exists() else 0
        lines = [] if size else [encoding.dumps(self._head)]
        lines += [encoding.dumps({"trial": _plain(history)}) for history in self._unwritten]
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # a partial line would corrupt the lines after it
                os.truncate(self.path, size)
            raise
        self._unwritten.clear()

    def drop(self, number: int) -> None:
        """Forget a trial, because the store holds it now."""
        self._kept.pop(number, None)
        if not self._kept:
            self.clear()

    def release(self) -> None:
        """The driver ends; what is kept is for the next one, which may be of the same process."""
        if self.path is not None:
            _in_use.discard(self.path.resolve())

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._unwritten.clear()
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def bring_in_journals(store: Store, sweep: str, root: Path, notice: Callable[[str], None]) -> None:
    """Add to this store the writes that earlier drivers of a sweep could not make.

    What a living driver keeps is for itself to bring in, but where the store lacks the sweep it is brought in as well:
    created again, it would not be that driver's sweep.

    Args:
        root: the folder that contains the folders of the sweep's runs.
    """
    for path in sorted(root.glob(f"*/{_PATTERN}")):
        try:
            if not path.stat().st_size:  # the disk was full when the file was created
                continue
            head, histories = _read(path)
            process = _process.validate_python(head["process"])
            lives = process.is_here() and not process.has_died()
            if process == this_process():
                lives = path.resolve() in _in_use
            if head["store"] != store.url or (lives and sweep in [each.name for each in store.sweeps()]):
                continue
            changed = store.bring_in(_record.validate_python(head["sweep"]), histories)
            if not lives:
                path.unlink()
        except FileNotFoundError:  # another driver was faster
            continue
        except (StoreError, OSError, ValidationError, LookupError, TypeError, ValueError) as error:
            notice(f"the journal {path} cannot be added to the store: {error}")
            continue
        if changed:
            notice(f"{count_text(changed, 'trial')} of {sweep} added from the journal of a driver that lost its store")


def _read(path: Path) -> tuple[Mapping[str, Any], list[TrialHistory]]:
    """The first line of a journal, and its trials. A last line that was cut short is skipped."""
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = [encoding.loads(line) for line in lines[:-1]]
    kept: dict[int, TrialHistory] = {}
    for line in whole[1:]:
        _merge(kept, _history.validate_python(line["trial"]))
    if not whole:
        raise ValueError("it is empty")
    return whole[0], [history for _, history in sorted(kept.items())]


def _merge(kept: dict[int, TrialHistory], history: TrialHistory) -> None:
    """Replace a trial by its later state, with the longer of both learning curves."""
    before = kept.get(history.trial.number)
    if before is not None:
        known = {(point.attempt, point.step, point.seconds) for point in before.curve}
        new = [point for point in history.curve if (point.attempt, point.step, point.seconds) not in known]
        seconds = max(before.seconds_lost, history.seconds_lost)
        history = replace(history, curve=[*before.curve, *new], seconds_lost=seconds)
    kept[history.trial.number] = history


def _plain(history: TrialHistory) -> Any:
    return with_text_dates(_history.dump_python(history, exclude={"trial": {"damage"}}))
