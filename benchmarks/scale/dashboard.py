"""How soon the dashboard shows a sweep of 5,000 trials, and how soon a trial that ends.

    uv run python -m benchmarks.scale.dashboard

The sweep is a made one; the browser is a real Chromium without a screen. Times are from the request of the page (with
nothing cached) until the table of trials is there, until the first plot is drawn, and from the end of a trial until the
page counts it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser

from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.trial import TrialState
from tests.support.chromium import headless_chromium
from tests.support.made_sweep import make_sweep

NUM_TRIALS, NUM_ENDED, VISITS = 5_000, 3, 3


@contextmanager
def dashboard(url: str) -> Iterator[str]:
    """The address of a dashboard in a process of its own."""
    program = str(Path(sys.executable).with_name("metta-sweep"))
    command = [program, "dashboard", "made", "--store", url, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.stdout.readline().split()[4]
        process.terminate()


def visit(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    start = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("table.trials tbody tr", state="attached")
    shown = time.perf_counter() - start
    page.wait_for_selector(".figure[data-drawn]", state="attached")
    print(f"table of trials after {shown:.2f} s, first plot after {time.perf_counter() - start:.2f} s", flush=True)
    page.close()


def follow(browser: Browser, address: str, store: Store) -> None:
    page = browser.new_page()
    page.goto(address)
    params = store.trials("made")[0].params
    for number in range(NUM_TRIALS, NUM_TRIALS + NUM_ENDED):
        page.wait_for_selector(f"#facts >> text={number:,} of {NUM_TRIALS:,}")
        store.add("made", params, Outcome(TrialState.COMPLETED, 1.0, 30.0))
        start = time.perf_counter()
        page.wait_for_selector(f"#facts >> text={number + 1:,} of {NUM_TRIALS:,}")
        print(f"a trial that ended was shown after {time.perf_counter() - start:.2f} s", flush=True)
        time.sleep(2)
    page.close()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'made.db')}"
        store = open_store(url)
        make_sweep(store, "made", NUM_TRIALS)
        with dashboard(url) as address, headless_chromium() as browser:
            for _ in range(VISITS):
                visit(browser, address)
            follow(browser, address, store)
        store.close()


if __name__ == "__main__":
    main()
