"""How good models are on held-out questions: of evaluations, of trainings, of files that were edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridflow.observe.report.document import document
from hybridflow.observe.report.evaluations import evaluation
from hybridflow.observe.run_records import RunRecords, read_records
from tests.observe.report.synthetic_run import built

STATISTICS = {"accuracy": 0.75, "accuracy_se": 0.05, "mean_grade": 0.8, "stories/accuracy": 0.5, "failed_grades": 0.0}
COMPARED = {"difference": 0.125, "error": 0.25, "p_value": 0.5, "questions": 64}


def evaluated(folder: Path, **result: Any) -> RunRecords:
    """The folder of an evaluation, read."""
    folder.mkdir()
    (folder / "config.yaml").write_text("run: {name: mine}\n")
    (folder / "evaluation.json").write_text(json.dumps(result))
    return read_records(folder)


def test_an_evaluation_has_its_numbers_with_their_errors(tmp_path: Path) -> None:
    found = evaluation(evaluated(tmp_path / "mine", model="runs/mine:best", statistics=STATISTICS))
    assert found is not None and found["of"] == "runs/mine:best" and found["compared"] == []
    assert found["numbers"] == {"accuracy": "0.750 ± 0.050", "mean_grade": "0.800", "stories/accuracy": "0.500"}
    (run,) = document([evaluated(tmp_path / "other", model="m", statistics=STATISTICS)])["runs"]
    assert run["status"] == "evaluated" and run["evaluation"]["of"] == "m"


@pytest.mark.parametrize(("own", "name"), [({"against": "models/base"}, "models/base"), ({}, "the other model")])
def test_a_comparison_is_told_for_each_set(own: dict[str, str], name: str, tmp_path: Path) -> None:
    compared = {"": COMPARED, "stories": COMPARED | {"difference": -0.125}}
    found = evaluation(evaluated(tmp_path / "mine", model="m", statistics={}, compared=compared, **own))
    assert found is not None
    first, second = found["compared"]
    assert first.startswith(f"m against {name}: +0.125 ± 0.250 in accuracy on 64 questions (paired; p = 0.5")
    assert second.startswith(f"stories: m against {name}: -0.125")


def test_a_training_has_its_last_validation(tmp_path: Path) -> None:
    found = evaluation(built(tmp_path / "mine", steps=20))
    assert found == {"of": "after 20 steps", "numbers": {"accuracy": "0.750"}, "compared": []}


def test_a_run_that_was_asked_nothing_has_none(tmp_path: Path) -> None:
    run = built(tmp_path / "mine")
    run.metrics.validations.clear()
    assert evaluation(run) is None


@pytest.mark.parametrize(
    "edited",
    [
        {"model": ["m"], "statistics": 3, "compared": []},
        {"statistics": {"accuracy": "high", "accuracy_se": None}, "compared": {"": 1, "x": COMPARED | {"error": None}}},
    ],
)
def test_edited_files_do_no_harm(edited: dict[str, Any], tmp_path: Path) -> None:
    found = evaluation(evaluated(tmp_path / "mine", **edited))
    assert found is not None and found["numbers"] == {} and found["compared"] == []
