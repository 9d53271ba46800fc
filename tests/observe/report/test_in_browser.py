"""The report in Chromium: it draws without an error, asks for nothing, its filters work, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hybridflow.observe.report.page import page_of
from hybridflow.observe.run_records import read_records
from tests.observe.report.synthetic_run import CONFIG, build_run

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
PATIENCE_MS = 120_000  # beside other tests a page takes its time
expect.set_options(timeout=PATIENCE_MS)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH = """window.violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));"""
# The contrast of every text that is seen with what stands behind it, as WCAG 2 has it.
CONTRASTS = """() => {
  const channels = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || node.closest("g, option, .token, .out")) continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(channels(node instanceof SVGElement ? style.fill : style.color)), light(ground(node))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) {
      low.push(`${node.tagName}.${node.getAttribute("class")} ${node.textContent.slice(0, 20)} ${contrast.toFixed(2)}`);
    }
  }
  return low;
}"""

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three runs: one with failures and what is hostile, one with two pools, one that has hardly begun."""
    folder = tmp_path_factory.mktemp("report")
    failures = [
        {"time": "2026-11-30T10:20:00+00:00", "event": "failure", "step": 7, "kind": "infra", "error": HOSTILE},
        {"time": "2026-11-30T10:21:00+00:00", "event": "alarm", "name": "dead_reward", "step": 9, "first_step": 4,
         "seen": HOSTILE, "cause": "nothing is right", "advice": "easier rows", "page": "docs/alarms.md"},
    ]  # fmt: skip
    first = build_run(folder / "first", steps=40, responses=[HOSTILE, "12", "13", ""], tokens=4, events=failures)
    other = CONFIG.replace("1.0e-06", "0.001")
    second = build_run(folder / "second", steps=25, pools=["train", "rollout"], config=other, seed=1)
    third = folder / "third"
    third.mkdir()
    (third / "config.yaml").write_text("run: {name: third}\n")
    file = folder / "report.html"
    file.write_text(page_of([read_records(run) for run in (first, second, third)]), encoding="utf-8")
    return file


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """Open a report; at the end nothing may have gone wrong in it."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.add_init_script(WATCH)
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: wrong.append(request.url) if request.url != file.as_uri() else None)
    try:
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        yield page
        assert page.evaluate("violations") == []
    finally:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_drawn(width: int, scheme: str, browser: Browser, report: Path) -> None:
    with opened(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        expect(page.locator("#curves svg").first).to_be_visible()
        expect(page.locator("#timeline svg").first).to_be_visible()
        for part in ("overview", "alarms", "evaluation", "times", "rollouts", "events", "settings", "versions"):
            assert page.locator(f"#{part}").inner_text().count("\n") > 1, part
        assert page.evaluate("document.documentElement.scrollWidth") <= width, (
            "the page itself does not scroll sideways"
        )
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
        assert page.evaluate(CONTRASTS) == []


def test_what_a_model_wrote_is_text(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        expect(page.locator("#rollouts .side .card").first).to_contain_text("<")
        page.get_by_label("color of tokens").select_option(label="none")
        expect(page.locator("#rollouts .side .card .text").first).to_have_text(HOSTILE)
        expect(page.locator("#events")).to_contain_text(HOSTILE)
        assert page.locator("img").count() == 0


def test_rows_are_found_by_reward_step_and_text(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        rollouts = page.locator("#rollouts")
        told = rollouts.get_by_role("status")
        groups = rollouts.locator(".groups button")
        expect(told).to_have_text("64 rows in 16 groups")
        rollouts.get_by_label("reward from").fill("0.5")
        expect(told).to_have_text("32 rows in 16 groups")
        expect(rollouts.locator(".side .card.out")).to_have_count(2)
        rollouts.get_by_label("step", exact=True).select_option(label="10")
        expect(told).to_have_text("4 rows in 2 groups")
        rollouts.get_by_label("text", exact=True).fill("10+1=")
        expect(told).to_have_text("2 rows in 1 group")
        expect(groups).to_have_count(1)
        expect(rollouts.locator("h3")).to_have_text("Step 10, group 1: 4 responses")
        rollouts.get_by_label("to", exact=True).fill("0.75")
        expect(told).to_have_text("0 rows in 0 groups")
        expect(rollouts).to_contain_text("Nothing matches.")


def test_a_group_is_side_by_side_token_by_token(browser: Browser, report: Path) -> None:
    with opened(browser, report, viewport={"width": 1280, "height": 800}) as page:
        cards = page.locator("#rollouts .side .card")
        expect(cards).to_have_count(4)
        tops = [cards.nth(at).bounding_box()["y"] for at in range(4)]  # type: ignore[index]
        assert len(set(tops)) == 1
        tokens = cards.first.locator(".token")
        expect(tokens).to_have_count(4)
        colors = {tokens.nth(at).evaluate("(node) => node.style.backgroundColor") for at in range(4)}
        assert len(colors) > 1 and all("color-mix" in color for color in colors)
        tokens.nth(2).click()
        expect(cards.first.locator(".readout")).to_contain_text("token 2:")
        page.get_by_label("color of tokens").select_option(label="log-prob, training − generation")
        tokens.nth(1).hover()
        expect(cards.first.locator(".readout")).to_have_text(re.compile(r"^token 1: 0\.0(1|099\d+|100\d*)$"))
        cards.first.get_by_text("Token by token").click()
        expect(cards.first.locator("tbody tr")).to_have_count(4)


def test_curves_are_smoothed_searched_and_hidden(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        curves = page.locator("#curves")
        card = curves.locator('[data-metric="reward/mean"]').first
        lines = card.locator("path.line:not(.raw)")
        expect(lines).to_have_count(2)
        before = lines.first.get_attribute("d")
        curves.get_by_label("smoothing").fill("0.9")
        expect(card.locator("path.raw")).to_have_count(2)
        assert lines.first.get_attribute("d") != before
        page.locator("#runs-legend input").first.uncheck()
        expect(lines).to_have_count(1)
        curves.get_by_label("search a metric").fill("entropy")
        expect(curves.locator(".card:visible")).to_have_count(1)
        curves.get_by_label("search a metric").fill("nothing like it")
        expect(curves).to_contain_text("No metric has that in its name.")


def test_a_chart_tells_its_numbers_to_the_keyboard(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        card = page.locator('#curves [data-metric="reward/mean"]').first
        card.locator("svg").focus()
        page.keyboard.press("ArrowRight")
        expect(card.locator(".readout")).to_contain_text("step 0")
        page.keyboard.press("ArrowRight")
        expect(card.locator(".readout")).to_contain_text("step 1")


def test_other_runs_steps_and_settings_are_chosen(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        timeline = page.locator("#timeline")
        timeline.get_by_label("run", exact=True).select_option(label="second")
        expect(timeline.locator("svg text").first).to_have_text("rollout 0")
        timeline.get_by_label("step", exact=True).select_option(index=1)
        timeline.get_by_label("zoom", exact=True).select_option(label="× 4")
        timeline.locator("rect.bar").first.hover()
        expect(timeline).to_contain_text("rollout.generate_sequences on rank 0 of pool train: 400 ms, from 0.01 s on")
        timeline.get_by_label("run", exact=True).select_option(label="third")
        expect(timeline).to_contain_text("No timeline was written")
        page.locator("#times").get_by_label("run", exact=True).select_option(label="second")
        expect(page.locator("#times")).to_contain_text("A step took")
        expect(page.locator("#differences")).to_contain_text("actor.optimizer.lr")
        page.locator("#settings > details > summary").click()
        page.get_by_label("search a setting").fill("seed")
        expect(page.locator("#settings > details tbody tr")).to_have_count(0)
        page.locator("#events").get_by_label("event", exact=True).select_option(label="failure")
        expect(page.locator("#events tbody tr")).to_have_count(1)


LOOKS = """() => [...document.querySelectorAll('#runs-legend .swatch')].map((swatch) => {
  const style = getComputedStyle(swatch);
  return style.backgroundColor + style.backgroundImage;
})"""
STROKES = """() => [...document.querySelectorAll('#curves [data-metric="reward/mean"] path.line')].map((line) => {
  const style = getComputedStyle(line);
  return style.stroke + style.strokeDasharray;
})"""


def test_of_many_unlike_runs_each_has_a_look_of_its_own_and_few_settings_are_told(
    browser: Browser, tmp_path: Path
) -> None:
    for job in range(20):
        others = "".join(f"  only_{at}: {job}\n" for at in range(6)) + f"  same_as_first: {job}.5\n  also: {job}.5\n"
        many = "".join(f"extra_{at}: {job * at}\n" for at in range(1, 20))
        config = CONFIG.replace("1.0e-06", f"{job + 1}.0e-06") + f"unlike:\n{others}{many}"
        build_run(tmp_path / str(job), steps=3, rows_every=5, config=config, seed=job)
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank/config.yaml").write_text(CONFIG)
    folders = [*(tmp_path / str(job) for job in range(20)), tmp_path / "blank"]
    file = tmp_path / "report.html"
    file.write_text(page_of([read_records(folder) for folder in folders]), encoding="utf-8")
    with opened(browser, file) as page:
        assert len({*page.evaluate(LOOKS)}) == 21
        assert len({*page.evaluate(STROKES)}) == 20
        first = page.locator("#overview tbody tr").first.locator("td.key")
        expect(first.locator("div")).to_have_count(3)
        expect(first.locator("div").first).to_have_text("actor.optimizer.lr=1e-06")
        expect(first.locator("a")).to_contain_text("more")
        shown = page.locator("#differences > .scroll tbody tr")
        expect(shown).to_have_count(12)
        more = page.locator("#differences details")
        more.locator("summary").click()
        folded = more.locator("tr", has_text="unlike.also").or_(shown.filter(has_text="unlike.also"))
        expect(folded).to_contain_text("unlike.same_as_first")
        expect(page.locator("#alarms")).to_contain_text("Without metrics of steps")


def test_runs_without_metrics_are_not_said_to_be_well(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    file = tmp_path / "report.html"
    file.write_text(page_of([read_records(tmp_path)]), encoding="utf-8")
    with opened(browser, file) as page:
        expect(page.locator("#alarms")).to_contain_text("There are no metrics of steps, by which alarms are raised.")
        expect(page.locator("#alarms .fine")).to_have_count(0)
