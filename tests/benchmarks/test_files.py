"""The count of sweep files: what is read, with which option, what is refused, and that a misread file is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.files.__main__ import sweep_files, table
from benchmarks.files.reading import fits, misread, read
from metta.sweep.program.command_sweep import from_file

WHOLE = """
program: train.py
method: bayes
metric: {name: loss}
run_cap: 3
parameters: {lr: {distribution: log_uniform, min: -9.0, max: -2.0}, model: {parameters: {depth: {values: [1, 2]}}}}
"""
FILES = {
    "whole.yaml": WHOLE,
    "deep/uncapped.yml": "program: a.py\nmethod: random\nmetric: {name: loss}\nparameters: {a: {values: [1, 2]}}\n",
    "grid.yaml": "method: grid\nparameters: {a: {values: [x, y]}, b: {min: 1, max: 3}, c: {value: {d.e: 1}}}\n",
    "refused.yaml": WHOLE.replace("log_uniform", "log_unifrom"),
    "broken.yaml": "method: grid\nparameters: {a: [\n",
    "other.yaml": "jobs: [1, 2]\n",
}


def test_files_are_counted_by_what_becomes_of_them(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    readings = {file.name: read(file) for file in sweep_files(tmp_path)}

    assert {name: reading.outcome for name, reading in readings.items()} == {
        "whole.yaml": "read",
        "uncapped.yml": "read",
        "grid.yaml": "read",
        "refused.yaml": "refused",
        "broken.yaml": "refused",
    }
    assert readings["whole.yaml"].detail == ""
    assert readings["uncapped.yml"].detail == "--num-trials"
    assert (
        readings["grid.yaml"].detail == "--program, --metric" or readings["grid.yaml"].detail == "--metric, --program"
    )
    assert "did you mean 'log_uniform'" in readings["refused.yaml"].detail
    assert "| **read in total** | **3 of 5** | **60%** |" in table(list(readings.values()))


@pytest.mark.parametrize(
    ("description", "value", "right"),
    [
        ({"value": {"a.b": 1}}, {"a.b": 1}, True),
        ({"value": {"a.b": 1}}, {"a": {"b": 1}}, False),
        ({"values": [1, "1"]}, "1", True),
        ({"values": [1]}, 2, False),
        ({"min": 1, "max": 3}, 2.5, False),
        ({"min": 1, "max": 3.0}, 2.5, True),
        ({"distribution": "log_uniform", "min": -2, "max": -1}, 0.2, True),
        ({"distribution": "log_uniform", "min": -2, "max": -1}, -1.5, False),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 4}, 8, True),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 4}, 6, False),
        ({"parameters": {"a": {"value": 1}}}, {"a": 1, "b": 2}, False),
    ],
)
def test_whether_a_value_is_what_the_file_says(description: Any, value: Any, right: bool) -> None:
    assert fits(description, value) is right


def test_a_file_whose_program_is_given_something_else_is_misread(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(WHOLE)
    sweep = from_file(str(tmp_path / "sweep.yaml"))
    model = {"parameters": {"depth": {"values": [1, 2]}}}

    assert misread({"lr": {"distribution": "log_uniform", "min": -9, "max": -2}, "model": model}, sweep) == ""
    assert "lr=" in misread({"lr": {"min": 0.9, "max": 1.0}, "model": model}, sweep)
    assert "names" in misread({"learning_rate": {"min": 0.0, "max": 1.0}, "model": model}, sweep)
