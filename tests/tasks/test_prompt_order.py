"""The order of prompts: a function of seed and step, each epoch each row once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hybridflow.tasks import Example, Prompts, Task, build


class Sized(Task):
    """A task with that many rows in `train`."""

    grader = "exact"

    def __init__(self, rows: int) -> None:
        self.count = rows

    def size(self, split: str) -> int:
        return {"train": self.count, "held_out": 1, "warmup": 0}[split]

    def example(self, split: str, index: int) -> Example:
        return Example(str(index), str(index), index)


@given(size=st.integers(1, 40), per_step=st.integers(1, 100), seed=st.integers(0, 9), epochs=st.integers(1, 4))
def test_each_epoch_has_each_row_once(size: int, per_step: int, seed: int, epochs: int) -> None:
    prompts = Prompts(Sized(size), "train", per_step, seed)
    steps = [prompts.at(step) for step in range(-(-epochs * size // per_step))]
    assert all(len(rows) == per_step for rows in steps)
    walked = np.concatenate(steps)[: epochs * size].reshape(epochs, size)
    assert (np.sort(walked, axis=1) == np.arange(size)).all()


@given(step=st.integers(0, 10_000), seed=st.integers(0, 9))
def test_a_resumed_run_goes_on_in_the_same_order(step: int, seed: int) -> None:
    walked = Prompts(Sized(37), "train", 5, seed)
    walked.at(0), walked.at(step + 1)
    assert (walked.at(step) == Prompts(Sized(37), "train", 5, seed).at(step)).all()


def test_epochs_and_seeds_differ() -> None:
    one, other = Prompts(Sized(50), "train", 50, seed=1), Prompts(Sized(50), "train", 50, seed=2)
    assert (one.at(0) != one.at(1)).any() and (one.at(0) != other.at(0)).any()


def test_batch_is_the_rows_of_the_step(digits: PreTrainedTokenizerFast) -> None:
    task = build("addition", digits, {})
    prompts = Prompts(task, "train", 4, seed=1)
    assert prompts.batch(3)["sample_id"].tolist() == task.rows("train", prompts.at(3))["sample_id"].tolist()


def test_what_cannot_be_walked() -> None:
    with pytest.raises(ValueError, match="'warmup' of the task is empty"):
        Prompts(Sized(5), "warmup", 1, seed=1)
    with pytest.raises(ValueError, match="0 rows per step"):
        Prompts(Sized(5), "train", 0, seed=1)
    with pytest.raises(ValueError, match="draw -1"):
        Prompts(Sized(5), "train", 1, seed=1).at(-1)
