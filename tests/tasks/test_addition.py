"""Sums, and which split each falls into."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from hybridflow.errors import ConfigError
from hybridflow.tasks import SPLITS, build
from hybridflow.tasks.addition import Addition
from hybridflow.tasks.hash_splits import share_of_pair


def sums_of(task: Addition, split: str) -> list[tuple[int, int]]:
    texts = [str(task.example(split, i).prompt) for i in range(task.size(split))]
    assert all(text.endswith("=") for text in texts)
    return [(int(a), int(b)) for a, b in (text[:-1].split("+") for text in texts)]


def test_every_sum_once_and_right(digits: PreTrainedTokenizerFast) -> None:
    task = Addition(digits, max_operand=30)
    sums = sums_of(task, "train") + sums_of(task, "held_out")
    assert sorted(sums) == [(a, b) for a in range(31) for b in range(31)]
    for split in SPLITS:
        answers = task.rows(split, np.arange(task.size(split))).dense("answer")
        assert [int(x) for x in answers] == [a + b for a, b in sums_of(task, split)]


def test_a_held_out_sum_is_never_trained_on_in_either_order(digits: PreTrainedTokenizerFast) -> None:
    task = Addition(digits)
    trained = set(sums_of(task, "train"))
    held_out = set(sums_of(task, "held_out"))
    assert not trained & {pair for a, b in held_out for pair in ((a, b), (b, a))}
    assert set(sums_of(task, "warmup")) < trained


@pytest.mark.parametrize(("held_out", "warmup"), [(0.1, 0.25), (0.3, 0.5)])
def test_fractions(held_out: float, warmup: float, digits: PreTrainedTokenizerFast) -> None:
    task = Addition(digits, held_out_fraction=held_out, warmup_fraction=warmup)
    assert task.size("held_out") / 10_000 == pytest.approx(held_out, abs=0.02)
    assert task.size("warmup") / task.size("train") == pytest.approx(warmup, abs=0.02)


def test_the_first_rows_are_a_fair_sample(digits: PreTrainedTokenizerFast) -> None:
    """A validation takes the first rows of `held_out`: they must not be the small sums."""
    sums = np.array(sums_of(Addition(digits), "held_out")[:300])
    assert sums.mean(axis=0) == pytest.approx([49.5, 49.5], abs=6)


def test_a_sums_split_does_not_depend_on_the_others(digits: PreTrainedTokenizerFast) -> None:
    small, large = Addition(digits, max_operand=50), Addition(digits, max_operand=99)
    inside = {(a, b) for a, b in sums_of(large, "held_out") if max(a, b) <= 50}
    assert set(sums_of(small, "held_out")) == inside


def test_the_split_is_fixed_for_good() -> None:
    """Another hash would leak held-out sums of an older run into the training of a newer one."""
    found = share_of_pair(np.array([0, 57, 68, 99]), np.array([0, 68, 57, 1]))
    assert found[1] == found[2]
    assert found == pytest.approx([0.8833108082136, 0.4858821468044, 0.4858821468044, 0.5203720430979], abs=1e-12)


def test_reversed_answers(digits: PreTrainedTokenizerFast) -> None:
    plain = build("addition", digits, {})
    turned = build("addition", digits, {"reverse_answer": True})
    for index in range(50):
        assert turned.example("train", index).answer == plain.example("train", index).answer[::-1]


@pytest.mark.parametrize("zero_pad", [False, True])
@pytest.mark.parametrize("last_digits", [1, 2, 4])
def test_last_digits_are_the_sum_s_remainder(last_digits: int, zero_pad: bool, digits: PreTrainedTokenizerFast) -> None:
    task = Addition(digits, 50, zero_pad=zero_pad, reverse_answer=True, last_digits=last_digits)
    for index in range(50):
        found = task.example("train", index)
        a, b = map(int, str(found.prompt).removesuffix("=").split("+"))
        assert found.answer == f"{(a + b) % 10**last_digits:0{last_digits}d}"[::-1]


def test_fewer_digits_than_none_are_an_error(digits: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="last_digits: -1 given, at least 0 expected"):
        build("addition", digits, {"last_digits": -1})


@pytest.mark.parametrize(("max_operand", "width"), [(9, 1), (50, 2), (100, 3)])
def test_padded_sums_have_one_width(max_operand: int, width: int, digits: PreTrainedTokenizerFast) -> None:
    plain, padded = Addition(digits, max_operand), Addition(digits, max_operand, zero_pad=True)
    for index in range(plain.size("held_out")):
        bare, wide = plain.example("held_out", index), padded.example("held_out", index)
        a, b = str(wide.prompt).removesuffix("=").split("+")
        assert (len(a), len(b), len(wide.answer)) == (width, width, width + 1)
        assert f"{int(a)}+{int(b)}=" == bare.prompt and str(int(wide.answer)) == bare.answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_operand": 0}, "max_operand is 0, a number from 1 to 999"),
        ({"max_operand": 1000}, "max_operand is 1000"),
        ({"held_out_fraction": 0.0}, "held_out_fraction is 0.0"),
        ({"warmup_fraction": 1.0}, "warmup_fraction is 1.0"),
        ({"max_operand": 1, "held_out_fraction": 0.001}, "split 'held_out': raise max_operand or held_out_fraction"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str, digits: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match=message):
        Addition(digits, **options)
