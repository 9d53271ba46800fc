"""Gradients that are not finite, many in a row, end a run, whose last rows are written bit by bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from hybridflow.batch import Batch, BatchRef, Ragged
from hybridflow.errors import HybridFlowError
from hybridflow.trainer.nonfinite import end_if_too_many
from hybridflow.trainer.progress import Progress


def updates(nonfinite: float, role: str = "critic") -> dict[str, float]:
    """The metrics of a step of four updates."""
    return {f"{role}/updates": 4.0, f"{role}/nonfinite_updates": nonfinite, f"{role}/skipped_steps": nonfinite / 4}


@pytest.mark.parametrize(
    ("steps", "in_a_row"),
    [((4, 4), 8), ((0, 4), 4), ((4, 1), 0), ((4, 0, 4), 4)],
)
def test_those_in_a_row_are_counted(steps: tuple[float, ...], in_a_row: float) -> None:
    progress = Progress()
    for nonfinite in steps:
        progress.take_in(updates(nonfinite), "actor", 4)
    assert progress.learning["critic"].nonfinite_in_a_row == in_a_row


def test_too_many_end_the_run_and_its_rows_are_there_for_study(tmp_path: Path) -> None:
    prompts = Ragged.of([[1, 2], [3]])
    values = np.array([1.0, math.nan], dtype=np.float32)
    rows = Batch(prompt_ids=prompts, rewards=values, answer=["one", "twö"])
    progress = Progress(steps=7)
    progress.take_in(updates(4), "actor", 4)
    end_if_too_many(progress, 5, BatchRef.from_local(rows), tmp_path / "nonfinite")
    assert not (tmp_path / "nonfinite").exists()
    with pytest.raises(HybridFlowError, match="last 4 updates of the critic were not finite") as ended:
        end_if_too_many(progress, 4, BatchRef.from_local(rows), tmp_path / "nonfinite")
    file = tmp_path / "nonfinite/step-000007.safetensors"
    assert str(file) in str(ended.value)
    with safe_open(file, framework="numpy") as found:
        assert {*found.keys()} == {"prompt_ids", "prompt_ids.offsets", "rewards"}
        assert found.get_tensor("rewards").tobytes() == values.tobytes()
        assert np.array_equal(found.get_tensor("prompt_ids.offsets"), prompts.offsets)
        assert json.loads(found.metadata()["answer"]) == ["one", "twö"]
