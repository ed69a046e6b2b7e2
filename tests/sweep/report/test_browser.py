"""The dashboard and the report in a real browser."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Request, expect

from metta.sweep.report.dashboard import server
from metta.sweep.report.html.html_export import write_report
from metta.sweep.report.plots.images import write_images
from metta.sweep.state import SweepState
from metta.sweep.store import open_store
from metta.sweep.store.protocol import Outcome, Store
from metta.sweep.trial import Progress, TrialState
from tests.support.chromium import headless_chromium, needs_chromium
from tests.sweep.report.conftest import EVIL, MADE

pytestmark = needs_chromium

PHONE = {"width": 390, "height": 844}
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth && !each.closest(".scroll"))
    .map((each) => `${each.tagName} ${each.className} ${each.textContent.slice(0, 40)}`)"""

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def address(url: str, store: Store) -> Iterator[str]:
    """A dashboard that is being served."""
    listening = server.bind("127.0.0.1", 0)
    config = uvicorn.Config(server.make_app(open_store(url), None), log_level="warning")
    served = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(served.serve(sockets=[listening])))
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    served.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_chromium() as opened:
        yield opened


class Watched:
    """A page, and what went wrong on it: errors, dialogs, and requests to anywhere but the dashboard."""

    def __init__(self, page: Page, home: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))

        def requested(request: Request) -> None:
            if not request.url.startswith((home, "data:", "blob:")):
                self.wrong.append(f"request to {request.url}")

        page.on("request", requested)

    def draw_all(self) -> None:
        """Bring every plot into view, and wait until it is drawn."""
        for card in self.page.locator(".figure").all():
            card.scroll_into_view_if_needed()
            expect(card).to_have_attribute("data-drawn", "yes")


@pytest.fixture
def watch(browser: Browser, address: str) -> Iterator[Callable[..., Watched]]:
    """Open the dashboard at a sweep."""
    contexts = []

    def opened(name: str | None, home: str = address, **options: object) -> Watched:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        watched = Watched(context.new_page(), home)
        watched.page.set_default_timeout(30_000)
        if name is not None:
            watched.page.goto(f"{home}/")
            watched.page.goto(
                f"{home}/?" + watched.page.evaluate("name => new URLSearchParams({sweep: name})+''", name)
            )
        return watched

    yield opened
    for context in contexts:
        context.close()


def test_a_sweep_is_seen_searched_and_sorted(watch: Callable[..., Watched]) -> None:
    watched = watch("made", color_scheme="dark")
    page = watched.page
    rows = page.locator("table.trials tbody tr")
    expect(rows).to_have_count(MADE)
    expect(page.locator(".finding .answer").first).to_contain_text("Trial")
    expect(page.locator('.figure[data-name="predicted_against_measured"]')).to_be_attached()
    watched.draw_all()
    assert page.locator(".figure .main-svg").count() >= page.locator(".figure").count() == 12
    background = "document.querySelector('.plot')._fullLayout.paper_bgcolor"
    assert page.evaluate(background) == "#161b22"
    page.emulate_media(color_scheme="light")
    page.locator("#figures").scroll_into_view_if_needed()
    _wait(lambda: page.evaluate(background) == "#ffffff")
    width = "document.querySelector('.figure.wide .plot')._fullLayout.width"
    on_screen = page.evaluate(width)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    _wait(lambda: page.evaluate(width) == 630)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    _wait(lambda: page.evaluate(width) == on_screen)

    scores = [float(text) for text in page.locator("table.trials tbody tr td:nth-child(4)").all_inner_texts()[:9]]
    assert scores == sorted(scores, reverse=True)
    page.get_by_role("searchbox").fill("completed learning_rate<0.0001")
    rates = page.locator("table.trials tbody tr td:nth-child(6)").all_inner_texts()
    assert 0 < len(rates) < MADE
    assert all(float(rate) < 1e-4 for rate in rates)
    page.get_by_role("button", name="learning_rate").click()
    sorted_rates = [float(t) for t in page.locator("table.trials tbody tr td:nth-child(6)").all_inner_texts()]
    assert sorted_rates == sorted(sorted_rates, reverse=True)
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.locator(".tools")).to_contain_text("no trial matches")
    page.get_by_role("searchbox").fill("no_such_column>8")
    expect(page.locator(".tools")).to_contain_text("there is no column no_such_column")
    page.get_by_role("searchbox").fill("")

    rows.first.click()
    expect(page.locator("#trial h2")).to_contain_text("Trial")
    expect(page.locator("#trial .main-svg").first).to_be_visible()
    expect(page.locator("#overview")).to_be_hidden()
    page.go_back()
    expect(page.locator("#overview")).to_be_visible()
    page.locator("details summary").first.click()
    expect(page.locator("details pre").first).to_contain_text("TrainingDiverged")
    assert watched.wrong == []


def test_a_box_over_an_axis_picks_trials_out(watch: Callable[..., Watched]) -> None:
    watched = watch("made")
    page = watched.page
    card = page.locator('.figure[data-name="parallel_coordinates"]')
    card.scroll_into_view_if_needed()
    expect(card).to_have_attribute("data-drawn", "yes")
    plot = "document.querySelector('.figure[data-name=parallel_coordinates] .plot')"
    shown = f"{plot}.data.flatMap((trace) => trace.y).filter((y) => y !== null).length"
    before = page.evaluate(shown)
    box = "{x0: 0.9, x1: 1.1, y0: 0.0, y1: 0.5, xref: 'x', yref: 'y'}"
    page.evaluate(f"Plotly.relayout({plot}, {{selections: [{box}]}})")
    _wait(lambda: 0 < page.evaluate(shown) < before)
    page.evaluate(f"Plotly.relayout({plot}, {{selections: []}})")
    _wait(lambda: page.evaluate(shown) == before)
    assert watched.wrong == []


def test_hostile_names_are_only_text(watch: Callable[..., Watched]) -> None:
    watched = watch(EVIL)
    page = watched.page
    expect(page.locator("h1")).to_have_text(EVIL)
    expect(page.locator("table.trials tbody tr")).to_have_count(12)
    expect(page.locator('.figure[data-name="importance"]')).to_be_attached()
    watched.draw_all()
    page.locator("details summary").first.click()
    page.locator("table.trials tbody tr").first.click()
    expect(page.locator("#trial")).to_contain_text("javascript:alert(3)")
    assert page.locator("img, a[href^=javascript], main svg svg svg[onload]").count() == 0
    assert watched.wrong == []


def test_a_trial_shows_up_when_it_ends(watch: Callable[..., Watched], store: Store) -> None:
    watched = watch("empty")
    page = watched.page
    expect(page.locator(".finding .answer").first).to_contain_text("no trial has been started")
    driver = store.join("empty")
    attempt = store.start(driver, 0, store.trials("made")[0].params)
    store.record_progress(attempt, [Progress(500, 1000, 1.0, {"reward": 1.5})])
    expect(page.locator("#running")).to_contain_text("trial 0 runs: 500 steps, reward 1.5")
    store.end(attempt, Outcome(TrialState.COMPLETED, 2.5, 3.0, 3.0, {"arena": 2.5}))
    expect(page.locator("table.trials tbody tr")).to_contain_text("completed")
    expect(page.locator(".finding .answer").first).to_contain_text("Trial 0: arena 2.5")
    expect(page.locator("#running")).to_be_hidden()
    expect(page.locator('.figure[data-name="score_against_cost"]')).to_be_attached()
    store.leave(driver)
    assert watched.wrong == []


def test_the_page_of_a_trial_follows_it_and_keeps_the_keyboard_s_place(
    watch: Callable[..., Watched], store: Store
) -> None:
    store.create_sweep("one", store.sweep("empty").config)
    driver = store.join("one")
    attempt = store.start(driver, 0, store.trials("made")[0].params)
    watched = watch("one")
    page = watched.page
    link = page.locator("table.trials tbody a")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#trial")).to_contain_text("running")
    page.keyboard.press("Tab")
    page.route("**/api/trial?*", lambda route: route.abort())
    expect(page.locator("#trial .notice")).to_have_text("no answer from the server; trying again")
    page.unroute_all()
    store.record_progress(attempt, [Progress(500, 1000, 1.0, {"reward": 1.5}), Progress(999, 1000, 2.0, {"reward": 2})])
    expect(page.locator("#trial .main-svg").first).to_be_visible()
    store.end(attempt, Outcome(TrialState.FAILED, cost=3.0, error="RuntimeError: out of memory"))
    expect(page.locator("#trial")).to_contain_text("out of memory")
    store.leave(driver)
    expect(page.locator("#trial .back")).to_be_focused()
    page.keyboard.press("Enter")
    expect(link).to_be_visible()
    assert [wrong for wrong in watched.wrong if "net::ERR_FAILED" not in wrong] == []


def test_a_phone_shows_it_without_scrolling_sideways(watch: Callable[..., Watched]) -> None:
    page = watch("made", viewport=PHONE, has_touch=True).page
    expect(page.locator("table.trials tbody tr")).to_have_count(MADE)
    page.locator("#figures").scroll_into_view_if_needed()
    expect(page.locator(".figure[data-drawn]").first).to_be_visible()
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.querySelector('.figure[data-drawn] .plot')._fullLayout.dragmode") is False
    page.goto(f"{page.url}#trial=3")
    page.reload()  # a trial's page can be the first that is opened
    expect(page.locator("#trial h2")).to_have_text("Trial 3")
    expect(page.locator("#trial .main-svg").first).to_be_visible()
    assert page.evaluate(TOO_WIDE) == []


def test_a_report_opens_offline(
    watch: Callable[..., Watched], snapshot: Callable[[str], SweepState], tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(snapshot(EVIL), path)
    watched = watch(None, home=path.as_uri(), offline=True)
    page = watched.page
    page.goto(path.as_uri())
    expect(page.locator("h1")).to_have_text(EVIL)
    expect(page.locator(".figure")).to_have_count(8)
    expect(page.locator(".figure[data-drawn]")).to_have_count(8)  # though nobody scrolled to them
    page.locator("table.trials tbody tr").first.click()
    expect(page.locator("#trial h2")).to_contain_text("Trial")
    assert page.locator("img").count() == 0
    assert watched.wrong == []


def test_plots_are_drawn_as_png(snapshot: Callable[[str], SweepState], tmp_path: Path) -> None:
    (path,) = write_images(snapshot("failing"), tmp_path / "png")
    assert path.name == "learning_curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def _wait(happened: Callable[[], bool], seconds: float = 30.0) -> None:
    """The page's policy forbids Playwright's own waiting for an expression."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
