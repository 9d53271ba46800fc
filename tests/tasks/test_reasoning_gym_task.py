"""Task and grader `reasoning_gym`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hybridflow.conformance.task_checks import any_text_tokenizer
from hybridflow.errors import ConfigError, HybridFlowError
from hybridflow.tasks import GradedRow, Task, build, reasoning_gym_task
from hybridflow.tasks.grader_registry import bind
from hybridflow.tasks.reasoning_gym_task import ReasoningGymGrader


def built(**options: object) -> Task:
    return build("reasoning_gym", any_text_tokenizer(), {"dataset": "basic_arithmetic", **options})


def test_rows_are_the_same_each_time_and_held_out_shares_none() -> None:
    options = {"config": {"max_terms": 2, "max_digits": 1}, "train_rows": 300, "held_out_rows": 50}
    task, again = built(**options), built(**options)
    rows = {split: [task.example(split, row) for row in range(task.size(split))] for split in ("train", "held_out")}
    assert rows["train"] == [again.example("train", row) for row in range(300)]
    asked = {split: {str(row.prompt) for row in found} for split, found in rows.items()}
    assert not asked["train"] & asked["held_out"] and len(rows["held_out"]) == 50
    assert rows["train"][0].source == "basic_arithmetic"
    assert rows["train"][0] != built(**options, seed=1).example("train", 0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dataset": "no_such"}, "'no_such' given; one of reasoning-gym's was expected: .*basic_arithmetic"),
        ({"dataset": "basic_aritmetic"}, r"given; did you mean basic_arithmetic\?"),
        ({"config": {"no_such": 1}}, "does not take"),
        ({"config": {"min_terms": -1}}, "does not take"),
        ({"train_rows": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        built(**options)


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym_task, "find_spec", lambda name: None)
    for made in (built, lambda: bind("reasoning_gym")):
        with pytest.raises(HybridFlowError, match=r"pip install 'hybridflow\[reasoning-gym\]'"):
            made()


def test_its_grader_is_refused_where_there_is_no_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HybridFlowError, match=r"scores nothing outside of a sandbox: bwrap is not on the PATH"):
        bind("reasoning_gym")


@pytest.mark.system
def test_scores_are_its_own() -> None:
    assert shutil.which("bwrap"), "install the package bubblewrap: these tests run programs in its sandbox"
    grade = ReasoningGymGrader(row_s=1)
    example = built(train_rows=5, held_out_rows=5).example("train", 0)
    queens = build("reasoning_gym", any_text_tokenizer(), {"dataset": "n_queens"}).example("train", 1)
    hangs = "[list(iter(int, 1))]"
    rows = [
        GradedRow(response, row.answer, metadata=row.metadata)
        for row, response in [
            (example, example.answer),
            (example, f"<answer>0.5</answer> no <answer> {example.answer}\n</answer>"),
            (example, f"{int(example.answer) + 1}"),
            (example, ""),
            (example, "\ud800"),
            (queens, queens.answer),
            (queens, hangs),
            (queens, "__import__('os')._exit(0)"),
        ]
    ]
    assert grade(rows) == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert grade([]) == []
    with pytest.raises(ValueError, match="needs rows of task=reasoning_gym"):
        grade([GradedRow("5", "5")])
    metadata = {"reasoning_gym": {**example.metadata["reasoning_gym"], "question": "another"}}
    with pytest.raises(ValueError, match="made another question"):
        grade([GradedRow("5", "5", metadata=metadata)])
