"""Pairs of right and wrong answers to sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from hybridflow.errors import ConfigError
from hybridflow.tasks import SPLITS, PreferenceTask, build
from hybridflow.tasks.addition import ALPHABET, Addition
from hybridflow.tasks.addition_pairs import AdditionPairs, wrong_answer


@given(st.text("0123456789", min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_a_wrong_answer_is_wrong_and_can_be_said(right: str, seed: int) -> None:
    wrong = wrong_answer(right, np.random.default_rng(seed))
    assert wrong != right and set(wrong) <= set(ALPHABET) and len(wrong) <= len(right) + 1
    assert wrong == wrong_answer(right, np.random.default_rng(seed))


def count_changes(wrong: str, right: str) -> int:
    """How many digits differ."""
    return sum(a != b for a, b in zip(wrong, right, strict=True))


def test_half_of_the_wrong_answers_are_near_misses() -> None:
    found = [wrong_answer("1234", np.random.default_rng(seed)) for seed in range(2000)]
    one = [wrong for wrong in found if len(wrong) == 4 and count_changes(wrong, "1234") == 1]
    assert 0.5 / 4 - 0.03 < len(one) / len(found) < 0.5 / 4 + 0.03
    assert {len(wrong) for wrong in found} == {0, 1, 2, 3, 4, 5}


def test_any_number_of_a_near_miss_s_digits_is_changed() -> None:
    counts = [
        count_changes(wrong_answer("1234", np.random.default_rng(seed), near=1.0), "1234") for seed in range(2000)
    ]
    assert np.allclose(np.bincount(counts, minlength=5) / len(counts), [0, 0.25, 0.25, 0.25, 0.25], atol=0.04)


@pytest.mark.parametrize("near", [0.0, 1.0])
def test_their_share_can_be_chosen(near: float, digits: PreTrainedTokenizerFast) -> None:
    task = AdditionPairs(digits, near_misses=near, zero_pad=True)
    pairs = [(task.example("train", i).answer, task.rejected("train", i)) for i in range(300)]
    found = [len(a) == len(b) and count_changes(a, b) < len(a) for a, b in pairs]
    assert 0.6 < np.mean(found) < 0.75 if near else np.mean(found) < 0.2


@pytest.mark.parametrize("options", [{}, {"zero_pad": True, "reverse_answer": True}])
def test_the_sums_are_those_of_addition(options: dict[str, bool], digits: PreTrainedTokenizerFast) -> None:
    pairs, sums = AdditionPairs(digits, wrong_answers=3, max_operand=20, **options), Addition(digits, 20, **options)
    for split in SPLITS:
        size = sums.size(split)
        assert pairs.size(split) == 3 * size
        assert [pairs.example(split, i) for i in range(3 * size)] == [sums.example(split, i) for i in range(size)] * 3


def test_every_turn_has_a_wrong_answer_of_its_own(digits: PreTrainedTokenizerFast) -> None:
    task = AdditionPairs(digits, wrong_answers=2)
    size = task.size("held_out") // 2
    assert np.mean([task.rejected("held_out", i) == task.rejected("held_out", i + size) for i in range(size)]) < 0.15


def test_rows_have_both_sides_and_their_end(digits: PreTrainedTokenizerFast) -> None:
    task = build("addition_pairs", digits, {"zero_pad": True})
    assert isinstance(task, PreferenceTask)
    batch = task.preferences("train", [5, 0])
    assert batch.columns == ("prompt_ids", "answer", "sample_id", "response_ids", "rejected_ids")
    for row, index in enumerate([5, 0]):
        texts = task.example("train", index).answer, task.rejected("train", index)
        for name, text in zip(("response_ids", "rejected_ids"), texts, strict=True):
            ids = batch.ragged(name)[row].tolist()
            assert ids[-1] == digits.eos_token_id and digits.decode(ids[:-1]) == text


def test_no_wrong_answers_are_an_error(digits: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="wrong_answers: 0 given, at least 1 expected"):
        build("addition_pairs", digits, {"wrong_answers": 0})
    with pytest.raises(ConfigError, match=r"near_misses: 1\.5 given, at least 0 and at most 1 expected"):
        build("addition_pairs", digits, {"near_misses": 1.5})
