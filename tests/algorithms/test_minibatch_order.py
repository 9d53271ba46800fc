"""The rows of minibatches: shuffled, and whole groups."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.algorithms.minibatch_order import minibatch_rows
from hybridflow.batch.row_operations import even_sizes


def drawn(groups: list[int] | np.ndarray, parts: int, seed: int = 0) -> list[list[int]]:
    return [rows.tolist() for rows in minibatch_rows(np.array(groups), parts, np.random.default_rng(seed))]


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 6), st.integers(0, 3))
def test_every_row_is_in_one_part_beside_those_of_its_group(groups: list[int], parts: int, seed: int) -> None:
    found = drawn(groups, parts, seed)
    assert len(found) == parts
    order = [row for part in found for row in part]
    assert sorted(order) == list(range(len(groups)))
    numbers = [groups[row] for row in order]
    changes = sum(one != other for one, other in pairwise(numbers))
    assert changes == max(len(set(groups)) - 1, 0), "rows of a group lie together"
    assert all(order.index(a) < order.index(b) for a in order for b in order if a < b and groups[a] == groups[b])


@given(st.integers(1, 8), st.integers(2, 8), st.integers(1, 6), st.integers(0, 3))
def test_no_group_is_parted_and_parts_are_as_even_as_whole_groups_allow(
    count: int, samples: int, parts: int, seed: int
) -> None:
    found = drawn(np.repeat(np.arange(count), samples), parts, seed)
    sizes = [len(part) for part in found]
    if count < parts:
        assert sizes == even_sizes(count * samples, parts), "there are too few groups"
        return
    assert all(size % samples == 0 for size in sizes) and max(sizes) - min(sizes) <= samples
    assert all(len(set(row // samples for row in part)) * samples == len(part) for part in found)


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_rows_that_are_groups_of_their_own_are_shuffled_as_rows(parts: int) -> None:
    """As they always were: a run with one sample a prompt keeps its bits."""
    order = np.random.default_rng((5, 2, 0)).permutation(10)
    found = minibatch_rows(np.arange(10)[::-1], parts, np.random.default_rng((5, 2, 0)))
    assert np.concatenate(found).tolist() == order.tolist()
    assert [len(part) for part in found] == even_sizes(10, parts)


def test_a_group_that_would_leave_a_part_empty_is_cut() -> None:
    sizes = [len(part) for part in drawn([0] * 20 + [1, 2, 3], 4)]
    assert sizes == even_sizes(23, 4)


def test_the_order_is_of_groups_and_not_of_their_numbers() -> None:
    groups = np.repeat(np.arange(6), 4)
    assert drawn(groups, 3) == drawn(100 - groups, 3) != drawn(groups, 3, seed=1)
