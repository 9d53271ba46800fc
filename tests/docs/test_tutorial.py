"""docs/tutorial.md: its files and commands as they stand, from rows to an exported model that is better than before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, write_files
from tests.docs.conftest import Run

pytestmark = [pytest.mark.processes, pytest.mark.ranks, pytest.mark.timeout(600)]

PAGE = "docs/tutorial.md"
FILES = ["make_rows.py", "my_grader.py", "my_loss.py", "my_configs/experiment/sorting.yaml"]


def validations(run_folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "validation/accuracy" in line]


def test_the_page_runs(tmp_path: Path, run: Run) -> None:
    """The commands in their order; `sh` is for what a reader has done already, or does with a real model."""
    assert write_files(PAGE, tmp_path) == FILES
    lines = [line for block in blocks(PAGE) if block.language == "bash" for line in block.text.splitlines()]
    shown = {" ".join(line.split()[:2]): run(*line.partition(" #")[0].split()).stdout for line in lines}
    assert [*shown][2:] == [f"hybridflow {name}" for name in ("data", "check", "sft", "train", "export", "evaluate")]
    assert "rows in the format qa" in shown["hybridflow data"]
    assert shown["hybridflow check"].endswith("all expectations are met\n")
    warm, mine = (validations(tmp_path / "runs" / name) for name in ("warm_up", "mine"))
    untrained, before, after = warm[0], warm[-1], mine[-1]
    assert untrained["validation/accuracy"] < 0.1 < before["validation/accuracy"]
    assert after["validation/accuracy"] > before["validation/accuracy"] + 0.1
    steps = [json.loads(line) for line in (tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()]
    assert any("reward/in_place/characters/mean" in step for step in steps)
    for name, last in (("runs-warm_up", before), ("models-sorter", after)):
        found = json.loads((tmp_path / f"runs/evaluate/{name}/evaluation.json").read_text())["statistics"]
        assert found == pytest.approx({metric: last[f"validation/{metric}"] for metric in found})
