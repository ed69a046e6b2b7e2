"""Every command, with secrets wherever a URL or the environment can hold one: none is printed, written or listed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from metta.common.runner import main as run_py
from metta.sweep.cli import main as metta_sweep
from metta.sweep.store import open_store
from tests.support.postgresql import PostgresServer

ROOT = Path(__file__).parents[2]
KEY = "5" * 30 + "abcdef0123"
SECRET = re.compile(f"sesame|{KEY}")
PROGRAM = """
command: sh -c "sleep 0.2; echo '{\\"loss\\":' $0 '}'" ${lr}
metric: loss
goal: minimize
num_trials: 6
parameters: {lr: {min: 1e-4, max: 1e-1, distribution: log_normal}}
executor: local
num_workers: 2
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


def in_query(url: str) -> str:
    """The URL with its login in the query."""
    found = re.fullmatch(r"(.*://)([^:]*):([^@]*)@(.*)", url)
    assert found
    scheme, user, password, rest = found.groups()
    return f"{scheme}{rest}?user={user}&password={password}"


def test_no_secret_is_shown(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = server.new_database()
    for name, value in {
        "METTA_STORE": in_query(url), "METTA_DATA_DIR": str(tmp_path / "data"), "WANDB_API_KEY": KEY,
        "WANDB_MODE": "offline", "PYTHONPATH": str(ROOT),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(PROGRAM)
    said = stopped_run()
    command = said.splitlines()[-1].strip()
    assert command.endswith('--store "$METTA_STORE"'), said
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said += subprocess.run(
        command, shell=True, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    ).stdout
    monkeypatch.setenv("METTA_STORE", url)
    copy = f"sqlite:///{tmp_path}/copy.db"
    for words in (
        "list", "show s", "watch s", "trial s 0", "best s", "best s --json", "compare s s", "show s --json",
        "trial s 0 --json",
        "pause s", "resume s", "stop s", "drop s 0", "drop s 0 --undo", "enqueue s lr=0.01", 
        "add s lr=0.02 --score 1 --cost 1",
        "work s", "confirm s --top 1 --seeds 1", "report s --to s.html", "export s --to s.json", "export s --to s.csv",
        "import s.json --name again", f"copy s --from {url} --to {copy}",
        f"import {in_query(url)} --name s --store sqlite:///x.db",
        "rm again --yes", "sync s", "run s.yaml --num-trials 2",
    ):  # fmt: skip
        assert metta_sweep(words.split()) == 0, words
    for words in (
        "--help", "show --help", "show s --store postgresql://me:sesame@localhost:1/d",
        "show s --store postgresql://me@localhost:1/d?sslkey=sesame&sslpassword=sesame", 
        "show s --store postgresql://me:sesame@localhost:x/d",
        "show s --store mysql://me:sesame@localhost/d", "show s --store sqlite:///x?password=sesame",
        "import https://me:sesame@127.0.0.1:1/x.json?token=sesame", "import s3://me:sesame@bucket/x.csv --name s",
        "import nothing://sesame:sesame@host/x.json",
        *(words.replace("URL", form) for form in (url, in_query(url)) for words in (
            "show nothing --store URL", "show s --store URLx", "retry s 0 --store URL", "copy s --from URL --to URL",
            "run s.yaml --overrides store=URL store=URL",
        )),
    ):  # fmt: skip
        with suppress(SystemExit):
            assert metta_sweep(words.split()) != 0, words
    sweep = ["tests.support.quick_sweep.quick_sweep", "--args", "sweep_name=q"]
    for words_of_run in (
        [*sweep, "--dry-run", "--overrides", f"store={in_query(url)}"],
        [*sweep, "--help", "--overrides", f"store={url}"],
        ["metta.tools.train.TrainTool", "--args", "policies=s3://me:sesame@bucket/x"],
        ["metta.tools.sweep.retrain", "--args", "sweep_name=nothing", f"store={url}"],
    ):  # fmt: skip
        run_py(words_of_run)
    out, err = capfd.readouterr()
    assert "METTA_STORE" in out
    for text in (said, out, err):
        assert not SECRET.search(text), text[max(0, SECRET.search(text).start() - 200) :][:400]  # type: ignore[union-attr]
    for file in tmp_path.rglob("*"):
        assert not (file.is_file() and SECRET.search(file.read_bytes().decode("latin-1"))), file


def stopped_run() -> str:
    """Run the sweep in processes until a trial has ended, interrupt it, and return what it said."""
    command = [sys.executable, "-c", "import sys; from metta.sweep.cli import main; sys.exit(main())", "run", "s.yaml"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seen: set[str] = set()
    with closing(open_store(os.environ["METTA_STORE"])) as store:
        while process.poll() is None and not (store.sweeps() and any(t.state.ended for t in store.trials("s"))):
            seen |= command_lines(process.pid)
            time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert any("metta.sweep.executor" in line for line in seen), seen
    assert not [line for line in seen if SECRET.search(line)]
    return said


def command_lines(pid: int) -> set[str]:
    """Of a process and all that it started."""
    lines = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.Error):
            lines.add(" ".join(process.cmdline()))
    return lines
