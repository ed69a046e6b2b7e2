"""Programs swept for real: how metrics come back, and how programs end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from metta.sweep import load_sweep
from metta.sweep.cli import main as metta_sweep
from metta.sweep.definition import open_sweep
from metta.sweep.program import process
from metta.sweep.program.command_sweep import CommandSweep, from_file
from metta.sweep.program.metrics import files, wandb_run
from metta.sweep.program.process import Ending, run_process
from metta.sweep.result import SweepResult
from metta.sweep.retention import sweeps_folder
from metta.sweep.session import trial_seed
from metta.sweep.store import open_store
from metta.sweep.sweep import MishapError, TooManyFailuresError
from metta.sweep.trial import Trial, TrialState
from tests.sweep.executor.trials import alive, until

ROOT = Path(__file__).parents[3]
X = {"x": {"min": 0, "max": 1, "distribution": "uniform"}}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METTA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def write(script: str, **fields: Any) -> CommandSweep:
    """A sweep of a shell script that gets x as its first argument."""
    Path("train.sh").write_text(script)
    data = {
        "command": "sh train.sh ${x}",
        "metric": "score",
        "num_trials": 2,
        "parameters": X,
        "seed": 1,
        "write_report": False,
        **fields,
    }
    Path("sweep.yaml").write_text(yaml.safe_dump(data))
    return from_file("sweep.yaml")


def run(script: str, **fields: Any) -> SweepResult:
    return write(script, **fields).run()


def failure(script: str, **fields: Any) -> Trial:
    sweep = write(script, num_trials=1, **fields)
    with suppress(MishapError):  # what says nothing about the hyperparameters stops the sweep
        sweep.run()
    (trial,) = load_sweep(sweep.store, sweep.sweep_name).trials()
    assert trial.state is TrialState.FAILED
    return trial


PRINTING = """
echo loading
echo '{"step": 10, "score": 0.1, "note": "text"}'
echo '{"step": 20, "score": 0.2}'
echo 'not {"json": 1}'
echo "{\\"step\\": 30, \\"score\\": $1, \\"eval\\": {\\"loss\\": 0.5}}"
echo '{"other": 1}'
echo warning >&2
"""


def test_the_last_line_of_json_with_the_metric_counts_and_all_are_progress() -> None:
    result = run(PRINTING)
    for trial in result.trials:
        assert trial.state is TrialState.COMPLETED
        assert trial.score == trial.params["x"]
        assert trial.metrics == {"step": 30, "score": trial.score, "eval.loss": 0.5}
    with closing(open_store(result.store)) as store:
        points = [(point.step, point.metrics.get("score")) for point in store.curve("sweep", 0)]
    assert points == [(10, 0.1), (20, 0.2), (30, result.trials[0].score), (4, None)]
    (folder,) = Path("data/sweeps/sweep").glob("*/trial_0000")
    assert "loading" in (folder / "stdout.log").read_text()
    assert (folder / "stderr.log").read_text() == "warning\n"


def test_plain_text_is_read_if_nothing_else_has_the_metric() -> None:
    trial, *_ = run('echo "epoch 1: score 0.5"; echo "epoch 2: score 0.25"').trials
    assert trial.metrics == {"epoch": 2, "score": 0.25}
    trial, *_ = run('echo "score 0.3"; echo "score\n0.31" > m.csv', name="exact").trials
    assert trial.score == 0.31


@pytest.mark.parametrize("name", ["${run_dir}/out.json", "out.json"])
def test_metrics_come_from_a_file(name: str) -> None:
    script = 'echo "{\\"score\\": 7}"; echo "{ \\"score\\":\n $1 }" > ' + name.replace("${run_dir}", "$METTA_RUN_DIR")
    trials = run(script, metrics=name).trials
    assert [trial.score for trial in trials] == [trial.params["x"] for trial in trials]


def test_metrics_come_from_the_wandb_summary_of_a_wandb_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    Path("train.py").write_text(
        "import sys, wandb\n"
        "with wandb.init(settings=wandb.Settings(console='off')) as run:\n"
        "    assert sys.argv[1:] == [f'--lr={run.config.lr}', f'--model={run.config.model}'], sys.argv\n"
        "    for step in range(3):\n"
        "        run.log({'val': {'loss': run.config.lr + 2 - step}})\n"
    )
    Path("sweep.yaml").write_text(
        "program: train.py\nmethod: bayes\nrun_cap: 1\nmetric: {name: val.loss, goal: minimize}\n"
        "parameters:\n  lr: {min: 1e-3, max: 0.1}\n  model: {parameters: {width: {value: 3}}}\n"
        "command: [" + sys.executable + ", '${program}', '${args}']\n"
    )
    sweep = from_file("sweep.yaml")
    sweep.wandb.enabled = False
    (trial,) = sweep.run().trials
    assert trial.error is None
    assert trial.score == pytest.approx(trial.params["lr"])
    assert trial.metrics["_step"] == 2


def test_early_terminate_of_wandb_stops_runs_at_its_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(files, "LOOK_SECONDS", 0.05)
    Path("train.py").write_text(
        "import time, wandb\n"
        "with wandb.init(settings=wandb.Settings(console='off')) as run:\n"
        "    for epoch in range(1, 5):\n"
        "        run.log({'train': 0.5, 'global_step': 1000 * epoch})\n"
        "        run.log({'loss': run.config.lr + 4 - epoch, 'step': 0})\n"
        "        time.sleep(30 if run.config.lr > 2 and epoch == 3 else 0.1)\n"
    )
    Path("sweep.yaml").write_text(
        "program: train.py\nmethod: grid\nmetric: {name: loss, goal: minimize}\n"
        "early_terminate: {type: hyperband, min_iter: 3, eta: 2}\nparameters: {lr: {values: [1, 3]}}\n"
        "command: [" + sys.executable + ", '${program}', '${args}']\n"
    )
    sweep = from_file("sweep.yaml")
    sweep.wandb.enabled = False
    result = sweep.run()
    first, last = result.trials
    assert (first.state, first.score, last.state) == (TrialState.COMPLETED, 1, TrialState.PRUNED)
    curve = load_sweep(result.store, sweep.sweep_name).curve(first.number)
    assert [(point.step, point.metrics["loss"]) for point in curve] == [(1, 4), (2, 3), (3, 2), (4, 1)]
    assert last.share == 3 / 4
    assert "2nd of 2 at 3 steps" in (last.stopped or "")
    data = next(sweeps_folder(sweep.sweep_name).rglob("run-*.wandb")).read_bytes()
    rows = wandb_run.parse(data)
    for size in range(0, len(data), 97):
        assert (found := wandb_run.parse(data[:size])) == rows[: len(found)], "rows of a growing file stay as they are"


def test_a_program_that_fails_is_a_failed_trial_with_the_end_of_its_errors() -> None:
    trial = failure('echo "{\\"score\\": 0.5}"; seq 100 >&2; echo "out of memory" >&2; exit 3')
    assert trial.error is not None
    first, *tail = trial.error.splitlines()
    assert first.startswith("exit status 3; its errors are in ")
    assert tail == [*map(str, range(82, 101)), "out of memory"]
    assert trial.cost is not None


def test_a_program_that_does_not_exist_or_is_killed_says_so() -> None:
    assert "exit status 127" in (failure("nonsense", name="a").error or "")
    assert "exit status 139 (SIGSEGV)" in (failure("kill -SEGV $$", name="b").error or "")


@pytest.mark.parametrize(
    ("script", "fields", "error"),
    [
        ("echo hello", {}, "(no line of it is a JSON object), nor in files"),
        ("echo hello", {"metrics": "stdout"}, "in its output: no line of it is a JSON object"),
        ("echo '{\"scores\": 1}'", {}, "Found in its output: scores. Write in the sweep's file: metric: scores"),
        ('echo \'{"score": "high", "a": 1}\'', {}, "score is 'high', which is not a number. Found in its output: a"),
        ('echo \'{"score": 1, "score": 2}\'', {}, "score is given twice on one line"),
        ("echo '{\"score\": [1]}'", {}, "score is [1.0], which is not a number"),
        ("echo '{\"score\": 1'", {}, "a line with score is not JSON"),
        ("echo score=0.5; echo best score 0.6", {}, r"metrics: {score: '\bscore[^-+.\w]+([-+.\w]+)'}"),
        ("echo epoch 1 Score=0.5", {}, r"metrics: {score: '\bScore[^-+.\w]+([-+.\w]+)'}"),
        ("echo epoch 1: val_acc 0.5", {}, r"metrics: {score: '\bepoch[^-+.\w]+([-+.\w]+)'}"),
        ("echo hello", {"metrics": {"score": r"score (\d+)"}}, "in its output: no line of it matches the pattern"),
        ("true", {"metrics": "m.json"}, "m.json: the program wrote no numbers there"),
        ("true", {"metrics": "csv"}, "in files: no file of csv appeared in"),
        ("echo rew,loss > a.csv; echo 1,2 >> a.csv", {}, "Found in a.csv: rew, loss."),
        ("true", {"metrics": "wandb"}, "the program left no W&B run"),
    ],
)
def test_a_program_without_the_metric_is_a_failed_trial_that_says_where_it_was_sought(
    script: str, fields: dict[str, Any], error: str
) -> None:
    assert error in (failure(script, **fields).error or "")


@pytest.mark.parametrize(
    ("errors", "is_mishap"),
    [
        ("t.py: error: unrecognized arguments: --lr=0.1", True),  # argparse, Hydra, jsonargparse
        ("t.py: error: argument --n: invalid int value: '3.5'", True),
        ("t.py: error: argument --anneal/--no-anneal: ignored explicit argument 'false'", True),
        ("╭─ Unrecognized options ─╮\n│ Unrecognized options: --lr=0.1 │\n╰────────╯", True),  # tyro
        ("│ Error parsing --n: invalid literal for int() with base 10: '3.5' │", True),
        ("FATAL Flags parsing error:\n  Unknown command line flag 'lr'", True),  # absl
        ("Error: No such option '--lr'.", True),  # click, Typer
        ("Could not override 'lr'.\nKey 'lr' is not in struct", True),  # Hydra
        ("ERROR: Could not consume arg: --lr=0.5", True),  # Fire
        ("t.py: error: argument --opt: invalid choice: 'adam' (choose from 'sgd')", False),  # of one value
        ("TypeError: train() got an unexpected keyword argument 'lr'", False),
    ],
)
def test_a_program_that_refuses_its_arguments_stops_the_sweep_at_once(errors: str, is_mishap: bool) -> None:
    Path("errors").write_text(errors)
    trial = failure("cat errors >&2; exit 2")
    assert trial.mishap is is_mishap
    assert not is_mishap or "Parameters need the names and types" in (trial.error or "").splitlines()[-1]


def test_an_old_metrics_file_is_not_taken_for_a_new_one() -> None:
    Path("m.json").write_text('{"score": 1}')
    assert "wrote no numbers there" in (failure("true", metrics="m.json").error or "")


def test_five_failures_stop_the_sweep_with_the_last_line_of_errors(capsys: pytest.CaptureFixture[str]) -> None:
    sweep = write("echo first >&2; echo 'bad flag' >&2; exit 1", num_trials=9)
    with pytest.raises(TooManyFailuresError, match=r"The last: bad flag"):
        sweep.run()


STUBBORN = """
trap '' TERM
sleep 1000 &
echo $! > pid
echo '{"score": 0.5}'
wait
wait
"""


@pytest.mark.parametrize("script", [STUBBORN, STUBBORN.replace("trap", "#")])
def test_a_program_that_runs_too_long_is_ended_with_all_that_it_started(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "TERMINATION_SECONDS", 0.3)
    trial = failure(script, trial_timeout=1.5)
    assert trial.error == "it ran longer than trial_timeout=1.5 seconds and was stopped"
    assert trial.score == 0.5
    assert not alive(int(Path("pid").read_text()))


def test_a_program_that_is_told_to_stop_gets_time_to_end(tmp_path: Path) -> None:
    script = "trap 'echo saved > saved; exit 0' TERM; echo '{}'; sleep 1000 & wait"
    log = tmp_path / "log"
    end = run_process(["sh", "-c", script], os.environ, log, log, lambda lines: False, None)
    assert end.ending is Ending.STOPPED
    assert (tmp_path / "saved").exists()


def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "sleep 1000 & echo $! > pid"
    end = run_process(["sh", "-c", script], os.environ, log, log, lambda lines: True, None)
    assert (end.ending, end.status) == (Ending.EXITED, 0)
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere orphans cannot be adopted")
def test_what_a_program_leaves_in_a_session_of_its_own_ends_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "setsid sh -c 'echo $$ > one; (setsid sh -c \"echo \\$\\$ > two; sleep 1000\" &); sleep 1000' & "
    end = run_process(
        ["sh", "-c", script + "until [ -s one -a -s two ]; do sleep 0.01; done"],
        os.environ,
        log,
        log,
        lambda lines: True,
        None,
    )
    assert end.status == 0
    assert not any(alive(int(Path(name).read_text())) for name in ("one", "two"))


def test_a_child_that_goes_on_printing_does_not_hold_the_trial(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines: list[bytes] = []

    def keep(new: Sequence[bytes]) -> bool:
        lines.extend(new)
        return True

    end = run_process(["sh", "-c", "yes & echo; echo last"], os.environ, log, log, keep, None)
    assert end.status == 0
    assert b"last" in lines


def test_a_progress_bar_hides_no_result() -> None:
    assert run("printf '\\r 50%%|##  |\\r100%%|####|\\r{\"score\": 0.25}\\n'", num_trials=1).best_score == 0.25


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_output_and_files_in_any_unicode_encoding_are_read(encoding: str) -> None:
    Path("said.txt").write_bytes('{"step": 1, "é": 3, "score": 0.25}\n{"step": 2, "score": 0.5}\n'.encode(encoding))
    assert run("cat said.txt", num_trials=1).trials[0].metrics == {"step": 2, "score": 0.5}
    text = Path("sweep.yaml").read_text()
    Path("sweep.yaml").write_bytes(text.replace("num_trials: 1", "num_trials: 2").encode(encoding))
    assert from_file("sweep.yaml").run().best_score == 0.5
    failed = failure("cat said.txt >&2; exit 3", name="failing")
    assert '"score": 0.5}' in (failed.error or "").splitlines()[-1]


def test_a_line_that_is_too_long_is_named_and_not_shown_in_full() -> None:
    with pytest.raises(MishapError, match=r"(?s)a line is longer than 1,000,000 bytes.*xxxxx") as caught:
        run("head -c 2000000 /dev/zero | tr '\\0' x", num_trials=1)
    assert len(str(caught.value)) < 2000


def test_many_lines_make_a_curve_of_bounded_size() -> None:
    script = 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo "{\\"step\\": $i, \\"score\\": $i}"; done'
    result = run(script, num_trials=1)
    with closing(open_store(result.store)) as store:
        steps = [point.step for point in store.curve("sweep", 0)]
    assert result.best_score == 3000
    assert steps[:1000] == list(range(1, 1001))
    assert len(steps) < 3000
    assert steps[-1] == 3000


def test_a_program_ends_with_the_process_that_ran_it(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from metta.sweep.program.process import run_process\n"
        "log = pathlib.Path('log')\n"
        "command = ['sh', '-c', 'echo $$ > pid.new; mv pid.new pid; sleep 1000']\n"
        "run_process(command, os.environ, log, log, lambda lines: True, None)\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, str(ROOT)])
    until((tmp_path / "pid").exists)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_output_of_any_kind_is_survived() -> None:
    script = (
        "head -c 3000000 /dev/zero | tr '\\\\0' x; echo; printf '\\377\\376\\n'; printf '{\"score\": NaN}\\n'\n"
        'echo \'{"score": [}\'; printf \'{"score": 0.25, "step": 1e400}\''
    )
    assert run(script, num_trials=1).best_score == 0.25


@pytest.mark.parametrize("by_uv", [True, False])
def test_commands_are_told_in_the_way_this_was_started(
    by_uv: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(PRINTING)
    monkeypatch.setenv("UV", "/bin/uv") if by_uv else monkeypatch.delenv("UV", raising=False)
    assert metta_sweep(["run", "sweep.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = "  uv run metta-sweep" if by_uv else "  metta-sweep"
    assert f"{start} run sweep.yaml --num-trials=4" in lines
    assert f"{start} show sweep" in lines


def test_the_command_extends_and_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    write(PRINTING)
    assert metta_sweep(["run", "sweep.yaml"]) == 0
    capsys.readouterr()
    assert metta_sweep(["run", "sweep.yaml", "--num-trials", "3", "--overrides", "executor=inline", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [trial["state"] for trial in shown["trials"]] == ["completed"] * 3


def test_seeds_reach_the_program_and_their_mean_is_the_score() -> None:
    (trial,) = run('echo "{\\"score\\": $METTA_SEED}"', num_trials=1, seeds_per_trial=2).trials
    seeds = [trial_seed(1, 0, repeat) for repeat in range(2)]
    assert trial.score == sum(seeds) / 2
    assert trial.metrics["score.std"] == pytest.approx(abs(seeds[0] - seeds[1]) / 2**0.5)


def test_a_driver_and_its_worker_need_no_file() -> None:
    sweep = write(PRINTING, executor="local", num_workers=1)
    with closing(open_store(sweep.store)) as store:
        open_sweep(store, "sweep", sweep.definition(), sweep.rebuilt_by().model_dump())
    Path("sweep.yaml").unlink()
    assert metta_sweep(["work", "sweep"]) == 0
    with closing(open_store(sweep.store)) as store:
        assert [trial.score for trial in store.trials("sweep")] == [t.params["x"] for t in store.trials("sweep")]
        assert len(store.trials("sweep")) == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "sweep.yaml, line 1: not YAML: while parsing a flow node"),
        ("metric: a\n\tb: 1", "sweep.yaml, line 2: not YAML: while scanning for the next token"),
        ("metric: \0", "sweep.yaml is not YAML"),
        ("[1, 2]", "expected keys such as command"),
        ("metric: a\nmetric: b", "sweep.yaml, line 2: not YAML: 'metric' is given twice"),
        ("metric: a", "how many trials? give num_trials in the file, or --num-trials N"),
        ("metric: a\nnum_trails: 3", "line 2: how many trials? give num_trials, not num_trails, in the file"),
        ("num_trials: 3\nmetric: a", "sweep.yaml: how is the program called? give command in the file"),
        ("num_trials: 3\ncomand: a", "line 2: how is the program called? give command, not comand, in the file"),
        (
            "command: t\nnum_trials: 3\nmetric: a\nparameters: {a: {b: {values: [1]}}}",
            "'values' is called choices here; write {\"choices\": [1]}",
        ),
        ("command: 3\nnum_trials: 3\nmetric: a\nparameters: {x: {choices: [1, 2]}}", "command"),
        ("command: t ${args}\nnum_trials: 3\nmetrik: a", "line 3: unknown setting 'metrik'; did you mean 'metric'"),
        ("command: t\nnum_trials: 3\nmetric: {name: a,\n  goal: up}", "line 4: goal: 'up'"),
        (
            "command: t ${args}\nnum_trials: 3\nmetric: a\nparameters:\n  a.b:\n    distribution: uniform\n    mx: 2",
            "sweep.yaml, line 7: parameters.a.b: mx: there is no such setting; did you mean 'max'",
        ),
        ("command: t ${args}\nnum_trials: 3\nmetric: a\nparameters: {}", "the space is empty"),
        (
            "command: t ${arsg}\nnum_trials: 3\nmetric: a\nparameters: {x: {min: 0, max: 1e-2, distribution: uniform}}",
            "sweep.yaml, line 1: command: unknown macro ${arsg}; did you mean 'args'",
        ),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep.yaml").write_text(text)
    assert metta_sweep(["run", "sweep.yaml"]) == 2
    assert why in capsys.readouterr().err
    assert metta_sweep(["run", "nowhere.yaml"]) == 2


def test_the_page_does_what_it_says() -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    _, block = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)  # the first sweeps without a file
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(["bash", "-ec", block], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sweep: 10 completed of 10" in done.stdout
    assert "best trial: " in done.stdout


def test_the_name_of_a_parameter_is_the_text_in_the_file(tmp_path: Path) -> None:
    """YAML 1.1 reads some of these as true, a number, a date and null."""
    names = ["on", "no", "1", "010", "2024-01-01", "null", "1e-4"]
    path = tmp_path / "sweep.yaml"
    lines = [f"  {name}: {{min: 0, max: 1, distribution: uniform}}\n" for name in names]
    path.write_text("command: prog ${args}\nmetric: loss\nnum_trials: 3\nparameters:\n" + "".join(lines))
    assert list(from_file(str(path)).sweep.protein.parameters) == names
