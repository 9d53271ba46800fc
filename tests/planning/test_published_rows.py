"""Published step times are read as they stand, and a row that contradicts itself is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import published_rows
from benchmarks.published_rows import published_steps, sources


def test_rows_have_a_source_and_what_they_name() -> None:
    known = sources()
    steps = published_steps()
    assert {step.release for step in steps} == set(known["releases"])
    assert {step.system for step in steps} == set(known["systems"])
    assert {step.model for step in steps} == set(known["models"])
    assert {step.precision for step in steps} == {"bf16", "fp8"}


def test_a_row_is_as_on_the_page() -> None:
    slower = [step for step in published_steps() if (step.release, step.system, step.gpus) == ("v0.6", "GB200", 16)]
    assert [(step.model, step.steps_off, step.step_s) for step in slower] == [
        ("Qwen3-30B-A3B", 0, 221.0),
        ("Qwen3-30B-A3B", 1, 301.0),
    ]
    assert [step.training_gpus for step in slower] == [16, 8]


def test_rates_leave_a_prompt_beside_the_response() -> None:
    tokens = sorted(step.prompt_tokens for step in published_steps())
    assert 90 < tokens[len(tokens) // 2] < 130  # OpenMathInstruct-2, whose prompts all models but for templates share


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("tensor", "3", "GPUs train in replicas of 6"),
        ("generation_tensor", "5", "GPUs generate in replicas of 5"),
        ("train_rows", "500", "rows are learned from 500 at a time"),
        ("step_s", "9280", "tokens a row"),
    ],
)
def test_a_row_that_cannot_be_is_refused(
    column: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, first, *_ = published_rows.STEPS.read_text("utf-8").splitlines()
    cells = first.split(",")
    cells[head.split(",").index(column)] = value
    changed = tmp_path / "steps.csv"
    changed.write_text(f"{head}\n{','.join(cells)}\n", "utf-8")
    monkeypatch.setattr(published_rows, "STEPS", changed)
    with pytest.raises(ValueError, match=said) as refused:
        published_steps()
    assert "steps.csv, line 2" in str(refused.value)
