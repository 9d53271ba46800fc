"""Takes the pictures of docs/report.md: `python docs/images/report.py REPORT.html` writes report-*.png.

The report is one of a real run, `hybridflow train experiment=addition …`; Debian's Chromium draws.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
LAPTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
PICTURES = {  # the section at the top, light or dark, the screen
    "report-light": ("overview", "light", LAPTOP),
    "report-dark": ("curves", "dark", LAPTOP),
    "report-times": ("times", "light", LAPTOP),
    "report-timeline": ("timeline", "dark", LAPTOP),
    "report-rollouts": ("rollouts", "light", LAPTOP),
    "report-phone-light": ("overview", "light", PHONE),
    "report-phone-dark": ("rollouts", "dark", PHONE),
}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


MIXED_GROUP = """() => {
  const rewards = (button) => [...button.querySelectorAll(".rewards > *")].map((one) => one.textContent);
  const all = [...document.querySelectorAll(".groups button")];
  const places = all.flatMap((button, place) => new Set(rewards(button)).size > 1 ? [place] : []);
  for (const place of places) {
    document.querySelectorAll(".groups button")[place].click();
    if (!document.getElementById("rollouts").textContent.includes("No values of its tokens")) return;
  }
}"""  # one whose responses are not all alike, with the values of their tokens


def main(report: Path) -> None:
    """Take all pictures of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for name, (part, scheme, size) in PICTURES.items():
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(report.absolute().as_uri())
            page.wait_for_selector("html[data-ready]")
            show(page, part)
            page.screenshot(path=HERE / f"{name}.png")
            page.close()
        browser.close()


def show(page: Page, part: str) -> None:
    """Bring a section to the top; the first one has the page's head above it. Curves are smoothed."""
    slider = page.get_by_label("smoothing")
    slider.fill("0.6")
    slider.blur()
    if part != "overview":
        page.evaluate("(part) => document.getElementById(part).scrollIntoView()", part)
    steps = page.locator("#rollouts").get_by_label("step")
    steps.select_option(index=steps.locator("option").count() - 1)
    page.evaluate(MIXED_GROUP)
    page.wait_for_timeout(200)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
