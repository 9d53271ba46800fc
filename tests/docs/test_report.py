"""docs/report.md: its numbers are the code's, and its pictures are there and small."""

from __future__ import annotations

import runpy

from hybridflow.config.schema import TrainerConfig
from hybridflow.observe.report import document, page, timelines
from hybridflow.workers.rollout_entries import BY_TOKEN, VALUES
from tests.docs.blocks import ROOT

TEXT = (ROOT / "docs/report.md").read_text(encoding="utf-8")


def test_the_limits_that_it_names_hold() -> None:
    assert f"{page.MAX_BYTES / 1e6:g} MB at most" in TEXT
    assert f"{timelines.MAX_STEPS} of a run at most" in TEXT and f"more than {document.MAX_EVENTS} events" in TEXT
    assert document.MAX_NUMBERS >= 90 * 1000, "one run of 1,000 steps with 90 metrics has every point"
    assert f"`trainer.log_token_rows` rows of a rank ({TrainerConfig().log_token_rows}; 0: none)" in TEXT


def test_what_is_kept_of_tokens_is_told() -> None:
    assert all(f"`{name}`" in TEXT for name in (BY_TOKEN, *VALUES))


def test_its_pictures_are_those_that_the_script_takes_and_small() -> None:
    taken = runpy.run_path(str(ROOT / "docs/images/report.py"))["PICTURES"]
    files = {file.stem: file.stat().st_size for file in (ROOT / "docs/images").glob("report-*.png")}
    assert files.keys() == taken.keys() and max(files.values()) <= 200_000
    assert all(f"images/{name}.png" in TEXT for name in ("report-light", "report-rollouts"))
