"""Facts of rows: histograms, types, and what is the same question."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.errors import DataError
from hybridflow.tasks import Example, PreferenceTask
from hybridflow.tasks.data_facts import Facts, has_pairs, histogram, kind_of, question_digest


@given(lengths=st.lists(st.integers(0, 10**6), min_size=1, max_size=50), bars=st.integers(2, 12))
def test_a_histogram_has_each_row_in_the_bar_of_its_length(lengths: list[int], bars: int) -> None:
    found = histogram(lengths, bars)
    assert 1 <= len(found) <= bars and sum(bar.rows for bar in found) == len(lengths)
    for bar in found:
        assert bar.rows == sum(bar.first <= length <= bar.last for length in lengths)
    assert found[0].rows and found[-1].rows
    assert all(before.last + 1 == after.first for before, after in pairwise(found))


def test_no_rows_have_no_bars() -> None:
    assert histogram([]) == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "text"), (1, "number"), (1.5, "number"), (np.int64(2), "number"), (True, "boolean"), ({}, "object"),
        ([1], "list"), ([], "list"), ([{"role": "user", "content": "x"}], "chat"), (None, "NoneType"),
    ],
)  # fmt: skip
def test_types_are_those_of_json(value: Any, kind: str) -> None:
    assert kind_of(value) == kind


def test_a_question_is_the_same_whatever_space_is_around_it() -> None:
    chat = [{"role": "user", "content": "one?"}]
    assert question_digest("one?") == question_digest(" one?\n") != question_digest("two?")
    assert question_digest(chat) == question_digest([{"content": "one? ", "role": "user"}]) != question_digest("one?")


class Some(PreferenceTask):
    """Rows of which those given have a rejected answer."""

    def __init__(self, *rejected: bool) -> None:
        self.given = rejected

    def size(self, split: str) -> int:
        return len(self.given)

    def example(self, split: str, index: int) -> Example:
        return Example("1+1=", "2", index)

    def rejected(self, split: str, index: int) -> str:
        if not self.given[index]:
            raise DataError("there is none")
        return "3"


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        ([True] * 40, True),
        ([True] * 19 + [False], True),
        ([False] * 9, False),
        ([False], False),
        ([True, False] * 9, False),
    ],
)
def test_pairs_are_told_by_the_first_rows(rejected: list[bool], expected: bool) -> None:
    assert has_pairs(Some(*rejected), "train") == expected


def test_a_row_is_too_long_by_its_prompt_or_by_its_longer_answer() -> None:
    facts = Facts("train", 3, prompts=[4, 8, 5], answers=[1, 2, 3])
    assert facts.too_long(10, 3) == (1, 0) and facts.too_long(9, 3) == (1, 1)
    facts.rejected = [7, 1, 1]
    assert facts.too_long(10, 3) == (1, 1)
