"""What docs/profile.md says of predicted steps is what the measured ones give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/profile.md"


@pytest.mark.slow
def test_the_page_has_the_figures_of_the_benchmark() -> None:
    from benchmarks import step_prediction
    from hybridflow.planning.hardware_files import read_hardware

    records = json.loads(step_prediction.TIMES.read_text("utf-8"))
    profiles = [read_hardware(file) for file in step_prediction.HARDWARE]
    found = step_prediction.claims(step_prediction.cross_predicted(records, profiles))
    assert found["step_error"] <= step_prediction.ERROR
    assert found["best_within"] >= step_prediction.OF_BEST
    text = PAGE.read_text("utf-8")
    assert f"**{found['step_error']:.0%}** | **{found['spearman']:.2f}**" in text
