"""Memory of slots against the bytes of tensors that ranks of whole runs have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.short_runs import ShortRuns
from benchmarks.slot_memory import CASES, Case, compared
from hybridflow.cli import model

pytestmark = pytest.mark.slow

MADE = [case for case in CASES if case.model == "addition" or case.name == "smollm2_tensor"]


@pytest.mark.parametrize("case", MADE, ids=lambda case: case.name)
def test_peaks_of_tensors_are_predicted(case: Case, tmp_path: Path, forks: Mapping[str, str]) -> None:
    assert model.run([case.model, "--out", str(tmp_path / case.model)]) == 0
    folder = ShortRuns(tmp_path, forks).run("train", case.name, *case.overrides(tmp_path))
    for row in compared(case, tmp_path, folder):
        assert row["pass"], row
        assert row["predicted_mib"] == pytest.approx(row["measured_mib"], rel=0.15, abs=32)
