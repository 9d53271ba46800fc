"""Orders of rows: each pass has each row once, shares hold in every window, and a place is all that decides."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.tasks import row_order
from hybridflow.tasks.row_order import Curriculum, Mixed, Portion, Walk, turns, whole_shares

COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=6)
LEVELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


def build_mixed(sizes: list[int], weights: list[float], seed: int = 1) -> Mixed:
    ends = np.cumsum([0, *sizes])
    walks = [Walk(np.arange(a, b), [seed, k]) for k, (a, b) in enumerate(pairwise(ends))]
    return Mixed(walks, weights)


@given(counts=COUNTS)
def test_shares_are_met_within_a_row_from_the_start_and_within_two_in_any_window(counts: list[int]) -> None:
    pattern = np.tile(turns(counts), 2)
    total = sum(counts)
    allowed = Fraction(2 * len(counts) - 3, 2 * len(counts) - 2) if len(counts) > 1 else Fraction(0)
    for source, count in enumerate(counts):
        taken = np.concatenate([[0], np.cumsum(pattern == source)])
        ahead = taken * total - count * np.arange(2 * total + 1)  # in units of 1/total
        assert Fraction(int(np.abs(ahead).max()), total) <= allowed
        assert Fraction(int(ahead.max() - ahead.min()), total) <= 2 * allowed
        assert (taken[total:] - taken[:-total] == count).all()  # any window as long as the pattern is exact


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), data=st.data())
def test_a_mixture_walks_through_each_source_whole_and_by_the_place_alone(
    sizes: list[int], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 5), min_size=len(sizes), max_size=len(sizes)))
    places = np.arange(200)
    rows = build_mixed(sizes, weights).at(places)
    start = 0
    for size in sizes:
        own = rows[(rows >= start) & (rows < start + size)]
        whole = own[: len(own) // size * size].reshape(-1, size)
        assert (np.sort(whole, axis=1) == np.arange(start, start + size)).all()
        start += size
    some = data.draw(st.lists(st.integers(0, 199), max_size=20))
    assert (build_mixed(sizes, weights).at(np.array(some, dtype=np.int64)) == rows[some]).all()


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([0.7, 0.3], (7, 3)),
        ([1, 1, 2], (1, 1, 2)),
        ([30, 10], (3, 1)),
        ([0.1, 0.2], (1, 2)),
        ([5], (1,)),
        ([1e-2, 1], (1, 100)),
    ],
)
def test_weights_are_the_numbers_that_are_written(weights: list[float], shares: tuple[int, ...]) -> None:
    assert whole_shares(weights) == shares


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 0], "1, 0; numbers above 0"),
        ([1, -2.0], "above 0"),
        ([float("nan"), 1], "above 0"),
        ([0.123456789, 1], "fewer digits"),
    ],
)
def test_weights_that_cannot_be(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        whole_shares(weights)


@given(levels=LEVELS, seed=st.integers(0, 5), passes=st.integers(1, 3))
def test_a_sorted_curriculum_has_each_row_once_a_pass_the_easiest_first(
    levels: list[int], seed: int, passes: int
) -> None:
    walk = Walk(len(levels), [seed], Curriculum(np.array(levels)))
    for rows in walk.at(np.arange(passes * len(levels))).reshape(passes, -1):
        assert sorted(rows.tolist()) == list(range(len(levels)))
        assert (np.diff(np.array(levels)[rows]) >= 0).all()


@given(levels=LEVELS, pools=st.integers(1, 5), seed=st.integers(0, 5), places=st.lists(st.integers(0, 400), max_size=9))
def test_a_growing_curriculum_adds_harder_rows_pass_by_pass(
    levels: list[int], pools: int, seed: int, places: list[int]
) -> None:
    size = len(levels)
    walk = Walk(size, [seed], Curriculum(np.array(levels), pools))
    rows = walk.at(np.arange(401))
    ranked = sorted(range(size), key=lambda row: levels[row])
    start = 0
    for number in range(1, pools + 3):
        pool = ranked[: -(-size * min(number, pools) // pools)]
        walked = rows[start : start + len(pool)]
        if len(walked) == len(pool):
            assert sorted(walked.tolist()) == sorted(pool)
        start += len(pool)
    again = Walk(size, [seed], Curriculum(np.array(levels), pools))
    assert (again.at(np.array(places, dtype=np.int64)) == rows[places]).all()


def test_a_curriculum_sorts_each_portion_of_a_mixture_by_itself() -> None:
    portions = [Portion("even", np.arange(0, 8, 2), 1), Portion("odd", np.arange(1, 8, 2), 1)]
    order = row_order.row_order(8, 3, portions, Curriculum(np.arange(8)[::-1]))
    assert order.at(np.arange(8)).tolist() == [6, 7, 4, 5, 2, 3, 0, 1]


def test_a_shuffled_order_is_the_one_that_runs_have_always_had() -> None:
    expected = np.concatenate([np.random.default_rng([7, epoch]).permutation(11) for epoch in range(3)])
    assert (row_order.row_order(11, 7).at(np.arange(33)) == expected).all()


def test_a_pass_is_computed_once_for_all_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    rng = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: made.append(seed) or rng(seed))
    walk = Walk(1000, [1])
    for draw in range(0, 3000, 40):
        walk.at(np.arange(draw, draw + 40))
    assert made == [[1, 0], [1, 1], [1, 2]] and len(walk._kept) == row_order.KEPT
