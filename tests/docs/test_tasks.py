"""docs/tasks.md: its task and its grader, tried without a model as it says; test_algorithms.py trains on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import blocks, write_files
from tests.docs.conftest import Run

pytestmark = pytest.mark.processes

PAGE = "docs/tasks.md"


def test_the_page_runs(tmp_path: Path, run: Run) -> None:
    assert write_files(PAGE, tmp_path) == ["my_configs/task/two_sums.yaml", "my_sums.py"]
    example, trial = (block.text for block in blocks(PAGE) if block.language == "python")
    assert trial.count("assert ") == 2
    (tmp_path / "trial.py").write_text(f"{example}\n{trial}", encoding="utf-8")
    run("python", "trial.py")


def test_its_check_meets_all_expectations(tmp_path: Path, run: Run) -> None:
    write_files(PAGE, tmp_path)
    lines = run("hybridflow", "check", "my_sums").stdout.splitlines()
    assert lines == ["found: task 'chains', grader 'digits'", "  ok     task 'chains'", "  ok     grader 'digits'", END]


END = "all expectations are met"
