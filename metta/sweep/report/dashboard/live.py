"""A sweep that is shown while it runs: only changes are read, and a background thread analyses it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from metta.common.plain import strict
from metta.sweep.analysis.confirmation import SUFFIX
from metta.sweep.analysis.model import Analysis, analyse
from metta.sweep.definition import DefinitionError, SweepDefinition, read_definition
from metta.sweep.observations import ObservationReader
from metta.sweep.report.curves import curve_metric, curve_numbers
from metta.sweep.report.html import page
from metta.sweep.state import SweepState, confirmations, with_all_curves
from metta.sweep.store.protocol import CurvePoint, Store, SweepNotFoundError
from metta.sweep.traits import ToolTraits
from metta.sweep.trial import Trial, TrialState

log = logging.getLogger(__name__)

REST = 5.0
"""The pause before the next analysis, as a multiple of the time that the last one took."""

PATIENCE = 2.0
"""Seconds to wait for the first analysis, enough for 10,000 trials. While it runs, a browser on the same machine shows
the page half as fast."""

CURVE_SECONDS = 2.0
"""Seconds after which a running trial's learning curve is read again."""


class LiveSweep:
    """One sweep of a store, kept up to date. Threads may share it.

    It reads only the trials that changed since the last time. A background thread analyses the sweep; `snapshot` has
    the latest analysis.
    """

    def __init__(self, store: Store, name: str, analysts: ThreadPoolExecutor) -> None:
        self._store = store
        self._name = name
        self._analysts = analysts
        self._lock = threading.RLock()
        self._trials: dict[int, Trial] = {}
        self._changed: dict[int, int] = {}  # the revision as of which each trial is known
        self._rows: dict[int, list[Any]] = {}  # rows of the table that were requested
        self._row_paths: list[str] = []  # the parameters in these rows
        self._reader: ObservationReader | None = None
        self._definition: SweepDefinition | None = None
        self._created_at: Any = None
        self._revision = 0
        self._confirmed_revision = 0
        self._snapshot: SweepState | None = None
        self._analysis: Analysis | None = None
        self._analysed = -1  # revision of the analysis
        self._analysing: Future[None] | None = None  # the latest request to the model
        self._analyse_after = 0.0
        self._curves: dict[int, _Curve] = {}
        self._built: dict[str, Any] = {}
        self._built_version = ""

    def warm_up(self) -> None:
        """Read and analyse the sweep, and wait for the analysis unless it takes long."""
        self.rows(since=0)
        if self._analysing is not None:
            wait([self._analysing], timeout=PATIENCE)

    def snapshot(self) -> SweepState:
        """The present sweep, with the latest analysis.

        Raises:
            SweepNotFoundError: it was removed.
            StoreError: the store cannot be read.
        """
        with self._lock:
            revision, confirmed = self._store.revision(self._name), self._confirmed()
            if self._snapshot is None or (revision, confirmed) != (self._revision, self._confirmed_revision):
                self._confirmed_revision = confirmed
                self._read(revision)
            self._analyse_if_due()
            assert self._snapshot is not None
            return self._snapshot

    @property
    def version(self) -> str:
        """A text that changes whenever the page may have changed."""
        return f"{self._revision}.{self._analysed}.{self._confirmed_revision}"

    def built(self, key: str, build: Callable[[SweepState], Any]) -> Any:
        """The result of `build` for the snapshot, cached for each version."""
        with self._lock:
            snapshot = self.snapshot()
            if self._built_version != self.version:
                self._built, self._built_version = {}, self.version
            if key not in self._built:
                self._built[key] = build(snapshot)
            return self._built[key]

    def rows(self, since: int) -> dict[str, Any]:
        """The table's rows of trials that changed after revision `since`, and the revision as of which they are."""
        with self._lock:
            snapshot = self.snapshot()
            paths = list(snapshot.searched)
            if paths != self._row_paths:
                self._rows, self._row_paths = {}, paths
            changed = sorted(number for number, revision in self._changed.items() if revision > since)
            for number in changed:
                if number not in self._rows:
                    self._rows[number] = page.row(snapshot.by_number[number], paths)
            return {"revision": self._revision, "rows": [self._rows[number] for number in changed]}

    def with_curves(self, only: int | None = None) -> SweepState:
        """The snapshot with the learning curves that its plot shows, or with that of one trial."""
        with self._lock:
            snapshot = self.snapshot()
            chosen = curve_numbers(snapshot) if only is None else [only]
            return replace(snapshot, curves={number: self._curve(self._trials[number]) for number in chosen})

    def trial(self, number: int) -> Trial | None:
        with self._lock:
            return self.snapshot().by_number.get(number)

    def running(self) -> list[dict[str, Any]]:
        """The progress of the running trials."""
        with self._lock:
            snapshot = self.snapshot()
            return [self._progress(trial) for trial in snapshot.with_state(TrialState.RUNNING)[:32]]

    def _progress(self, trial: Trial) -> dict[str, Any]:
        points = self._curve(trial)
        last = points[-1] if points else None
        definition = self._snapshot.definition if self._snapshot else None
        traits, watched = (definition.traits, definition.progress_metric) if definition else (ToolTraits(), None)
        metric = curve_metric(self._snapshot.metric if self._snapshot else "", points, traits, watched=watched)
        return {
            "number": trial.number,
            "step": last.step if last else None,
            "speed": last.metrics.get(traits.speed or "") if last else None,
            "speed_unit": traits.speed_unit,
            "metric": metric,
            "value": strict(last.metrics[metric]) if last and metric in last.metrics else None,
        }

    def _read(self, revision: int) -> None:
        record = self._store.sweep(self._name)
        if record.created_at != self._created_at or revision < self._revision:  # another sweep of the same name
            self._trials, self._changed, self._curves, self._rows = {}, {}, {}, {}
            self._revision, self._analysis, self._analysed = 0, None, -1
            self._created_at = record.created_at
        for trial in self._store.trials(self._name, changed_since=self._revision):
            self._trials[trial.number] = trial
            self._changed[trial.number] = revision
            self._rows.pop(trial.number, None)
        self._revision = revision
        definition = read_definition(record)
        if self._reader is None or definition != self._definition:
            self._reader, self._definition = ObservationReader(definition), definition
            self._rows = {}  # every score may have changed
            self._changed = dict.fromkeys(self._changed, revision)
        state = SweepState.of(
            record,
            definition,
            [trial for _, trial in sorted(self._trials.items())],
            self._reader,
            self._store.url,
            confirmations(self._store, self._name, definition),
        )
        self._snapshot = replace(state, analysis=self._analysis, asking=self._analysis is None)

    def _confirmed(self) -> int:
        """The revision of the sweep that confirms this one, or 0 where there is none."""
        try:
            return self._store.revision(f"{self._name}{SUFFIX}")
        except SweepNotFoundError:
            return 0

    def _analyse_if_due(self) -> None:
        """Start an analysis in the background, unless these trials are analysed, one is running, or it is too soon."""
        busy = self._analysing is not None and not self._analysing.done()
        if self._analysed == self._revision or busy or time.monotonic() < self._analyse_after:
            return
        assert self._snapshot is not None
        self._analysing = self._analysts.submit(self._analyse, self._snapshot, self._revision)

    def _analyse(self, snapshot: SweepState, revision: int) -> None:
        start = time.monotonic()
        try:
            analysis = analyse(with_all_curves(self._store, replace(snapshot, asking=False, analysis=None)))
            with self._lock:
                if self._snapshot is not None and snapshot.record.created_at == self._created_at:
                    self._analysis, self._analysed = analysis, revision
                    self._snapshot = replace(self._snapshot, analysis=analysis, asking=analysis is None)
        except Exception:  # the page works without it; the next change of a trial starts another
            log.exception("sweep %r: the model cannot be asked", self._name)
            self._analysed = revision
        finally:
            self._analyse_after = time.monotonic() + REST * (time.monotonic() - start)

    def _curve(self, trial: Trial) -> list[CurvePoint]:
        known = self._curves.get(trial.number)
        key = (trial.state, trial.attempts)
        fresh = known is not None and (trial.state.ended or time.monotonic() - known.read_at < CURVE_SECONDS)
        if known is None or known.key != key or not fresh:
            known = _Curve(key, time.monotonic(), self._store.curve(self._name, trial.number))
            self._curves[trial.number] = known
        return known.points


@dataclass(frozen=True)
class _Curve:
    key: tuple[TrialState, int]
    read_at: float
    points: list[CurvePoint]


class LiveStore:
    """The sweeps of a store, each kept up to date after it was first requested."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._sweeps: dict[str, LiveSweep] = {}
        self._analysts = ThreadPoolExecutor(max_workers=1, thread_name_prefix="analysis")

    @property
    def url(self) -> str:
        return self._store.url

    def names(self) -> list[str]:
        """The sweeps' names, the latest first."""
        return [record.name for record in reversed(self._store.sweeps())]

    def sweep(self, name: str) -> LiveSweep:
        """Raises SweepNotFoundError."""
        with self._lock:
            if name not in self._sweeps:
                self._store.sweep(name)
                self._sweeps[name] = LiveSweep(self._store, name, self._analysts)
            return self._sweeps[name]

    def warm_up(self, name: str | None) -> None:
        """Read the sweep of that name, or the latest one, before it is requested.

        If the latest one cannot be read, its page says so; the others are still shown.
        """
        if name:
            self.sweep(name).warm_up()
        elif latest := self.names()[:1]:
            with suppress(DefinitionError):
                self.sweep(latest[0]).warm_up()

    def close(self) -> None:
        self._analysts.shutdown(wait=True, cancel_futures=True)
        self._store.close()


def overview(live: LiveSweep) -> dict[str, Any]:
    """The page of a sweep, without its plots and the rows of its table."""

    def build(sweep: SweepState) -> dict[str, Any]:
        return {
            "name": sweep.record.name,
            "facts": page.facts_html(sweep),
            "findings": page.answers_html(sweep),
            "progress": page.progress(sweep),
            "first": -sweep.sign,
            "columns": page.columns(sweep),
            "ranking": page.ranking(sweep),
            "failures": page.failures(sweep),
            "retry": page.retry(sweep),
            "plots": page.plot_list(sweep),
            "templates": page.TEMPLATES,
            "version": live.version,
        }

    answer: dict[str, Any] = live.built("overview", build)
    return answer
