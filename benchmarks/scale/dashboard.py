"""Measures how soon the dashboard shows a sweep of 5,000 trials, and how soon it shows an ended trial.

    uv run python -m benchmarks.scale.dashboard

The sweep is generated. The browser is a real headless Chromium, started again for each visit so that its cache is
empty, and idle before the visit. Times are from the page's own clock: from the request of the page until the browser
has painted the findings, the table of trials and each plot in a window of 1280 x 1600; and
from the end of a trial until the page counts it. A first visit is made as soon as a new
server has printed its address; later ones use the same server.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.trial import TrialState
from tests.support.chromium import headless_chromium
from tests.support.dashboard import dashboard
from tests.support.made_sweep import make_sweep

NUM_TRIALS, NUM_ENDED, FIRST_VISITS, LATER_VISITS = 5_000, 3, 3, 5
SETTLING_SECONDS = 5.0

WATCH = """
window.painted = {};
const noted = new Set();
const note = (what, seen) => {
  if (!seen || noted.has(what)) return;
  noted.add(what);
  requestAnimationFrame(() => setTimeout(() => { window.painted[what] = performance.now(); }));
};
const observer = new MutationObserver(() => {
  note("table", document.querySelector("table.trials tbody tr"));
  const drawn = document.querySelectorAll(".figure[data-drawn]").length;
  for (let i = 1; i <= drawn; i++) note(`plot ${i}`, true);
});
addEventListener("DOMContentLoaded", () =>
  observer.observe(document, { subtree: true, childList: true, attributes: true }));
"""
"""Records when elements were painted: in the task after the frame that shows them."""


@contextmanager
def fresh_page() -> Iterator[Page]:
    """A page of a new browser, with an empty cache, after it has become idle."""
    with headless_chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.add_init_script(WATCH)
        time.sleep(SETTLING_SECONDS)
        yield page


def visit(page: Page, address: str, which: str) -> None:
    """Print how long the page takes to show the sweep."""
    page.goto(address)
    page.wait_for_selector(".figure[data-drawn]", state="attached")
    time.sleep(SETTLING_SECONDS)
    moments = {what: moment / 1000 for what, moment in page.evaluate("window.painted").items()}
    table = moments.pop("table")
    plots = ", ".join(f"{moment:.2f}" for moment in sorted(moments.values()))
    print(f"{which}: findings and table after {table:.2f} s, plots {plots} s", flush=True)


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
        for _ in range(FIRST_VISITS):
            with fresh_page() as page, dashboard(url, "made") as address:
                visit(page, address, "first visit")
        with dashboard(url, "made") as address:
            for _ in range(LATER_VISITS):
                with fresh_page() as page:
                    visit(page, address, "later visit")
            with headless_chromium() as browser:
                follow(browser, address, store)
        store.close()


if __name__ == "__main__":
    main()
