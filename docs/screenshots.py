"""Draws the pictures of dashboard.md and README from a sweep: ``uv run python -m docs.screenshots STORE_URL NAME``.

They are what Chromium shows of the dashboard; the sweep is one of `experiments.sweep_arena` with 20 trials.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.support.chromium import headless_chromium
from tests.support.dashboard import dashboard

IMAGES = Path(__file__).parent / "images"
DESKTOP, PHONE = {"width": 1280, "height": 1760}, {"width": 390, "height": 844}
PATIENCE_MS = 60_000
COLOURS = 256


def opened(browser: Browser, address: str, dark: bool = False, size: dict[str, int] = DESKTOP) -> Page:
    """The dashboard, with every plot drawn."""
    page = browser.new_page(color_scheme="dark" if dark else "light", viewport=size)  # type: ignore[arg-type]
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector('.figure[data-name="predicted_against_measured"]', state="attached")  # the model was asked
    for card in page.locator(".figure").all():
        card.scroll_into_view_if_needed()
        page.wait_for_selector(f'.figure[data-drawn][data-name="{card.get_attribute("data-name")}"]')
    page.evaluate("scrollTo(0, 0)")
    return page


def main(url: str, name: str) -> None:
    with dashboard(url, name) as address, headless_chromium() as browser:
        page = opened(browser, address)
        keep(page.screenshot(), "dashboard")
        keep(page.locator(".plots").nth(0).screenshot(), "dashboard_plots")
        keep(page.locator(".plots").nth(1).screenshot(), "dashboard_parameters")
        page.locator("table.trials tbody tr").first.click()
        page.wait_for_selector("#trial .main-svg")
        keep(page.screenshot(), "dashboard_trial")
        keep(opened(browser, address, dark=True, size=PHONE).screenshot(), "dashboard_phone")


def keep(png: bytes, name: str) -> None:
    """Write a picture, in as few colours as it takes."""
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS).save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
