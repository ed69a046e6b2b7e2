"""A store with sweeps to look at: one that went well, one whose every name is hostile, one that fails, an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from metta.sweep.protein_config import ParameterConfig, ProteinConfig
from metta.sweep.report.curves import with_curves
from metta.sweep.state import SweepState, read_state
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.trial import Progress, TrialState
from tests.support.made_sweep import made_definition, make_sweep

EVIL = "</script><img src=x onerror=alert(1)>%{x}<b>"
MADE = 80


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('report') / 'store.db'}"


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    make_sweep(opened, "made", MADE, planned=100)
    opened.create_sweep("empty", made_definition(5).model_dump(mode="json"))
    _fill_failing(opened)
    _fill_hostile(opened)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def snapshot(url: str, store: Store) -> Callable[[str], SweepState]:
    """A snapshot of one of the store's sweeps, by its name; each is taken once."""
    taken: dict[str, SweepState] = {}

    def take(name: str) -> SweepState:
        if name not in taken:
            taken[name] = with_curves(store, read_state(store, name).analysed())
        return taken[name]

    return take


def _fill_failing(store: Store) -> None:
    store.create_sweep("failing", made_definition(9).model_dump(mode="json"))
    params = store.trials("made")[0].params
    for size in (1.5, 2.5, 3e9):
        error = f"Traceback (most recent call last):\n  a line\nRuntimeError: out of memory: {size} GiB"
        store.add("failing", params, Outcome(TrialState.FAILED, cost=1.0, error=error))
    store.add("failing", params, Outcome(TrialState.FAILED, error="ValueError: no"))


def _fill_hostile(store: Store) -> None:
    choices: list[Any] = [EVIL, '"><svg onload=alert(2)>']
    parameters = {
        f"a{EVIL}": ParameterConfig(choices=choices, distribution="categorical"),
        "b": ParameterConfig(min=0.001, max=1.0, distribution="log_normal"),
    }
    protein = ProteinConfig(metric=EVIL, parameters=parameters, goal="minimize")
    definition = made_definition(30).model_copy(update={"protein": protein, "tool": {}, "cost_metric": EVIL})
    store.create_sweep(EVIL, definition.model_dump(mode="json"), {"path": "a.b", "args": {"x": EVIL}, "overrides": {}})
    driver = store.join(EVIL)
    for number in range(12):
        params = {f"a{EVIL}": choices[number % 2], "b": 0.01 * (number + 1)}
        suggestion = {"source": EVIL, "score": 1.0 + number, "score_std": 0.5, "cost": 2.0} if number > 3 else {}
        attempt = store.start(driver, number, params, suggestion)
        store.record_progress(attempt, [Progress(1, 2, 0.5, {EVIL: 1.0}), Progress(2, 2, 1.0, {EVIL: 2.0})])
        if number % 5 == 4:
            store.end(attempt, Outcome(TrialState.FAILED, cost=1.0, error=f"Traceback\n{EVIL}"))
        else:
            artefacts = {"policy": "javascript:alert(3)", EVIL: EVIL}
            score = 5.0 - 0.1 * number
            store.end(attempt, Outcome(TrialState.COMPLETED, score, 1.0 + number, 1.0, {EVIL: score}, artefacts))
    store.leave(driver)
