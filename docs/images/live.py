"""Draws live.svg, the live view of docs/watch.md, of a run that was recorded: `python docs/images/live.py` writes it.

live_run/ has what the panel reads of it. `python docs/images/live.py RUN` records another one in its place. live.png is
the same as Debian's Chromium shows it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from hybridflow.observe.run_panel import RunPanel
from hybridflow.observe.run_records import newest_rows
from hybridflow.observe.run_state import FollowedRun, RunState

HERE = Path(__file__).resolve().parent
RUN = HERE / "live_run"
WIDTH = 120
FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)  # that are fetched; whoever looks has one of its own
ROUND = 6  # digits of a number that is kept
ROWS = 8  # of a step that are kept


def record(run: Path) -> None:
    """Keep what the panel reads of a run: as it was, but for places and digits that nobody sees."""
    shutil.rmtree(RUN, ignore_errors=True)
    (RUN / "rollouts").mkdir(parents=True)
    lines = [json.loads(line, parse_float=_rounded) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (RUN / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    shutil.copy(run / "events.jsonl", RUN)
    rows = newest_rows(run / "rollouts/rank0.jsonl")[:ROWS]
    (RUN / "rollouts/rank0.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    record = json.loads((run / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps({name: record[name] for name in ("name", "status", "error", "versions")}))
    (RUN / "config.yaml").write_text(f"trainer:\n  steps: {record['steps']}\n")


def picture() -> str:
    """Draw the SVG."""
    state = RunState("")
    followed = FollowedRun(RUN, state)
    followed.look_at_record()
    followed.look()
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, highlight=False)
    console.print(RunPanel(state, 0.0))
    return console.export_svg(title="hybridflow watch runs/addition", code_format=FONTS.sub("", CONSOLE_SVG_FORMAT))


def screenshot(svg: Path) -> None:
    """Take a picture of the SVG."""
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(viewport={"width": 1482, "height": 685})
        page.goto(svg.as_uri())
        page.screenshot(path=svg.with_suffix(".png"))
        browser.close()


def _rounded(number: str) -> float:
    return float(f"{float(number):.{ROUND}g}")


if __name__ == "__main__":
    if sys.argv[1:]:
        record(Path(sys.argv[1]))
    (HERE / "live.svg").write_text(picture(), encoding="utf-8")
    screenshot(HERE / "live.svg")
