"""Which tokens are learned from, and columns of them alone."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.batch import Batch, Ragged
from hybridflow.batch.loss_mask import LearnedTokens, learned_rows

Masks = list[list[int]]
masks = st.lists(st.lists(st.integers(0, 1), max_size=5), max_size=5)


def build_rows(mask: Masks) -> Batch:
    responses = Ragged.of([range(len(row)) for row in mask], np.int64)
    return Batch(response_ids=responses, loss_mask=responses.like(np.array([*chain(*mask)], dtype=np.int8)))


@given(masks)
def test_picked_are_the_tokens_with_a_one_and_they_go_back_to_their_places(mask: Masks) -> None:
    rows = build_rows(mask)
    learned = LearnedTokens.of(rows)
    values = rows.ragged("response_ids").like(np.arange(10, 10 + sum(map(len, mask))) * 0.5)
    both = [[*zip(row.tolist(), ones, strict=True)] for row, ones in zip(values, mask, strict=True)]
    expected = [[value for value, one in row if one] for row in both]
    assert learned.lengths.tolist() == list(map(len, expected))
    assert learned_rows(rows).tolist() == [1 in ones for ones in mask]
    picked = learned.pick(values)
    assert picked.tolist() == [*chain(*expected)]
    spread = learned.spread(picked)
    assert spread.offsets is rows.ragged("response_ids").offsets and spread.values.dtype == values.values.dtype
    assert [row.tolist() for row in spread] == [[value * one for value, one in row] for row in both]


def test_without_a_mask_columns_are_what_they_were() -> None:
    """Not equal to it: the same arrays, so that nothing can differ in a last bit."""
    rows = build_rows([[1, 1], [], [1]]).select_columns(["response_ids"])
    learned, column = LearnedTokens.of(rows), rows.ragged("response_ids")
    assert learned.mask is None and learned.lengths.tolist() == [2, 0, 1] and learned_rows(rows).all()
    assert learned.pick(column) is column.values and learned.spread(column.values).values is column.values


def test_an_empty_row_has_nothing_to_learn_from_where_there_is_a_mask() -> None:
    assert learned_rows(build_rows([[], [0, 0], [0, 1]])).tolist() == [False, False, True]


def test_a_mask_of_other_tokens_is_refused() -> None:
    rows = Batch(response_ids=Ragged.of([[1], [2, 3]]), loss_mask=Ragged.of([[1, 1], [1]]))
    with pytest.raises(ValueError, match="loss_mask of row 0 has 2 entries and its response 1 tokens"):
        LearnedTokens.of(rows)


@pytest.mark.parametrize("value", [2, -1])
def test_a_mask_is_0_or_1(value: int) -> None:
    rows = Batch(response_ids=Ragged.of([[1, 2]]), loss_mask=Ragged.of([[1, value]]))
    with pytest.raises(ValueError, match=f"loss_mask has {value}; give 1 for a token that is learned from"):
        LearnedTokens.of(rows)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ([[], []], "loss_mask of row 0 has 0 entries and its response 3 tokens"),
        ([[0, 0], [0, 0]], "loss_mask of row 0 has 2 entries"),
        ([[0, 0.5, 0], [0, 0]], "loss_mask has 0.5"),
        ([[0, np.nan, 0], [0, 0]], "loss_mask has nan"),
    ],
)
def test_a_wrong_mask_does_not_pass_for_one_that_leaves_nothing(mask: list[list[float]], told: str) -> None:
    responses = Ragged.of([[1, 2, 3], [4, 5]], dtype=np.int64)
    rows = Batch(response_ids=responses, loss_mask=Ragged.of(mask, dtype=np.float32))
    with pytest.raises(ValueError, match=told):
        learned_rows(rows)
