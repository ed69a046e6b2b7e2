"""A trial written as a run, and read back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from metta.sweep.store.protocol import CurvePoint, SweepRecord
from metta.sweep.trial import Trial, TrialState
from metta.sweep.wandb import records

FLOATS = st.floats(allow_nan=True, allow_infinity=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | FLOATS | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(st.text(max_size=8), JSON, max_size=4)
MOMENTS = st.datetimes(timezones=st.just(UTC), allow_imaginary=False).map(lambda time: time.replace(fold=0))
TIMES = st.none() | MOMENTS
TRIALS = st.builds(
    Trial,
    number=st.integers(0, 10_000),
    state=st.sampled_from(TrialState),
    params=DATA,
    suggestion=DATA,
    attempts=st.integers(0, 5),
    score=st.none() | FLOATS,
    cost=st.none() | FLOATS,
    metrics=st.dictionaries(st.text(max_size=8), FLOATS, max_size=4),
    artefacts=st.dictionaries(st.text(max_size=8), st.text(), max_size=2),
    error=st.none() | st.text(),
    created_at=TIMES,
    started_at=TIMES,
    ended_at=TIMES,
    dropped=st.none() | st.text(),
    cost_metric=st.none() | st.text(),
)


def test_records_of_other_versions_are_read() -> None:
    trial = Trial(3, TrialState.COMPLETED, {}, damage=("error: 3 is not text",))
    text = records.encode_trial(trial)
    assert {"dropped", "cost_metric", "damage"}.isdisjoint(json.loads(text)), "what an earlier version wrote"
    assert records.decode_trial(json.dumps(json.loads(text) | {"of a later version": 1})) == replace(trial, damage=())


@given(TRIALS)
def test_a_trial_is_read_back_as_it_was(trial: Trial) -> None:
    assert repr(records.decode_trial(records.encode_trial(trial))) == repr(trial)


@given(TRIALS)
def test_what_is_shown_of_a_trial_is_plain_json(trial: Trial) -> None:
    text = records.encode_trial(trial)
    summary = records.shown(records.trial_summary(trial, text))
    assert json.loads(json.dumps(summary, allow_nan=False))[records.KEY] == {
        "trial": text,
        "digest": records.digest(text),
    }


def test_a_pruned_trial_is_shown_neither_as_a_failure_nor_with_a_score() -> None:
    trial = Trial(3, TrialState.PRUNED, {}, cost=2.0, metrics={"reward": 0.5}, stopped="9th of 9", share=0.3)
    summary = records.trial_summary(trial, records.encode_trial(trial))
    del summary[records.KEY]
    assert summary == {
        "reward": 0.5,
        "state": "pruned",
        "attempts": 0,
        "cost": 2.0,
        "stopped": "9th of 9",
        "share": 0.3,
    }
    assert records.decode_trial(records.encode_trial(trial)) == trial


@given(DATA, st.none() | DATA, MOMENTS)
def test_a_sweep_is_read_back_as_it_was(config: dict[str, Any], entry: dict[str, Any] | None, time: datetime) -> None:
    record = SweepRecord("arena", config, entry, time)
    assert repr(records.decode_sweep(records.encode_sweep(record))) == repr(record)


@given(
    st.builds(
        CurvePoint,
        attempt=st.integers(1, 3),
        step=st.integers(0, 2**40),
        seconds=st.floats(0, 1e9),
        metrics=st.dictionaries(st.text("abc/", min_size=1), FLOATS, max_size=3),
    )
)
def test_a_point_of_the_learning_curve_is_read_back_as_it_was(point: CurvePoint) -> None:
    row = {**records.history_row(point), "_step": 3, "_timestamp": 1.0, "_runtime": 2.0}
    assert repr(records.curve_point(row)) == repr(point)


def test_a_row_of_other_origin_is_no_point() -> None:
    assert records.curve_point({"_step": 0, "reward": 1.0}) is None


def test_no_key_is_in_an_explanation() -> None:
    key = "local-0123456789abcdef0123456789abcdef01234567"
    assert key not in records.explain(ValueError(f"bad\n  Authorization: {key}"))
    assert records.explain(TimeoutError()) == "TimeoutError without a reason"
    assert records.explain(ValueError("giving up\nHTTP 503")) == "giving up; HTTP 503"
