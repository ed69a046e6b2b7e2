"""Where a program's metrics come from: loggers' files, patterns, and output of every form."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from metta.common.errors import UserError
from metta.sweep.program.command_sweep import from_file
from metta.sweep.program.metrics import csv_file, json_file, kind_named, npz_file, tensorboard
from metta.sweep.program.metrics.files import MetricFiles
from metta.sweep.program.metrics.folder_use import FolderUse
from metta.sweep.program.metrics.json_text import parse_line
from metta.sweep.program.metrics.patterns import Patterns, suggest_pattern
from metta.sweep.program.metrics.plain_text import PlainText
from metta.sweep.program.metrics.reading import FileReader, LineReader
from metta.sweep.program.metrics.row import Row
from metta.sweep.program.metrics.take import Take, TakeName
from metta.sweep.program.trial import CommandTrial
from metta.sweep.result import SweepResult
from metta.sweep.store import open_store
from metta.sweep.sweep import MishapError
from metta.sweep.trial import TrialSpec, TrialState

EVENTS = Path(__file__).parent / "data" / "events.out.tfevents.example"
"""Written by `torch.utils.tensorboard`: text, scalars in the old and the new form, NaN."""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def run(script: str, **fields: Any) -> SweepResult:
    """Sweep a shell script that gets x."""
    Path("train.sh").write_text(script)
    parameters = {"x": {"min": 0, "max": 1, "distribution": "uniform"}, "steps": 40}
    data = {"command": "sh train.sh ${x}", "num_trials": 1, "parameters": parameters, "write_report": False, **fields}
    Path("sweep.yaml").write_text(yaml.safe_dump(data))
    return from_file("sweep.yaml").run()


def test_event_files_of_the_real_writer_are_read() -> None:
    data = EVENTS.read_bytes()
    rows = tensorboard.parse(data)
    assert [(row.step, row.values) for row in rows[:3]] == [
        (step, {"charts/episodic_return": step * 0.5, "losses/value_loss": -step}) for step in (0.0, 100.0, 200.0)
    ]
    assert math.isnan(rows[3].values["nan"])
    assert rows[4] == Row({"tensor": 3.25, "double": 0.1}, 400.0)
    assert tensorboard.parse(data[:-5])[4:] == [Row({"tensor": 3.25}, 400.0)]
    assert len(tensorboard.parse(data[: len(data) // 2])) < len(rows)


@pytest.mark.parametrize("parse", [tensorboard.parse, csv_file.parse, npz_file.parse, json_file.parse])
def test_damaged_files_are_read_as_far_as_they_go(parse: Callable[[bytes], list[Row]]) -> None:
    generator = np.random.default_rng(0)
    for size in (0, 1, 11, 12, 13, 500):
        parse(generator.bytes(size))
    data = bytearray(EVENTS.read_bytes())
    for position in range(0, len(data), 7):
        data[position] ^= 0xFF
        parse(bytes(data))


def test_csv_of_loggers() -> None:
    lightning = b"epoch,step,train_loss,val_loss\n0,9,0.5,\n0,9,,0.75\n1,19,nan,text\n1,2"
    assert [(row.step, sorted(row.values)) for row in csv_file.parse(lightning)] == [
        (9.0, ["epoch", "step", "train_loss"]),
        (9.0, ["epoch", "step", "val_loss"]),
        (19.0, ["epoch", "step", "train_loss"]),
    ]
    monitor = b'#{"t_start": 1.5, "env_id": "CartPole"}\nr,l,t\n20.0,20,0.1\n35.0,35,0.2\n'
    assert [(row.step, row.values["r"]) for row in csv_file.parse(monitor)] == [(20.0, 20.0), (55.0, 35.0)]
    assert csv_file.parse(b"loss\tlr\n0.5\t1e-3\n") == [Row({"loss": 0.5, "lr": 1e-3}, 1.0)]
    appended = b"step,loss\n1,0.9\nstep,loss,acc\n1,0.8,0.5\n"
    assert csv_file.parse(appended)[1] == Row({"step": 1.0, "loss": 0.8, "acc": 0.5}, 1.0)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_files_in_any_unicode_encoding_are_read(encoding: str) -> None:
    assert csv_file.parse("step,é\n1,0.5\n2,0".encode(encoding)) == [Row({"step": 1.0, "é": 0.5}, 1.0)]
    assert json_file.parse('{"step": 1, "é": 2}\n{"step": 2, "é": 3}\n'.encode(encoding))[1].values["é"] == 3.0


def test_archives_of_numpy_are_read_without_unpickling() -> None:
    file = io.BytesIO()
    results = np.array([[1.0, 3.0], [5.0, 7.0]])
    pickled = np.array([{"a": 1}], dtype=object)
    np.savez(file, timesteps=np.array([500, 1000]), results=results, pickled=pickled)
    rows = npz_file.parse(file.getvalue())
    assert [(row.step, row.values["results"]) for row in rows] == [(500.0, 2.0), (1000.0, 6.0)]
    assert all("pickled" not in row.values for row in rows)


def test_json_files_hold_an_object_a_list_lines_or_a_history() -> None:
    assert json_file.parse(b'{"a": {"b": 1}}') == [Row({"a.b": 1.0})]
    assert json_file.parse(b'{"step": 1, "a": 2}\n{"step": 2, "a": 3}\n{"ste')[1] == Row({"step": 2.0, "a": 3.0}, 2.0)
    assert [row.values["a"] for row in json_file.parse(b'[{"a": 1}, {"a": 2}]')] == [1.0, 2.0]
    assert json_file.parse(b'{"a": [1, 2], "b": [3, 4]}') == [Row({"a": 1.0, "b": 3.0}), Row({"a": 2.0, "b": 4.0})]
    (row,) = json_file.parse(b'{"max_steps": 30, "log_history": [{"step": 10, "eval_loss": 0.5}]}')
    assert (row.step, row.total, row.values["eval_loss"]) == (10.0, 30.0, 0.5)


@pytest.mark.parametrize(
    ("line", "loss"),
    [
        (b'{"loss": 0.25}', 0.25),
        (b'  {"loss": "0.25"}', 0.25),
        (b'\x1b[2K\x1b[32m{"loss": 0.25}\x1b[0m', 0.25),
        (b' 50%|###   | 5/10 [00:01<00:01, 4.2it/s]{"loss": 0.25}', 0.25),
        (b"{'loss': 0.25, 'best': None, 'ok': True}", 0.25),
        (b"{'loss': np.float64(0.25), 'a': tensor(1., device='cuda:0')}", 0.25),
        (b'{"loss": 1' + b"0" * 5000 + b"}", math.inf),
        (b'{"loss": 0.' + b"3" * 5000 + b"}", 1 / 3),
        (b'\xef\xbb\xbf{"loss": 1}', 1.0),
        (b'not {"loss": 1}', None),
        (b'{"loss": 1} {"loss": 2}', None),
        (b"[1, 2]", None),
    ],
)
def test_lines_of_output_that_are_objects(line: bytes, loss: float | None) -> None:
    reader = LineReader("loss", Take)
    list(reader.rows([line]))
    assert reader.scored.get("loss") == (None if loss is None else pytest.approx(loss))
    assert (parse_line(line) is None) == (loss is None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"eval": {"loss": 1}, "eval.loss": 2}', "eval.loss is given twice on one line"),
        (b'{"eval": {"loss": 1, "loss": 2}}', "eval.loss is given twice on one line"),
        (b'{"eval": {"loss": null}}', "eval.loss is None, which is not a number"),
        (b'{"eval": {"loss": 0.5}', "a line with eval.loss is not JSON"),
    ],
)
def test_a_metric_that_cannot_be_read_is_refused_by_name(line: bytes, problem: str) -> None:
    reader = LineReader("eval.loss", Take)
    list(reader.rows([line]))
    assert reader.scored == {}
    assert reader.problem is not None
    assert reader.problem.startswith(problem)


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["acc 0.5"], 0.5),
        (["start", "epoch 1/9, val_acc=0.7 | acc: 5e-1", "done"], 0.5),
        (["epoch 2 - acc -.5 - val_acc 1"], -0.5),
        (["\x1b[32macc = 0.5\x1b[0m"], 0.5),
        (["acc 0.4", "acc nan"], math.nan),
        (["val_acc 0.5"], None),
        (["acc.mean 0.5"], None),
        (["acc 0.5 acc 0.6"], None),
        (["acc 45/50"], None),
        (["acc 50%"], None),
        (["acc 0.5", "best acc 0.6"], None),
        (["acc 0.5", "the acc."], None),
        (["epoch acc", "1 0.5"], None),
    ],
)
def test_plain_text_is_read_only_where_it_says_one_thing(lines: list[str], value: float | None) -> None:
    text = PlainText("acc", Take())
    for line in lines:
        text.add(line.encode())
    assert text.values.get("acc") == (None if value is None else pytest.approx(value, nan_ok=True))


@pytest.mark.parametrize(
    ("name", "window", "value"),
    [
        ("last", None, 2.0),
        ("max", None, 9.0),
        ("min", None, 1.0),
        ("mean", None, 4.0),
        ("mean", 2, 3.0),
        ("max", 2, 4.0),
    ],
)
def test_what_is_taken_of_a_metric(name: TakeName, window: int | None, value: float) -> None:
    take = Take(name, window)
    for each in (9.0, 1.0, 4.0, 2.0):
        take.add(each)
    assert take.value == value


def test_files_are_found_and_read_as_they_grow() -> None:
    Path("old.csv").write_text("loss\n9\n")
    Path("kept.csv").write_text("loss\n8\n")
    reader = FileReader(MetricFiles([Path.cwd()], ["csv", "json"]), "loss", Take, {"loss"})
    assert list(reader.rows()) == []
    with Path("old.csv").open("a") as file:
        file.write("7\n6")
    assert [row.values["loss"] for row in reader.rows()] == [7.0]
    with Path("old.csv").open("a") as file:
        file.write("\n")
    assert [row.values["loss"] for row in reader.rows()] == [6.0]
    Path("logs").mkdir()
    Path("logs/other.csv").write_text("loss\n1\n")
    assert list(reader.rows()) == []
    assert sorted(map(len, reader.sources())) == [1, 1]
    assert reader.result([Path.cwd() / "old.csv"]) == {"loss": 6.0}
    assert Path.cwd() / "kept.csv" not in reader.names


def test_a_folder_that_others_use_is_known(tmp_path: Path) -> None:
    first = FolderUse(tmp_path)
    assert first.alone
    second = FolderUse(tmp_path)
    assert not first.alone
    assert not second.alone
    first.end()
    second.end()
    third = FolderUse(tmp_path)
    assert third.alone
    third.end()


CSV = """
mkdir -p logs
echo time/total_timesteps,reward > logs/progress.csv
for i in 10 20 30; do echo $i,$i; done >> logs/progress.csv
"""


@pytest.mark.parametrize(
    ("fields", "score"),
    [
        ({"metric": "reward"}, 30.0),
        ({"metric": {"name": "reward", "take": "mean", "window": 2}}, 25.0),
        ({"metric": {"name": "reward", "take": "min", "goal": "minimize"}, "metrics": "csv"}, 10.0),
        ({"metric": "reward", "metrics": "logs/*.csv"}, 30.0),
        ({"metric": "reward", "cwd": "${run_dir}", "num_workers": 2, "num_trials": 2}, 30.0),
    ],
)
def test_a_script_that_logs_to_csv_is_swept_unedited(fields: dict[str, Any], score: float) -> None:
    result = run(CSV, total="steps", early_stopping="protein", **fields)
    assert [trial.error for trial in result.trials] == [None] * len(result.trials)
    assert result.trials[0].score == score
    with closing(open_store(result.store)) as store:
        assert [point.step for point in store.curve("sweep", 0)] == [10, 20, 30]


def test_a_program_that_diverges_fails_although_json_has_no_number_for_it() -> None:
    lines = "; ".join(f"echo '{{\"loss\": {value}}}'" for value in (0.1, 0.2, '"NaN"'))
    (trial,) = run(lines, metric="loss", goal="minimize").trials
    assert (trial.state, trial.error) == (TrialState.FAILED, "the score loss is nan")


@pytest.mark.parametrize(("name", "score"), [("max", 4.0), ("min", 0.5), ("mean", 2.125), ("last", 0.5)])
@pytest.mark.parametrize("lost", [[], [(3, 9.0), (4, 9.0)]], ids=["stopped at a checkpoint", "killed after one"])
def test_the_score_of_a_resumed_program_is_of_its_whole_run(
    tmp_path: Path, name: str, score: float, lost: list[tuple[int, float]]
) -> None:
    """A script that writes a checkpoint after two steps, loses what is lost, and goes on from the checkpoint."""

    def printed(values: list[tuple[int, float]]) -> str:
        return "".join(json.dumps({"step": step, "acc": value}) + "\n" for step, value in values)

    (tmp_path / "stdout.log").write_text(printed([(1, 0.5), (2, 4.0), *lost]))
    program = {"command": ["printf", "%s", printed([(3, 3.5), (4, 0.5)])], "metrics": "stdout", "take": name}
    tool = {"program": program, "params": {}, "seed": 0, "metric": "acc", "timeout": None}
    result = CommandTrial.run_trial(TrialSpec(0, 2, "", tool, [], str(tmp_path)), lambda progress: True)
    assert result.metrics["acc"] == score


def test_the_last_row_of_a_csv_is_the_last_although_steps_begin_again() -> None:
    rows = "; ".join(f"echo {step},{value}" for step, value in [(1, 0.9), (2, 0.8), (3, 0.7), (1, 0.6), (2, 0.5)])
    (trial,) = run(f"(echo step,loss; {rows}) > m.csv", metric="loss", goal="minimize").trials
    assert trial.score == 0.5


def test_lines_of_validation_have_the_step_of_the_training_before() -> None:
    lines = "; ".join(f'echo \'{{"step": {7 * n}, "loss": 1}}\'; echo \'{{"acc": 0.{n}}}\'' for n in (1, 2, 3))
    result = run(lines, metric="acc", early_stopping="asha")
    with closing(open_store(result.store)) as store:
        points = store.curve("sweep", 0)
    assert [(point.step, point.metrics["acc"]) for point in points if "acc" in point.metrics][-3:] == [
        (7, 0.1),
        (14, 0.2),
        (21, 0.3),
    ]


def test_another_way_to_take_the_score_is_another_question() -> None:
    run(CSV, metric="reward")
    with pytest.raises(UserError, match=r"metric\.take: last -> min"):
        run(CSV, metric={"name": "reward", "take": "min"}, num_trials=2)


def test_patterns_read_both_streams() -> None:
    script = "echo epoch 1 val_acc 0.5; echo epoch 2 >&2; echo 'val_acc $1.' >&2; echo epoch 2, val_acc 0.75, done"
    (trial,) = run(script, metric="val_acc", metrics={"val_acc": "val_acc ([0-9.]+)", "step": r"epoch (\d+)"}).trials
    assert (trial.score, trial.metrics["step"]) == (0.75, 2.0)


def test_the_same_metric_in_two_folders_is_refused_with_what_to_write() -> None:
    script = "mkdir train val; for d in train val; do echo loss > $d/m.csv; echo 1 >> $d/m.csv; done"
    with pytest.raises(MishapError, match=r"is in files of 2 folders: train/m\.csv, val/m\.csv"):
        run(script, metric="loss")
    (trial,) = run(script.replace("mkdir", "mkdir -p"), metric="loss", metrics="val/m.csv", name="b").trials
    assert trial.score == 1.0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"metric": {"name": "loss", "tak": "max"}}, "there is no metric.tak; did you mean 'take'"),
        ({"metric": {"take": "max"}}, "metric.name is missing"),
        ({"metric": {"name": "loss", "window": 3}}, "a window needs take"),
        ({"metric": "loss", "metrics": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"metric": "loss", "metrics": {"acc": "acc ([0-9.]+)"}}, "there is no pattern for the metric 'loss'"),
        ({"metric": "loss", "metrics": {"loss": "loss ([0-9.]+"}}, "is not a regular expression"),
        ({"metric": "loss", "metrics": {"loss": "loss [0-9.]+"}}, "needs a group for the number"),
        ({"metric": "loss", "total": "step"}, "there is no hyperparameter 'step'; did you mean 'steps'"),
        ({"metric": "loss", "metrics": "out.csv", "num_workers": 2}, "cwd: ${run_dir}"),
        ({"metric": "loss", "command": "sh trian.sh ${x}"}, "there is no file trian.sh"),
        ({"metric": "loss", "command": "bahs train.sh ${x}"}, "did you mean 'bash'"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError) as error:
        run("touch ran", **fields)
    assert why in str(error.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('INFO:root:{"acc": 0.7}', 0.7),
        ("val_acc: 0.9 acc: -0.8 val_acc: 3", -0.8),
        ("|    acc    | 1.5e-3 |", 1.5e-3),
        ("Acc=.5.", 0.5),
    ],
)
def test_the_pattern_that_is_suggested_reads_the_text(text: str, value: float) -> None:
    pattern = suggest_pattern("acc", text)
    assert pattern is not None
    row = Patterns({"acc": pattern}).row(text.encode())
    assert row is not None
    assert row.values == {"acc": value}


def test_a_pattern_is_suggested_for_a_name_before_a_number() -> None:
    assert suggest_pattern("val_acc", "Epoch 3 | Val Acc: 0.91") == r"\bVal Acc[^-+.\w]+([-+.\w]+)"
    assert suggest_pattern("val_acc", "accuracy 0.9") is None
    assert kind_named("runs/x/events.out.tfevents.1.host") == "tensorboard"
    assert kind_named("metrics") == "json"
