"""Pairs of answers to sums, one of them with a 7 more."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hybridflow.tasks import HarmTask, build, graders
from hybridflow.tasks.addition_pairs import AdditionPairs
from hybridflow.tasks.addition_sevens import AdditionSevens, other_sevens


@given(st.text("0123456789", min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_one_seven_comes_or_goes(text: str, seed: int) -> None:
    found = other_sevens(text, np.random.default_rng(seed))
    assert found.isdecimal() and sum(a != b for a, b in zip(text, found, strict=True)) == 1
    assert abs(found.count("7") - text.count("7")) == 1


def test_where_nothing_is_said_a_seven_comes() -> None:
    assert other_sevens("", np.random.default_rng(0)) == "7"


def test_the_better_side_has_fewer_and_labels_are_the_grades(digits: PreTrainedTokenizerFast) -> None:
    task, grade = AdditionSevens(digits, zero_pad=True), graders.get("has_seven")
    labels = set()
    for index in range(500):
        better, worse = task.example("train", index).answer, task.rejected("train", index)
        assert better.count("7") + 1 == worse.count("7")
        assert task.harmful("train", index) == (grade(better, "") == 1.0, grade(worse, "") == 1.0)
        labels.add(task.harmful("train", index))
    assert labels == {(False, True), (True, True)}


def test_the_sums_are_those_of_addition_and_many_answers_are_right(digits: PreTrainedTokenizerFast) -> None:
    task, sums = AdditionSevens(digits, wrong_answers=2), AdditionPairs(digits, wrong_answers=2)
    assert task.size("train") == sums.size("train")
    right = []
    for index in range(400):
        example = sums.example("train", index)
        assert task.example("train", index).prompt == example.prompt
        assert task.example("train", index).sample_id == example.sample_id
        right.append(example.answer in (task.example("train", index).answer, task.rejected("train", index)))
    assert 0.4 < np.mean(right) < 0.7


def test_rows_have_both_labels(digits: PreTrainedTokenizerFast) -> None:
    task = build("addition_sevens", digits, {"zero_pad": True})
    assert isinstance(task, HarmTask)
    batch = task.preferences("train", [5, 0, 9])
    for row, index in enumerate([5, 0, 9]):
        found = tuple(bool(batch.dense(name)[row]) for name in HarmTask.labels)
        assert found == task.harmful("train", index)
    assert batch.columns == (
        "prompt_ids", "answer", "sample_id", "response_ids", "rejected_ids", "chosen_harmful", "rejected_harmful",
    )  # fmt: skip
    assert len(task.preferences("train", [])) == 0
